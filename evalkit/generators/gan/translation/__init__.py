"""Image-to-image generators: Pix2Pix and CycleGAN."""
