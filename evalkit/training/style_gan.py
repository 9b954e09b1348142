"""Style GAN: non-saturating logistic loss with lazy R1 (Karras et al. 2020), augmentation that grows in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.gan.style_layers import EqualisedConv, EqualisedLinear, leaky
from evalkit.training.gan import differentiable_augmentation
from evalkit.training.loop import MovingAverage

_R1_EVERY = 16
_GROUP = 8
_CENTRE_DRAWS = 4096


class StyleDiscriminator(nn.Module):
    """Equalised convolutions, minibatch standard deviation, label projection (Miyato & Koyama 2018)."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (48, 96, 192, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [EqualisedConv(3, widths[0], 3)]
        for i, (a, b) in enumerate(pairwise(widths)):
            layers.append(EqualisedConv(a, b, 4, stride=2))
            if i < len(widths) - 2:
                layers.append(EqualisedConv(b, b, 3))
        last = widths[-1]
        self.body = nn.ModuleList(layers)
        self.mix = EqualisedConv(last + 1, last, 3)
        self.dense = EqualisedLinear(last * 16, last)
        self.score = EqualisedLinear(last, 1)
        self.project = EqualisedLinear(num_classes, last) if num_classes else None
        self.num_classes = num_classes

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return one realness score ``[n]`` for each 32x32 image in [-1, 1]."""
        x = images
        for layer in self.body:
            x = layer(x)
        x = self.mix(append_group_deviation(x))
        h = leaky(self.dense(x.flatten(1)))
        score: Tensor = self.score(h).squeeze(1)
        if self.project is None:
            return score
        embedded: Tensor = self.project(F.one_hot(labels, self.num_classes).to(h.dtype))
        return score + (embedded * h).sum(dim=1) / math.sqrt(h.shape[1])


def append_group_deviation(x: Tensor) -> Tensor:
    """Append a channel: the mean standard deviation in groups of neighbours (Karras et al. 2018, sec. 3).

    Groups are runs of 8 images (or of the largest common divisor), so that images in one half of a batch
    never share a group with the other half.
    """
    n, c, h, w = x.shape
    group = math.gcd(n, _GROUP)
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(n // group, group, c, h, w)
    variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().mean(dim=1)
    channel = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat_interleave(group)[:, None, None, None]
    joined = torch.cat([x, channel.to(x.dtype).expand(n, 1, h, w)], dim=1)
    return joined.contiguous(memory_format=torch.channels_last)


class StyleGANTask:
    """Trains G and D in turn, one step each; Adam (0, 0.99).

    The rates fall linearly from a quarter of ``decay_images`` on, to a tenth, and stay there: they depend on
    the images seen and not on when the training is to stop, so that a longer run continues a shorter one.
    """

    architecture = "stylegan"

    def __init__(  # noqa: PLR0913 - hyper-parameters, all by keyword
        self,
        *,
        config: StyleGANConfig,
        device: str,
        rate: float = 2.5e-3,
        decay_images: float = 256_000.0,
        r1: float = 0.05,
        half_life_images: float = 15_000.0,
        augmentation_ramp: float = 1_000_000.0,
        widths: tuple[int, ...] = (48, 96, 192, 256),
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.bfloat16, self.r1 = config, bfloat16, r1
        self.decay_images, self.augmentation_ramp = decay_images, augmentation_ramp
        self.device = torch.device(device)
        self.generator = StyleGANGenerator(config).to(self.device).to(memory_format=torch.channels_last)
        critic = StyleDiscriminator(config.num_classes, widths)
        self.discriminator = critic.to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.generator, half_life_images)
        # A lazy penalty is a rarer step of a weightier loss: Adam's rates are brought in line
        # (Karras et al. 2020, appendix B).
        share = _R1_EVERY / (_R1_EVERY + 1)
        self.rates = {"generator": rate, "discriminator": rate * share}
        self._optimizers = {
            "generator": torch.optim.Adam(
                self.generator.parameters(), lr=rate, betas=(0.0, 0.99), fused=True
            ),
            "discriminator": torch.optim.Adam(
                self.discriminator.parameters(), lr=rate * share, betas=(0.0, 0.99**share), fused=True
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
        """One discriminator step, every 16th with the gradient penalty, then one generator step."""
        n = len(images)
        fall = max(0.1, min(1.0, 4.0 / 3.0 * (1.0 - step * n / self.decay_images)))
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * fall
        probability = min(0.8, step * n / self.augmentation_ramp)
        logged = self._discriminator_step(images, labels, probability=probability, rng=rng)
        if step % _R1_EVERY == 0:
            logged["r1"] = self._gradient_penalty_step(images, labels, probability=probability, rng=rng)
        logged["g_loss"] = self._generator_step(n, probability=probability, rng=rng)
        self.average.update(self.generator, images_seen=(step + 1) * n, batch_size=n)
        return {key: logged[key] for key in ("d_loss", "real", "fake", "g_loss")}

    def _draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.randn(n, self.config.latent_dim, generator=rng).to(self.device)
        labels = torch.randint(0, max(self.config.num_classes, 1), (n,), generator=rng).to(self.device)
        noise = torch.randn(n, self.config.noise_numbers, generator=rng).to(self.device)
        return z, labels, noise

    def _discriminator_step(
        self, images: Tensor, labels: Tensor, *, probability: float, rng: torch.Generator
    ) -> dict[str, float]:
        z, fake_labels, noise = self._draw(len(images), rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            with torch.no_grad():
                fake = self.generator(z, fake_labels, noise)
            both = augment(torch.cat([images, fake]), rng, probability=probability)
            scores = self.discriminator(both, torch.cat([labels, fake_labels])).float()
        real_score, fake_score = scores.chunk(2)
        loss = F.softplus(-real_score).mean() + F.softplus(fake_score).mean()
        self._apply("discriminator", loss)
        return {
            "d_loss": float(loss.detach()),
            "real": float(real_score.detach().mean()),
            "fake": float(fake_score.detach().mean()),
        }

    def _gradient_penalty_step(
        self, images: Tensor, labels: Tensor, *, probability: float, rng: torch.Generator
    ) -> float:
        """R1 of Mescheder et al. 2018, ``gamma / 2 E |grad D(real)|^2``, weighted for being rare."""
        real = augment(images, rng, probability=probability).requires_grad_()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            scores = self.discriminator(real, labels).float()
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        self._apply("discriminator", penalty * (0.5 * self.r1 * _R1_EVERY))
        return float(penalty.detach())

    def _generator_step(self, n: int, *, probability: float, rng: torch.Generator) -> float:
        z, labels, noise = self._draw(n, rng)
        self.discriminator.requires_grad_(requires_grad=False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            fake = augment(self.generator(z, labels, noise), rng, probability=probability)
            loss = F.softplus(-self.discriminator(fake, labels).float()).mean()
        self._apply("generator", loss)
        self.discriminator.requires_grad_(requires_grad=True)
        return float(loss.detach())

    def _apply(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[name].step()

    @torch.no_grad()
    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Measure the centre of w for each class with the averaged mapping network; truncation needs it."""
        del batches
        mapping = self.average.network.mapping
        rng = torch.Generator().manual_seed(1)
        for label in range(len(mapping.centre)):
            z = torch.randn(_CENTRE_DRAWS, self.config.latent_dim, generator=rng).to(self.device)
            labels = torch.full((_CENTRE_DRAWS,), label, dtype=torch.int64, device=self.device)
            mapping.centre[label] = mapping(z, labels).mean(dim=0)

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged generator."""
        return dataclasses.asdict(self.config), self.average.network.state_dict()

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Sample the averaged generator, label by column."""
        z, _, noise = self._draw(64, rng)
        labels = (torch.arange(64) % max(self.config.num_classes, 1)).to(self.device)
        images: Tensor = self.average.network(z, labels, noise)
        return images


def augment(x: Tensor, rng: torch.Generator, *, probability: float) -> Tensor:
    """Augment each image of ``[n, 3, h, w]`` with ``probability``: colour, translation, cutout.

    Differentiable, for real and generated images alike (Zhao et al. 2020). A discriminator that has seen
    each image a few times needs none of it, so the probability grows with the training (as it does in
    Karras et al. 2020, ADA, there by measured overfitting).
    """
    if probability <= 0.0:
        return x
    chosen = (torch.rand(len(x), generator=rng) < probability).to(x.device)[:, None, None, None]
    return torch.where(chosen, differentiable_augmentation(shift_colours(x, rng), rng), x)


def shift_colours(x: Tensor, rng: torch.Generator) -> Tensor:
    """Shift brightness by up to 0.5, scale saturation by 0..2 and contrast by 0.5..1.5 (Zhao et al. 2020)."""
    brightness, saturation, contrast = (
        torch.rand(3, len(x), 1, 1, 1, generator=rng).to(x.device).unbind(dim=0)
    )
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (2.0 * saturation)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)
