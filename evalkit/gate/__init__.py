"""The regression gate: is a model worse than its baseline, beyond chance and beyond the margin? No torch."""
