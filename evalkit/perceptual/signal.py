"""PSNR: peak signal-to-noise ratio on a stated range.

    psnr = build_pair_measure("psnr", weights={}, device="cpu")
    decibels = psnr(generated, reference, masks={})["psnr"]

PSNR = 10 log10(255^2 / MSE) in decibels, MSE the mean over pixels and channels, in float64. Equal images
have MSE 0 and PSNR +infinity, which is returned as it is; the metric that averages leaves such pairs out,
counts them and says so. In a region, MSE is the mean over the pixels inside.

Of bytes the sum of squares is exact on every path, so that the value depends on no order and no threads.

Source: the definition for 8-bit images, for example Huynh-Thu and Ghanbari 2008, eq. 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.perceptual.chunks import Masks, check_pairs, masked_mean, measure_in_chunks
from evalkit.perceptual.colour import Channels, channels_of, compared_channels
from evalkit.perceptual.facts import PairMeasureFacts
from evalkit.runtime import resolve_device
from evalkit.spec import Spec

DATA_RANGE: Final = 255
_CPU_CHUNK: Final = 4
_ACCELERATOR_CHUNK: Final = 64
# 256 x 255^2 < 2^24: a float32 holds the sum of so many squared bytes exactly, in whatever order it is made.
_EXACT: Final = 256
_PIECE: Final = 384 * _EXACT  # bytes at once: with their float32 they fit in the second-level cache


def float64_device(name: str) -> torch.device:
    """Return the device called ``name``, or the CPU in place of mps, which has no float64.

    Raises:
        UsageError: unknown or absent device.
    """
    device = resolve_device(name)
    return torch.device("cpu") if device.type == "mps" else device


def refuse_weights(facts: PairMeasureFacts, weights: Path | None) -> None:
    """Check that no weights were given to a measure that has none.

    Raises:
        UsageError: there were.
    """
    if weights is not None:
        raise UsageError(f"pair measure {facts.name!r} has no weights to replace")


@final
class Psnr:
    """The measure; see the module's docstring.

    Args:
        name: of the value that it returns.
        channels: ``rgb``, or ``y`` for BT.601 luma.
        device: where it runs.
    """

    def __init__(self, *, name: str = "psnr", channels: Channels = "rgb", device: str = "cpu") -> None:
        self._name, self._channels = name, channels
        self.device: Final = float64_device(device)

    @property
    def published(self) -> bool:
        """Always: there are no weights."""
        return True

    @property
    def spec(self) -> Spec:
        """Name, channels and data range."""
        return Spec.of("pair-measure", self._name, channels=self._channels, data_range=DATA_RANGE)

    @property
    def names(self) -> tuple[str, ...]:
        """One value."""
        return (self._name,)

    def __call__(self, generated: Tensor, reference: Tensor, *, masks: Masks) -> Mapping[str, Tensor]:
        """Return float64 decibels; see :class:`~evalkit.perceptual.PairMeasure`."""
        check_pairs(generated, reference, masks, measure=self._name, minimum=1)
        if self.device.type == "cpu" and self._channels == "rgb" and not masks:
            # A picture takes 70 us: starting threads for a handful of them would cost more than it saves.
            return {self._name: _decibels(_byte_errors(generated.cpu(), reference.cpu()))}
        return measure_in_chunks(
            generated,
            reference,
            masks,
            measure=self._measure,
            device=self.device,
            chunk=_CPU_CHUNK if self.device.type == "cpu" else _ACCELERATOR_CHUNK,
        )

    def _measure(self, generated: Tensor, reference: Tensor, masks: Masks) -> Mapping[str, Tensor]:
        difference = _difference(generated, reference, self._channels)
        errors = {self._name: _mean_squares(difference)}
        if masks:
            squares = difference.double().square_()
            errors |= {f"{self._name}/{name}": masked_mean(squares, mask) for name, mask in masks.items()}
        return {name: _decibels(error) for name, error in errors.items()}


def _decibels(error: Tensor) -> Tensor:
    return 20 * math.log10(DATA_RANGE) - 10 * torch.log10(error)


def _byte_errors(generated: Tensor, reference: Tensor) -> Tensor:
    """Return float64 ``[n]`` mean squared differences of uint8 images on the CPU, from exact sums."""
    size = generated[0].numel()
    room = min(size, _PIECE)
    larger, smaller = np.empty(room, np.uint8), np.empty(room, np.uint8)
    rows = np.empty((-(-room // _EXACT), _EXACT), np.float32)
    values = rows.reshape(-1)
    starts = range(0, size, _PIECE)
    sums = np.empty((len(generated), len(starts), len(rows)), np.float32)
    pairs = zip(sums, generated.flatten(1).numpy(), reference.flatten(1).numpy(), strict=True)
    for row_sums, first, second in pairs:
        for target, start in zip(row_sums, starts, strict=True):
            x, y = (image[start : start + _PIECE] for image in (first, second))
            difference = np.maximum(x, y, out=larger[: len(x)])
            difference -= np.minimum(x, y, out=smaller[: len(x)])
            values[: len(x)] = difference
            values[len(x) :] = 0
            np.vecdot(rows, rows, out=target)
    return torch.from_numpy(sums.sum((1, 2), dtype=np.float64) / size)


def _difference(generated: Tensor, reference: Tensor, channels: Channels) -> Tensor:
    """Return the difference but for its sign: uint8 ``[n, 3, h, w]``, or of luma float64 ``[n, 1, h, w]``."""
    if channels == "rgb":
        return torch.maximum(generated, reference).sub_(torch.minimum(generated, reference))
    return compared_channels(generated, channels).sub_(compared_channels(reference, channels))


def _mean_squares(difference: Tensor) -> Tensor:
    """Return float64 ``[n]``; the sum of squared bytes is exact, whatever its order."""
    pixels = torch.empty(difference[0].shape, dtype=torch.float64, device=difference.device)
    sums = []
    for picture in difference:  # through one buffer, which stays in the cache
        flat = pixels.copy_(picture).flatten()
        sums.append(torch.dot(flat, flat))
    return torch.stack(sums) / pixels.numel()


def build_psnr(facts: PairMeasureFacts, *, weights: Path | None, device: str) -> Psnr:
    """Build ``psnr`` or ``psnr-y``."""
    refuse_weights(facts, weights)
    return Psnr(name=facts.name, channels=channels_of(facts.name), device=device)
