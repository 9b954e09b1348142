"""What a generator from image to image must show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evalkit.core import IndexArray
from evalkit.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Translator(Protocol):
    """A model from image to image; output i depends on nothing but weights, image i and seed i."""

    @property
    def spec(self) -> Spec:
        """Network name, settings and the checkpoint's SHA-256."""
        ...

    @property
    def family(self) -> str:
        """``gan``, ``vae``, ``autoregressive`` or ``diffusion`` (``other`` for callables)."""
        ...

    def translate(self, images: Tensor, *, seeds: IndexArray) -> Tensor:
        """Return uint8 ``[n, 3, h', w']`` of uint8 ``[n, 3, h, w]`` images.

        Args:
            images: uint8 RGB in 0..255.
            seeds: int64 ``[n]``, one 64-bit seed for each image; a translator without noise ignores them.

        Raises:
            evalkit.errors.UsageError: the images have a type or size that the model does not take.
        """
        ...
