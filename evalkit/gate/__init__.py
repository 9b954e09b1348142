"""The regression gate: is this model worse than that one, beyond chance and beyond what is tolerated? No torch."""
