"""BigGAN and what shares its generator."""
