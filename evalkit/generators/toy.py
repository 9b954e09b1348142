"""A generator with a closed form: independent Gaussian 8x8 tiles. For tests and quick trials.

Between two of them, the Fréchet distance on the ``thumbnail`` head of the ``pixels`` extractor is
``48 ((mean_a - mean_b)^2 + (std_a - std_b)^2) / 255^2`` up to the rounding to uint8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.seeding import normal_per_image
from evalkit.spec import Spec

_TILES, _TILE = 4, 8


@dataclass(frozen=True, slots=True)
class GaussianTiles:
    """Images of 4x4 flat tiles whose values are normal with ``mean`` and ``std`` (grey levels)."""

    mean: float = 128.0
    std: float = 20.0
    family: str = "other"
    num_classes: int = 0
    resolution: int = _TILES * _TILE

    @property
    def spec(self) -> Spec:
        """The two parameters."""
        return Spec.of("generator", "gaussian-tiles", mean=self.mean, std=self.std)

    def generate(self, seeds: IndexArray, *, labels: IndexArray | None = None) -> Tensor:
        """Return uint8 ``[n, 3, 32, 32]``."""
        del labels
        size = (3, _TILES, _TILES)
        tiles = normal_per_image(seeds, size, device=torch.device("cpu"))
        grey = (self.mean + self.std * tiles).round().clamp(0, 255).to(torch.uint8)
        return grey.repeat_interleave(_TILE, dim=2).repeat_interleave(_TILE, dim=3)


def make() -> GaussianTiles:
    """Return the generator with its default parameters, for ``--model evalkit.generators.toy:make``."""
    return GaussianTiles()
