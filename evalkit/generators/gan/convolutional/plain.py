"""What the generators of this folder have in common: z (and a label) in, an image out, nothing else.

Grey images are repeated to three channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.latent import LatentNativeGenerator


class PlainConfig(Protocol):
    """What a configuration says of its network."""

    @property
    def latent_dim(self) -> int:
        """Numbers in z."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where unconditional."""
        ...

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        ...


class PlainGAN(LatentNativeGenerator):
    """Calls its network with z, or with z and labels; batch-norm statistics are frozen."""

    family = "gan"

    @property
    def config(self) -> PlainConfig:
        """Configuration of the network."""
        return cast("PlainConfig", self.network.config)

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where unconditional."""
        return self.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.config.resolution

    @property
    def latent_dim(self) -> int:
        """Numbers in z."""
        return self.config.latent_dim

    def _synthesise(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: Tensor | None
    ) -> Tensor:
        del space, noise_seeds
        if self.num_classes and labels is None:
            raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
        images: Tensor = self.network(latents, labels) if self.num_classes else self.network(latents)
        return images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)


def completed(checkpoint: Checkpoint, tensors: Mapping[str, Tensor] | None = None) -> Checkpoint:
    """Return ``checkpoint`` with ``tensors`` and the counters of batch norm that files of torch < 0.4.1 lack.

    A counter decides nothing in evaluation mode.
    """
    held = dict(checkpoint.tensors if tensors is None else tensors)
    for name in list(held):
        if name.endswith(".running_mean"):
            held.setdefault(
                name.removesuffix("running_mean") + "num_batches_tracked", torch.zeros((), dtype=torch.int64)
            )
    return dataclasses.replace(checkpoint, tensors=held)
