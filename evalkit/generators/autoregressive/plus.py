"""PixelCNN++ (Salimans et al. 2017): shifted convolutions in two streams, a U of three resolutions.

Names and shapes of the tensors are those of the public torch code (pclucas14/pixel-cnn-pp): ``u`` sees the
pixels above, ``ul`` those above and to the left; ``up_layers`` come first and ``down_layers`` after them,
with shortcuts from each block of the former to one of the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 3


@dataclass(frozen=True)
class PixelCNNPlusConfig:
    """Sizes: residual blocks of each level and stream, channels, components of the mixture."""

    blocks: int
    width: int
    mixtures: int
    resolution: int

    def __post_init__(self) -> None:
        """Refuse sizes that no network has.

        Raises:
            ValueError: a size is below 1, or the image cannot be halved for each further level.
        """
        divided = self.resolution % (1 << (LEVELS - 1)) == 0
        if min(self.blocks, self.width, self.mixtures, self.resolution) < 1 or not divided:
            raise ValueError(f"impossible sizes: {self}")


class WeightNorm(nn.Module):
    """A weight stored as direction ``weight_v`` and length ``weight_g`` (Salimans & Kingma 2016).

    ``w = g v / |v|``, the length over all dimensions but the first (torch's convention, also where the first
    dimension of a transposed convolution counts inputs).
    """

    def __init__(self, shape: tuple[int, ...], bias: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(bias))
        direction = torch.randn(shape) * 0.05
        self.weight_g = nn.Parameter(direction.flatten(1).norm(dim=1).view(-1, *[1] * (len(shape) - 1)))
        self.weight_v = nn.Parameter(direction)

    @property
    def weight(self) -> Tensor:
        """The weight in use."""
        length = self.weight_v.flatten(1).norm(dim=1).view_as(self.weight_g)
        weight: Tensor = self.weight_v * (self.weight_g / length)
        return weight


class Shifted(nn.Module):
    """Convolution padded above and, by ``aside``, on both sides (u) or on the left only (ul).

    ``down`` and ``right`` shift the result by one, so that the first layer does not see its own row or pixel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, both: bool) -> None:
        super().__init__()
        self.conv = WeightNorm((outputs, inputs, *kernel), outputs)
        rows, columns = kernel
        left, right = ((columns - 1) // 2,) * 2 if both else (columns - 1, 0)
        self.padding = (left, right, rows - 1, 0)

    def forward(self, x: Tensor, *, stride: int = 1, down: int = 0, right: int = 0) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        y = F.conv2d(F.pad(x, self.padding), self.conv.weight, self.conv.bias, stride=stride)
        rows, columns = y.shape[2] - down, y.shape[3] - right
        return F.pad(y[:, :, :rows, :columns], (right, 0, down, 0))


class ShiftedUp(nn.Module):
    """Transposed convolution of stride 2, cut so that it sees what :class:`Shifted` sees."""

    def __init__(self, width: int, kernel: tuple[int, int], *, both: bool) -> None:
        super().__init__()
        self.deconv = WeightNorm((width, width, *kernel), width)
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, width, h, w]`` to ``[n, width, 2h, 2w]``."""
        y = F.conv_transpose2d(x, self.deconv.weight, self.deconv.bias, stride=2, output_padding=1)
        left = 1 if self.both else 0
        return y[:, :, : 2 * x.shape[2], left : left + 2 * x.shape[3]]


class Dense(nn.Module):
    """The same linear map at each position ("network in network")."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin_a = WeightNorm((outputs, inputs), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h, w]``."""
        return F.conv2d(x, self.lin_a.weight[:, :, None, None], self.lin_a.bias)


def concat_elu(x: Tensor) -> Tensor:
    """Return ``elu([x, -x])``, twice the channels."""
    return F.elu(torch.cat([x, -x], dim=1))


