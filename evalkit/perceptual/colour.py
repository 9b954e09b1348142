"""Which numbers of a picture are compared: its three channels, or its luma alone."""

from __future__ import annotations

from typing import Final, Literal

from torch import Tensor

Channels = Literal["rgb", "y"]

# ITU-R BT.601 in studio swing, for R, G, B in 0..255: luma in 16..235 (MATLAB's rgb2ycbcr), as papers on
# super-resolution and compression report it.
_LUMA: Final = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_BLACK: Final = 16.0


def compared_channels(images: Tensor, channels: Channels) -> Tensor:
    """Return uint8 RGB ``[n, 3, h, w]`` as float64: all three channels, or luma ``[n, 1, h, w]``.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded (ITU-R BT.601, studio swing). The stated
    data range stays 255.
    """
    if channels == "rgb":
        return images.double()
    luma = images[:, :1].double().mul_(_LUMA[0])
    for index, weight in enumerate(_LUMA[1:], start=1):
        luma.add_(images[:, index : index + 1].double(), alpha=weight)
    return luma.add_(_BLACK)


def channels_of(name: str) -> Channels:
    """Return the channels that a measure's name asks for: luma where it ends in ``-y``."""
    return "y" if name.endswith("-y") else "rgb"
