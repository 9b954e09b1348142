"""VQ-VAE (van den Oord et al. 2017): images to 8x8 codes and back, and a Gated PixelCNN over the codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.autoregressive.gated import GatedPixelCNN, GatedPixelCNNConfig


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes; two halvings of the image, one code of ``codes`` for each position that is left.

    ``prior_*`` are the sizes of the network over the codes.
    """

    resolution: int = 32
    codes: int = 512
    code_dim: int = 64
    width: int = 128
    residual_width: int = 64
    residual_layers: int = 2
    num_classes: int = 10
    prior_features: int = 96
    prior_layers: int = 9
    prior_reach: int = 3
    prior_head: int = 256

    def __post_init__(self) -> None:
        """Refuse sizes that no network has; those of the prior are its own to check.

        Raises:
            ValueError: a size is too small, or the image cannot be halved twice.
        """
        sizes = (self.resolution, self.codes, self.code_dim, self.width // 2, self.residual_width)
        if min(sizes) < 1 or self.residual_layers < 0 or self.resolution % 4:
            raise ValueError(f"impossible sizes: {self}")

    @property
    def grid(self) -> int:
        """Height and width of the grid of codes."""
        return self.resolution // 4

    @property
    def prior(self) -> GatedPixelCNNConfig:
        """The network over the codes."""
        return GatedPixelCNNConfig(
            resolution=self.grid,
            channels=1,
            values=self.codes,
            features=self.prior_features,
            layers=self.prior_layers,
            reach=self.prior_reach,
            head=self.prior_head,
            num_classes=self.num_classes,
            embedded=True,
        )


class Residual(nn.Module):
    """``x + conv1x1(relu(conv3x3(relu(x))))``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, inner, 3, padding=1)
        self.narrow = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, width, h, w]`` to the same shape."""
        change: Tensor = self.narrow(F.relu(self.wide(F.relu(x))))
        return x + change


class Codebook(nn.Module):
    """The vectors that codes stand for, with the moving sums that they are the means of."""

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        start = torch.randn(codes, dim)
        self.register_buffer("vectors", start)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", start.clone())

    def nearest(self, x: Tensor) -> Tensor:
        """Return the int64 code ``[...]`` of the vector nearest to each of float32 ``x`` ``[..., d]``."""
        # The squared length of x is the same for all codes.
        distance = self.vectors.square().sum(dim=1) - 2.0 * (x @ self.vectors.T)
        return distance.argmin(dim=-1)

    def look_up(self, codes: Tensor) -> Tensor:
        """Return the vectors ``[..., d]`` of int64 ``codes`` ``[...]``."""
        return F.embedding(codes, self.vectors)


class AutoEncoder(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        w, d = config.width, config.code_dim
        blocks = [Residual(w, config.residual_width) for _ in range(2 * config.residual_layers)]
        half = len(blocks) // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(w // 2, w, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(w, w, 3, padding=1),
            *blocks[:half],
            nn.ReLU(),
            nn.Conv2d(w, d, 1),
        )
        self.codebook = Codebook(config.codes, d)
        self.decoder = nn.Sequential(
            nn.Conv2d(d, w, 3, padding=1),
            *blocks[half:],
            nn.ReLU(),
            nn.ConvTranspose2d(w, w // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(w // 2, w // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(w // 2, 3, 3, padding=1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Return the encoder's float32 vectors ``[n, h, w, d]`` of images ``[n, 3, H, W]`` in [-1, 1]."""
        vectors: Tensor = self.encoder(images)
        return vectors.permute(0, 2, 3, 1).float()

    def decode(self, vectors: Tensor) -> Tensor:
        """Return the images ``[n, 3, H, W]`` in about [-1, 1] of code vectors ``[n, h, w, d]``."""
        images: Tensor = self.decoder(vectors.permute(0, 3, 1, 2))
        return images

    def quantise(self, images: Tensor) -> Tensor:
        """Return the int64 codes ``[n, h, w]`` of images in [-1, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            return self.codebook.nearest(self.encode(images))


class VQVAE(nn.Module):
    """Auto-encoder and prior in one set of weights."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = AutoEncoder(config)
        self.prior = GatedPixelCNN(config.prior)
