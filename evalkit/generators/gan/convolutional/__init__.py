"""Generators of plain, spectrally normalised and self-attentive GANs."""
