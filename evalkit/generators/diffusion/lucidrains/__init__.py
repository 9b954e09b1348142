"""The U-Net of denoising-diffusion-pytorch."""
