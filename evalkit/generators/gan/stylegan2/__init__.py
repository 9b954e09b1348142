"""StyleGAN2 and what shares its generator."""
