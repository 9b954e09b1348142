"""The networks of EDM."""
