"""BigGAN as a registered model: configuration from the tensors, truncated latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.gan.biggan.network import BigGANConfig, BigGANGenerator
from evalkit.generators.gan.convolutional.plain import PlainGAN
from evalkit.generators.sampling import SamplingOptions
from evalkit.seeding import per_image_generators


class BigGAN(PlainGAN):
    """z is standard normal, or truncated normal where the options ask for it."""

    def latents(self, seeds: IndexArray) -> Tensor:
        """Return float32 ``[n, d]`` latents z, one for each seed; see :func:`truncated_normal`."""
        threshold = self.options.truncation
        if threshold is None:
            return super().latents(seeds)
        rows = [truncated_normal(g, self.latent_dim, threshold) for g in per_image_generators(seeds)]
        return torch.stack(rows).to(self.device)

    def _settings(self) -> dict[str, Any]:
        return {} if self.options.truncation is None else {"truncation": self.options.truncation}


def truncated_normal(rng: torch.Generator, size: int, threshold: float) -> Tensor:
    """Return float32 ``[size]``: normal numbers, those beyond ``threshold`` drawn again until they are not.

    What drawing again ends in has the law of the truncated normal, so each is drawn once from that, by the
    inverse of its distribution function: ``sqrt(2) erfinv(u erf(threshold / sqrt(2)))``, u uniform in
    (-1, 1). Numbers within the threshold stay what they are without truncation (Brock et al. 2019, sec. 3.1).
    """
    z = torch.randn(size, generator=rng)
    u = 2.0 * torch.rand(size, generator=rng, dtype=torch.float64) - 1.0
    again = math.sqrt(2.0) * torch.erfinv(u * math.erf(threshold / math.sqrt(2.0)))
    return torch.where(z.abs() > threshold, again.float().clamp(-threshold, threshold), z)


def build(checkpoint: Checkpoint, options: SamplingOptions) -> BigGAN:
    """Build the generator from a checkpoint."""
    config = configure(
        BigGANConfig, checkpoint, inferred=infer(checkpoint.tensors), described=checkpoint.config or {}
    )
    network = BigGANGenerator(config)
    load_weights(network, checkpoint, name="biggan")
    return BigGAN(name="biggan", network=network, checkpoint=checkpoint, options=options)


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what names and shapes show: everything but the epsilon of batch norm.

    Raises:
        CheckpointError: a tensor of the layout is not there, or has an impossible shape.
    """
    try:
        return _infer(tensors)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"this is no BigGAN generator: {error!r}",
            hint="expected tensors are linear.weight, blocks.0.0.conv1.weight, ...",
        ) from error


def _infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    count = 0
    while f"blocks.{count}.0.conv1.weight" in tensors:
        count += 1
    kernels = [tensors[f"blocks.{i}.0.conv1.weight"] for i in range(count)]
    channels = (kernels[0].shape[1], *(kernel.shape[0] for kernel in kernels))
    rows, first = tensors["linear.weight"].shape
    shared = tensors.get("shared.weight")
    shared_dim = 0 if shared is None else shared.shape[1]
    hierarchical, num_classes = False, 0
    if "blocks.0.0.bn1.gain.0.weight" not in tensors:  # otherwise z modulates the blocks
        gain = tensors["blocks.0.0.bn1.gain.weight"]
        hierarchical = shared is not None and gain.shape[1] > shared_dim
        num_classes = len(gain) if shared is None else len(shared)
    return {
        "latent_dim": first * (count + 1) if hierarchical else first,
        "num_classes": num_classes,
        "channels": channels,
        "attention": tuple(f"blocks.{i}.1.gamma" in tensors for i in range(count)),
        "bottom_width": math.isqrt(rows // channels[0]),
        "shared_dim": shared_dim,
        "hierarchical": hierarchical,
        "spectral_norm": "linear.u0" in tensors,
    }
