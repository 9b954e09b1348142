"""Native generators that show their latent space (:class:`evalkit.core.LatentGenerator`)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.sampling import NativeGenerator
from evalkit.seeding import normal_per_image


class LatentNativeGenerator(NativeGenerator):
    """One pass from a standard normal z to the image, z of image i drawn from seed i."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """The latent is the only one."""
        return ("z",)

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Numbers in z."""

    def latents(self, seeds: IndexArray) -> Tensor:
        """Return float32 ``[n, d]`` latents z, one for each seed."""
        return normal_per_image(seeds, (self.latent_dim,), device=self.device)

    def mapping(self, z: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Refuse: there is no mapping network.

        Raises:
            UsageError: always.
        """
        del z, labels
        raise UsageError(f"model {self.name!r} has no mapping network", hint="its only latent space is z")

    @torch.no_grad()
    def synthesis(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: IndexArray | None = None
    ) -> Tensor:
        """Return float32 ``[n, 3, h, w]`` in about [-1, 1], in float32 whatever the sampling options say.

        Raises:
            UsageError: no such space, shapes or lengths that do not fit, or labels missing.
        """
        self._check(latents, space=space, noise_seeds=noise_seeds, labels=labels)
        wanted = None if labels is None else torch.from_numpy(labels).to(self.device)
        moved = latents.to(self.device, torch.float32)
        with torch.autocast(self.device.type, enabled=False):
            return self._synthesise(moved, space=space, noise_seeds=noise_seeds, labels=wanted).float()

    @abstractmethod
    def _synthesise(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: Tensor | None
    ) -> Tensor:
        """Return the float images of checked ``latents`` in ``space``."""

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        self.evaluations_per_image = 1
        return self._synthesise(self.latents(seeds), space="z", noise_seeds=seeds, labels=labels)

    def _needs_labels(self, space: str) -> bool:
        return self.num_classes > 0 and space == "z"

    def _dimensions(self, space: str) -> int:
        del space
        return self.latent_dim

    def _check(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: IndexArray | None
    ) -> None:
        if space not in self.spaces:
            raise UsageError(
                f"model {self.name!r} has no latent space {space!r}", hint=f"it has {', '.join(self.spaces)}"
            )
        expected = (len(noise_seeds), self._dimensions(space))
        if tuple(latents.shape) != expected:
            raise UsageError(f"latents in {space} have shape {list(latents.shape)}, not {list(expected)}")
        if self._needs_labels(space) and labels is None:
            raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
        if labels is not None and len(labels) != len(noise_seeds):
            raise UsageError(f"{len(labels)} labels for {len(noise_seeds)} latents")
        if (
            labels is not None
            and self.num_classes
            and not ((labels >= 0) & (labels < self.num_classes)).all()
        ):
            raise UsageError(f"labels of model {self.name!r} lie in 0..{self.num_classes - 1}")
