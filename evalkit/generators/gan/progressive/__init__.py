"""Progressively grown GANs."""
