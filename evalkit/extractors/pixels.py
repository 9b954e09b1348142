"""`pixels`: an extractor without a network, for tests, closed-form checks and quick runs.

    features = Pixels()(images, ["pixels"])["pixels"]  # float32 [n, 192] in 0..1

Heads: ``pixels``, the image averaged over an 8x8 grid of areas, channels first, 192-d, divided by 255;
``thumbnail``, the same over 4x4, 48-d; ``logits``, 10 fixed random projections of ``pixels`` - 0.5, so
that metrics that read class logits can run. No score from this extractor says anything about quality.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.extractors.facts import PIXELS
from evalkit.extractors.forward import run_in_chunks
from evalkit.runtime import resolve_device
from evalkit.spec import Spec

_CLASSES: Final = 10
_PROJECTION_SEED: Final = 0
_CHUNK: Final = 256


@final
class Pixels:
    """The extractor; see the module's docstring.

    Raises:
        UsageError: a weights file is given, or no such preset or device.
    """

    def __init__(
        self, *, weights: Path | None = None, preset: str | None = None, device: str | torch.device = "cpu"
    ) -> None:
        if weights is not None:
            raise UsageError("extractor 'pixels' has no weights to replace")
        _, self._preset = PIXELS.preset(preset)
        self.device: Final = resolve_device(str(device))
        projection = _projection()
        self._sha256: Final = hashlib.sha256(projection.tobytes()).hexdigest()
        self._projection = torch.from_numpy(projection).to(self.device)

    @property
    def published(self) -> bool:
        """Always: there are no other weights."""
        return True

    @property
    def spec(self) -> Spec:
        """Name, resizer and the SHA-256 of the projection matrix."""
        return Spec.of("extractor", PIXELS.name, sha256=self._sha256, resizer=self._preset.resizer)

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(PIXELS.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images, heads, facts=PIXELS, device=self.device, chunk=_CHUNK, forward=self._forward
        )

    def _forward(self, images: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        scaled = images.float() / self._preset.divisor
        features: dict[str, Tensor] = {}
        if "thumbnail" in wanted:
            features["thumbnail"] = F.adaptive_avg_pool2d(scaled, 4).flatten(1)
        if wanted <= {"thumbnail"}:
            return features
        pixels = F.adaptive_avg_pool2d(scaled, 8).flatten(1)
        if "pixels" in wanted:
            features["pixels"] = pixels
        if "logits" in wanted:
            features["logits"] = (pixels - 0.5) @ self._projection
        return features


def _projection() -> NDArray[np.float32]:
    # Philox is specified bit for bit, unlike torch's generator, whose stream differs between devices. The
    # sum of four uniform integers keeps the matrix free of libm, whose last bit differs between platforms.
    uniform = np.random.Generator(np.random.Philox(_PROJECTION_SEED)).integers(
        -128, 128, size=(4, PIXELS.dimensions("pixels"), _CLASSES)
    )
    projection: NDArray[np.float32] = (uniform.sum(axis=0) / 148.0).astype(np.float32)
    return projection