class GatedResidual(nn.Module):
    """``x + a * sigmoid(b)`` of two shifted convolutions; shortcuts enter between them."""

    def __init__(self, width: int, kernel: tuple[int, int], *, both: bool, shortcuts: int) -> None:
        super().__init__()
        self.conv_input = Shifted(2 * width, width, kernel, both=both)
        if shortcuts:
            self.nin_skip = Dense(2 * shortcuts * width, width)
        self.conv_out = Shifted(2 * width, 2 * width, kernel, both=both)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map ``[n, width, h, w]`` to the same shape (dropout is for training and left out here)."""
        y = self.conv_input(concat_elu(x))
        if shortcut is not None:
            y = y + self.nin_skip(concat_elu(shortcut))
        a, b = self.conv_out(concat_elu(y)).chunk(2, dim=1)
        return x + cast("Tensor", a) * torch.sigmoid(b)


class Streams(nn.Module):
    """The residual blocks of both streams at one level; ``extra`` shortcuts come from the way up."""

    def __init__(self, blocks: int, width: int, *, extra: int) -> None:
        super().__init__()
        self.u_stream = nn.ModuleList(
            GatedResidual(width, (2, 3), both=True, shortcuts=extra) for _ in range(blocks)
        )
        self.ul_stream = nn.ModuleList(
            GatedResidual(width, (2, 2), both=False, shortcuts=1 + extra) for _ in range(blocks)
        )


class PixelCNNPlus(nn.Module):
    """Images ``[n, 3, h, w]`` in [-1, 1] to the parameters of the mixture at each pixel."""

    def __init__(self, config: PixelCNNPlusConfig) -> None:
        super().__init__()
        self.config = config
        w, blocks = config.width, config.blocks
        down = (blocks, blocks + 1, blocks + 1)
        self.down_layers = nn.ModuleList(Streams(count, w, extra=1) for count in down)
        self.up_layers = nn.ModuleList(Streams(blocks, w, extra=0) for _ in range(LEVELS))
        between = range(LEVELS - 1)
        self.downsize_u_stream = nn.ModuleList(Shifted(w, w, (2, 3), both=True) for _ in between)
        self.downsize_ul_stream = nn.ModuleList(Shifted(w, w, (2, 2), both=False) for _ in between)
        self.upsize_u_stream = nn.ModuleList(ShiftedUp(w, (2, 3), both=True) for _ in between)
        self.upsize_ul_stream = nn.ModuleList(ShiftedUp(w, (2, 2), both=False) for _ in between)
        self.u_init = Shifted(4, w, (2, 3), both=True)
        self.ul_init = nn.ModuleList([Shifted(4, w, (1, 3), both=True), Shifted(4, w, (2, 1), both=False)])
        self.nin_out = Dense(w, 10 * config.mixtures)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[n, h, w, 10 mixtures]``."""
        x = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)  # ones tell the image from its padding
        u = self.u_init(x, down=1)
        ul = self.ul_init[0](x, down=1) + self.ul_init[1](x, right=1)
        kept = [(u, ul)]
        for level, layers in enumerate(self.up_layers):
            streams = cast("Streams", layers)
            for above, aside in zip(streams.u_stream, streams.ul_stream, strict=True):
                u = above(u)
                ul = aside(ul, u)
                kept.append((u, ul))
            if level < LEVELS - 1:
                u = self.downsize_u_stream[level](u, stride=2)
                ul = self.downsize_ul_stream[level](ul, stride=2)
                kept.append((u, ul))
        return self._down(kept)

    def _down(self, kept: list[tuple[Tensor, Tensor]]) -> Tensor:
        u, ul = kept.pop()
        for level, layers in enumerate(self.down_layers):
            streams = cast("Streams", layers)
            for above, aside in zip(streams.u_stream, streams.ul_stream, strict=True):
                from_u, from_ul = kept.pop()
                u = above(u, from_u)
                ul = aside(ul, torch.cat([u, from_ul], dim=1))
            if level < LEVELS - 1:
                u, ul = self.upsize_u_stream[level](u), self.upsize_ul_stream[level](ul)
        parameters: Tensor = self.nin_out(F.elu(ul))
        return parameters.permute(0, 2, 3, 1)
