"""What all generators with a mapping network share: the spaces z and w, truncation, noise of the layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.seeding import normal_per_image

_NOISE_STREAM = np.int64(0x5851F42D4C957F2D)
"""Turns the seed of an image into the seed of its noise: the noise must not repeat the numbers of z."""


class MappedLatents(LatentNativeGenerator):
    """z -> w by a mapping network -> image."""

    family = "gan"

    @property
    def spaces(self) -> tuple[str, ...]:
        """The normal latent, and the output of the mapping network."""
        return ("z", "w")

    @property
    @abstractmethod
    def style_dim(self) -> int:
        """Numbers in w."""

    @torch.no_grad()
    def mapping(self, z: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Map z ``[n, d]`` to w, float32 ``[n, d_w]``, truncated where the options ask for it.

        Where truncation reaches only the first layers, w is left as it is and :meth:`synthesis` truncates its
        copies for those: the same images, as truncation is affine.

        Raises:
            UsageError: z has another width, or labels are missing or of another length.
        """
        self._check(z, space="z", noise_seeds=np.zeros(len(z), dtype=np.int64), labels=labels)
        wanted = None if labels is None else torch.from_numpy(labels).to(self.device)
        return self._map(z.to(self.device, torch.float32), wanted)

    @abstractmethod
    def _map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return w of checked z."""

    def _dimensions(self, space: str) -> int:
        return self.style_dim if space == "w" else self.latent_dim

    def _settings(self) -> dict[str, Any]:
        return {} if self.options.truncation is None else {"truncation": self.options.truncation}


def layer_noise(seeds: IndexArray, count: int, *, device: torch.device) -> Tensor:
    """Return ``count`` normal numbers for each image, float32 ``[n, count]``: another stream than z's."""
    return normal_per_image(seeds ^ _NOISE_STREAM, (count,), device=device)
