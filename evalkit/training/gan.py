"""Conditional GAN: hinge loss (Lim & Ye 2017), two time scales, DiffAugment (Zhao et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator, ProjectionDiscriminator
from evalkit.training.loop import MovingAverage, restart_batch_norm


class CGANTask:
    """Trains G and D in turn, one step each; Adam (0, 0.9), rates fall linearly over the last half."""

    architecture = "cgan"

    def __init__(
        self,
        *,
        config: CGANConfig,
        steps: int,
        device: str,
        generator_rate: float = 2e-4,
        discriminator_rate: float = 4e-4,
        half_life_images: float = 30_000.0,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.total, self.bfloat16 = config, steps, bfloat16
        self.device = torch.device(device)
        self.generator = CGANGenerator(config).to(self.device).to(memory_format=torch.channels_last)
        critic = ProjectionDiscriminator(config.num_classes)
        self.discriminator = critic.to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.generator, half_life_images)
        self.rates = {"generator": generator_rate, "discriminator": discriminator_rate}
        self._optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=generator_rate, betas=(0.0, 0.9)),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), lr=discriminator_rate, betas=(0.0, 0.9)
            ),
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
        """One discriminator step, then one generator step."""
        n = len(images)
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * min(1.0, 2.0 * (1.0 - step / self.total))
        z = torch.randn(2 * n, self.config.latent_dim, generator=rng).to(self.device)
        fake_labels = torch.randint(0, self.config.num_classes, (2 * n,), generator=rng).to(self.device)
        discriminator_loss = self._discriminator_step(
            images, labels, z=z[:n], fake_labels=fake_labels[:n], rng=rng
        )
        generator_loss = self._generator_step(z[n:], fake_labels[n:], rng=rng)
        self.average.update(self.generator, images_seen=(step + 1) * n, batch_size=n)
        return {"d_loss": discriminator_loss, "g_loss": generator_loss}

    def _discriminator_step(
        self, images: Tensor, labels: Tensor, *, z: Tensor, fake_labels: Tensor, rng: torch.Generator
    ) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            with torch.no_grad():
                fake = self.generator(z, fake_labels).float()
            both = differentiable_augmentation(torch.cat([images, fake]), rng)
            scores = self.discriminator(both, torch.cat([labels, fake_labels])).float()
        real_score, fake_score = scores.chunk(2)
        loss = F.relu(1.0 - real_score).mean() + F.relu(1.0 + fake_score).mean()
        self._apply("discriminator", loss)
        return float(loss.detach())

    def _generator_step(self, z: Tensor, labels: Tensor, *, rng: torch.Generator) -> float:
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
        labels = (torch.arange(64) % self.config.num_classes).to(self.device)
        images: Tensor = self.average.network(
            torch.randn(64, self.config.latent_dim, generator=rng).to(self.device), labels
        )
        return images


def differentiable_augmentation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``[n, 3, h, w]`` shifted by up to an eighth and with a half-sized square cut out, per image."""
    n, _, h, w = x.shape
    shift = torch.randint(-(h // 8), h // 8 + 1, (2, n), generator=rng).to(x.device)
    rows = torch.arange(h, device=x.device)[None, :] + shift[0][:, None]
    columns = torch.arange(w, device=x.device)[None, :] + shift[1][:, None]
    inside = (((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :])[:, None]
    picked = x[
        torch.arange(n, device=x.device)[:, None, None],
        :,
        rows.clamp(0, h - 1)[:, :, None],
        columns.clamp(0, w - 1)[:, None, :],
    ].permute(0, 3, 1, 2)
    centre = torch.randint(0, h, (2, n), generator=rng).to(x.device)
    far_rows = (torch.arange(h, device=x.device)[None, :] - centre[0][:, None]).abs() > h // 4
    far_columns = (torch.arange(w, device=x.device)[None, :] - centre[1][:, None]).abs() > w // 4
    kept = (far_rows[:, :, None] | far_columns[:, None, :])[:, None]
    return (picked * (inside & kept)).contiguous(memory_format=torch.channels_last)
