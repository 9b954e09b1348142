"""What the StyleGAN2 and StyleGAN3 samplers share: the spaces z and w, truncation and its cutoff.

Accepted trade-offs: a class-conditional network is truncated towards the one mean of w over all classes, as
its authors do. Where the checkpoint holds no mean of w, it is over :data:`CENTRE_LATENTS` fixed latents.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import CheckpointError
from evalkit.generators.gan.mapped_latents import MappedLatents
from evalkit.generators.gan.stylegan2.mapping import MappingNetwork
from evalkit.runtime import bitwise_numerics

CENTRE_LATENTS = 4096
"""Latents that the mean of w is taken over where the checkpoint does not hold it."""


class StyleLatents(MappedLatents):
    """z -> w by the mapping network, truncated; one copy of w for each layer -> image."""

    @property
    @abstractmethod
    def layer_count(self) -> int:
        """Copies of w that the synthesis network takes."""

    @property
    @abstractmethod
    def truncation_cutoff(self) -> int | None:
        """Layers, from the first, that truncation reaches; all where None."""

    @property
    @abstractmethod
    def _mapping(self) -> MappingNetwork:
        """The mapping network."""

    @abstractmethod
    def _paint(self, styles: Tensor, noise_seeds: IndexArray) -> Tensor:
        """Return float images of styles ``[n, layers, d_w]``."""

    def _map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        w: Tensor = self._mapping(z, labels)
        return w if self.truncation_cutoff is not None else self._truncate(w)

    def _truncate(self, w: Tensor) -> Tensor:
        # w' = centre + psi (w - centre), Karras et al. 2019, appendix B.
        psi = self.options.truncation
        return w if psi is None or psi == 1.0 else self._centre.expand_as(w).lerp(w, psi)

    @cached_property
    def _centre(self) -> Tensor:
        if self._mapping.w_avg is not None:
            return self._mapping.w_avg
        seeds = np.arange(CENTRE_LATENTS, dtype=np.int64)
        labels = torch.arange(CENTRE_LATENTS, device=self.device) % max(self.num_classes, 1)
        # Kept for all images to come: its last bits must not depend on what asked for it first.
        with bitwise_numerics():
            w: Tensor = self._mapping(self.latents(seeds), labels if self.num_classes else None)
            return w.double().mean(dim=0).float()

    def _styles(self, w: Tensor) -> Tensor:
        styles = w[:, None].expand(-1, self.layer_count, -1)
        cutoff = self.truncation_cutoff
        if cutoff is None:
            return styles
        return torch.cat([self._truncate(styles[:, :cutoff]), styles[:, cutoff:]], dim=1)

    def _synthesise(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: Tensor | None
    ) -> Tensor:
        w = latents if space == "w" else self._map(latents, labels)
        return in_colour(self._paint(self._styles(w), noise_seeds), self.name)


def in_colour(images: Tensor, name: str) -> Tensor:
    """Return ``[n, 3, h, w]`` of colour images, or of grey ones by three equal channels.

    Raises:
        CheckpointError: the images have neither 1 nor 3 channels.
    """
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] != 3:
        raise CheckpointError(f"{name!r} makes images of {images.shape[1]} channels; evalkit scores RGB")
    return images
