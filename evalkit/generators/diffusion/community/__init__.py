"""The U-Nets of pytorch-ddpm and of the DDIM repository."""
