"""Models in the folders of the diffusers library."""
