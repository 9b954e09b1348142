"""Residual GAN: hinge loss, projection discriminator with spectral norm.

Miyato et al. 2018 (table 4), Miyato & Koyama 2018 (eq. 3). ``n_dis``
discriminator steps for each generator step, both under DiffAugment (Zhao et al. 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from evalkit.errors import UsageError
from evalkit.generators.gan.convolutional.residual import ResidualConfig, ResidualGenerator, convolution
from evalkit.training.gan import differentiable_augmentation
from evalkit.training.loop import MovingAverage, restart_batch_norm


class DownBlock(nn.Module):
    """Two spectrally normalised convolutions and a shortcut, at half the size where ``halve`` says so.

    The very first block sees the image: it does not start with an activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, first: bool = False, halve: bool = True
    ) -> None:
        super().__init__()
        self.first, self.halve = first, halve
        hidden = out_channels if first else in_channels
        self.c1 = spectral_norm(convolution(in_channels, hidden, 3, spectral=False))
        self.c2 = spectral_norm(convolution(hidden, out_channels, 3, spectral=False))
        self.c_sc: nn.Module = nn.Identity()
        if halve or in_channels != out_channels:
            self.c_sc = spectral_norm(convolution(in_channels, out_channels, 1, spectral=False, gain=1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, c', h / 2, w / 2]``, or keep the size."""
        h = torch.relu(self.c1(x if self.first else torch.relu(x)))
        if not self.halve:
            kept: Tensor = self.c2(h) + self.c_sc(x)
            return kept
        # A 1x1 convolution and an average commute; after it there are four times fewer pixels.
        shortcut: Tensor = self.c_sc(F.avg_pool2d(x, 2))
        weight, bias = cast("Tensor", self.c2.weight), cast("Tensor", self.c2.bias)
        return convolve_then_halve(h, weight, bias) + shortcut


class ResidualDiscriminator(nn.Module):
    """Blocks that halve the 32x32 image twice, the sum over what is left, label projection (eq. 3)."""

    def __init__(self, num_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        blocks = [DownBlock(3, widths[0], first=True)]
        blocks += [DownBlock(a, b, halve=i == 0) for i, (a, b) in enumerate(pairwise(widths))]
        self.blocks = nn.Sequential(*blocks)
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.project = spectral_norm(nn.Embedding(num_classes, widths[-1])) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return one realness score ``[n]`` for each image in [-1, 1]."""
        h = torch.relu(self.blocks(images)).float().sum(dim=(2, 3))
        score: Tensor = self.score(h).squeeze(1)
        if self.project is None:
            return score
        embedded: Tensor = self.project(labels)
        return score + (embedded * h).sum(dim=1)


def convolve_then_halve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve 3x3, then average 2x2 blocks: the same sum as one 4x4 convolution of stride 2."""
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return F.conv2d(x, (rows[..., 1:] + rows[..., :-1]) / 4.0, bias, stride=2, padding=1)


class ResidualGANTask:
    """Each batch is shared out to ``n_dis`` discriminator steps; one generator step follows.

    Adam (0, 0.9); the rate falls linearly to 0 over the whole training.
    """

    architecture = "sngan"

    def __init__(  # noqa: PLR0913 - hyper-parameters, all by keyword
        self,
        *,
        config: ResidualConfig,
        steps: int,
        device: str,
        widths: tuple[int, ...] = (96, 160, 256, 256),
        rate: float = 2e-4,
        n_dis: int = 2,
        half_life_images: float = 30_000.0,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.total, self.bfloat16 = config, steps, bfloat16
        self.rate, self.n_dis = rate, n_dis
        self.device = torch.device(device)
        self.generator = ResidualGenerator(config).to(self.device).to(memory_format=torch.channels_last)
        critic = ResidualDiscriminator(config.num_classes, widths)
        self.discriminator = critic.to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.generator, half_life_images)
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.9), fused=True)
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Generator, discriminator and the averaged generator."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average.network,
        }

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One optimizer each."""
        return self._optimizers

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """``n_dis`` discriminator steps on a share of the images each, then one generator step.

        Raises:
            UsageError: the images cannot be shared out evenly.
        """
        n = len(images)
        if n % self.n_dis:
            raise UsageError(
                f"a batch of {n} cannot be shared out to {self.n_dis} discriminator steps",
                hint="pass a --batch-size that is a multiple of it",
            )
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.rate * max(0.0, 1.0 - step / self.total)
        logged: dict[str, float] = {}
        for real, real_labels in zip(images.chunk(self.n_dis), labels.chunk(self.n_dis), strict=True):
            logged = self._discriminator_step(real, real_labels, rng=rng)
        logged["g_loss"] = self._generator_step(n // self.n_dis, rng=rng)
        self.average.update(self.generator, images_seen=(step + 1) * n, batch_size=n)
        return logged

    def _draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        z = torch.randn(n, self.config.latent_dim, generator=rng).to(self.device)
        labels = torch.randint(0, max(self.config.num_classes, 1), (n,), generator=rng).to(self.device)
        return z, labels

    def _discriminator_step(
        self, images: Tensor, labels: Tensor, *, rng: torch.Generator
    ) -> dict[str, float]:
        z, fake_labels = self._draw(len(images), rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            with torch.no_grad():
                fake = self.generator(z, fake_labels).float()
            both = differentiable_augmentation(torch.cat([images, fake]), rng)
            scores = self.discriminator(both, torch.cat([labels, fake_labels])).float()
        real_score, fake_score = scores.chunk(2)
        loss = F.relu(1.0 - real_score).mean() + F.relu(1.0 + fake_score).mean()
        self._apply("discriminator", loss)
        return {
            "d_loss": float(loss.detach()),
            "real": float(real_score.detach().mean()),
            "fake": float(fake_score.detach().mean()),
        }

    def _generator_step(self, n: int, *, rng: torch.Generator) -> float:
        z, labels = self._draw(n, rng)
        self.discriminator.requires_grad_(requires_grad=False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            fake = differentiable_augmentation(self.generator(z, labels).float(), rng)
            loss = -self.discriminator(fake, labels).float().mean()
        self._apply("generator", loss)
        self.discriminator.requires_grad_(requires_grad=True)
        return float(loss.detach())

    def _apply(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[name].step()

    @torch.no_grad()
    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Recompute the averaged generator's batch-norm statistics over fresh latents, then freeze them."""
        network = self.average.network
        restart_batch_norm(network)
        network.train()
        rng = torch.Generator().manual_seed(1)
        for images, labels in batches:
            network(torch.randn(len(images), self.config.latent_dim, generator=rng).to(self.device), labels)
        network.eval()

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged generator."""
        return dataclasses.asdict(self.config), self.average.network.state_dict()

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Sample the averaged generator, label by column."""
        z = torch.randn(64, self.config.latent_dim, generator=rng).to(self.device)
        labels = (torch.arange(64) % max(self.config.num_classes, 1)).to(self.device)
        images: Tensor = self.average.network(z, labels)
        return images
