"""Sampling PixelCNN++ with cached activations: each pixel computes only what it changed.

The stream ``u`` of a row depends on the rows above alone and is computed once a row, for all columns. The
stream ``ul`` is computed pixel by pixel. A level of half the resolution moves on where both coordinates are
even; what it gives back serves four pixels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.generators.autoregressive import logistic_mixture
from evalkit.generators.autoregressive.plus import (
    LEVELS,
    GatedResidual,
    PixelCNNPlus,
    Shifted,
    ShiftedUp,
    Streams,
    concat_elu,
)


def sample(network: PixelCNNPlus, uniforms: Tensor, *, rows: int | None = None) -> Tensor:
    """Draw images ``[n, 3, h, w]`` in [-1, 1] in raster order, not rounded to 8 bits.

    Args:
        network: in the type to compute in.
        uniforms: ``[n, h, w, mixtures + 3]`` in [0, 1).
        rows: stop after so many rows; the others stay zero.
    """
    size = network.config.resolution
    images = network.u_init.conv.bias.new_zeros(len(uniforms), 3, size, size)
    above, aside = _Above(network, len(uniforms)), _Aside(network, len(uniforms))
    for row in range(size if rows is None else rows):
        last = images[:, :, row - 1 : row] if row else None
        above.advance(row, last)
        aside.start_row(row, last)
        for column in range(size):
            before = images[:, :, row, column - 1] if column else None
            parameters = aside.advance(row, column, before, above)
            images[:, :, row, column] = logistic_mixture.sample(parameters, uniforms[:, row, column])
    return images


def sample_naively(network: PixelCNNPlus, uniforms: Tensor) -> Tensor:
    """Draw the same images by one full evaluation for each pixel: the definition."""
    size = network.config.resolution
    images = network.u_init.conv.bias.new_zeros(len(uniforms), 3, size, size)
    for row in range(size):
        for column in range(size):
            parameters = network(images)[:, row, column]
            images[:, :, row, column] = logistic_mixture.sample(parameters, uniforms[:, row, column])
    return images


def _with_ones(pixels: Tensor) -> Tensor:
    return torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)


class _RowConv:
    """A convolution of the stream ``u``: takes rows ``[n, c, 1, w]`` one by one."""

    def __init__(self, layer: Shifted, n: int, width: int) -> None:
        self.weight, self.bias = layer.conv.weight, layer.conv.bias
        self.padding = (*layer.padding[:2], 0, 0)
        self.rows = self.weight.new_zeros(n, self.weight.shape[1], self.weight.shape[2], width)

    def push(self, row: Tensor) -> None:
        self.rows = torch.cat([self.rows[:, :, 1:], row], dim=2)

    def read(self, *, stride: int = 1) -> Tensor:
        return F.conv2d(F.pad(self.rows, self.padding), self.weight, self.bias, stride=(1, stride))

    def __call__(self, row: Tensor) -> Tensor:
        self.push(row)
        return self.read()


class _PixelConv:
    """A convolution of the stream ``ul``: takes pixels ``[n, c]`` of a row one by one."""

    def __init__(self, layer: Shifted, n: int, width: int) -> None:
        weight = layer.conv.weight
        self.bias, self.matrix = layer.conv.bias, weight.permute(2, 3, 1, 0).flatten(0, 2)
        _, channels, rows, self.columns = weight.shape
        self.seen = weight.new_zeros(n, rows, width + self.columns - 1, channels)

    def start_row(self) -> None:
        self.seen = torch.cat([self.seen[:, 1:], torch.zeros_like(self.seen[:, :1])], dim=1)

    def push(self, pixel: Tensor, column: int) -> None:
        self.seen[:, -1, column + self.columns - 1] = pixel

    def read(self, column: int) -> Tensor:
        return torch.addmm(self.bias, self.seen[:, :, column : column + self.columns].flatten(1), self.matrix)

    def __call__(self, pixel: Tensor, column: int) -> Tensor:
        self.push(pixel, column)
        return self.read(column)


class _RowResidual:
    """A residual block of the stream ``u`` over rows."""

    def __init__(self, block: GatedResidual, n: int, width: int) -> None:
        self.block = block
        self.first, self.second = _RowConv(block.conv_input, n, width), _RowConv(block.conv_out, n, width)

    def __call__(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        y = self.first(concat_elu(x))
        if shortcut is not None:
            y = y + self.block.nin_skip(concat_elu(shortcut))
        a, b = self.second(concat_elu(y)).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


class _PixelResidual:
    """A residual block of the stream ``ul`` over pixels."""

    def __init__(self, block: GatedResidual, n: int, width: int) -> None:
        self.first, self.second = _PixelConv(block.conv_input, n, width), _PixelConv(block.conv_out, n, width)
        self.skip, self.skip_bias = block.nin_skip.lin_a.weight, block.nin_skip.lin_a.bias

    def start_row(self) -> None:
        self.first.start_row()
        self.second.start_row()

    def __call__(self, x: Tensor, column: int, shortcut: Tensor) -> Tensor:
        y = self.first(concat_elu(x), column) + F.linear(concat_elu(shortcut), self.skip, self.skip_bias)
        a, b = self.second(concat_elu(y), column).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


class _Above:
    """The stream ``u``; ``up`` and ``down`` hold the rows that ``ul`` reads, for each level."""

    def __init__(self, network: PixelCNNPlus, n: int) -> None:
        widths = [network.config.resolution >> level for level in range(LEVELS)]
        self.start = _RowConv(network.u_init, n, widths[0])
        self.empty = self.start.weight.new_zeros(n, network.config.width, 1, widths[0])
        self.first, self.last = [], []
        for level, width in enumerate(widths):
            up = cast("Streams", network.up_layers[level]).u_stream
            down = cast("Streams", network.down_layers[LEVELS - 1 - level]).u_stream
            self.first.append([_RowResidual(cast("GatedResidual", b), n, width) for b in up])
            self.last.append([_RowResidual(cast("GatedResidual", b), n, width) for b in down])
        self.shrink = [
            _RowConv(cast("Shifted", layer), n, width)
            for layer, width in zip(network.downsize_u_stream, widths, strict=False)
        ]
        self.grow = list(network.upsize_u_stream)[::-1]
        self.grown = [self.empty] * (LEVELS - 1)
        self.up: list[list[Tensor]] = [[] for _ in widths]
        self.down: list[list[Tensor]] = [[] for _ in widths]

    def advance(self, row: int, last: Tensor | None) -> None:
        """Compute ``row`` from ``last``, the row of the image above it (None above the first)."""
        self._level(0, row, self.empty if last is None else self.start(_with_ones(last)))

    def _level(self, level: int, row: int, x: Tensor) -> Tensor:
        kept = [x]
        for block in self.first[level]:
            kept.append(block(kept[-1], None))
        self.up[level] = kept[1:]
        if level < LEVELS - 1:
            self.shrink[level].push(kept[-1])
            if row % 2 == 0:
                inner = self._level(level + 1, row // 2, self.shrink[level].read(stride=2))
                self.grown[level] = self.grow[level](inner)
            x = self.grown[level][:, :, row % 2][:, :, None]
        else:
            x = kept.pop()
        self.down[level] = []
        for block in self.last[level]:
            x = block(x, kept.pop())
            self.down[level].append(x)
        return x


class _Aside:
    """The stream ``ul``, and the parameters of the mixture."""

    def __init__(self, network: PixelCNNPlus, n: int) -> None:
        widths = [network.config.resolution >> level for level in range(LEVELS)]
        self.network = network
        self.start_above = _RowConv(cast("Shifted", network.ul_init[0]), n, widths[0])
        self.start_left = _PixelConv(cast("Shifted", network.ul_init[1]), n, widths[0])
        self.from_above = self.start_above.weight.new_zeros(n, network.config.width, 1, widths[0])
        self.first, self.last = [], []
        for level, width in enumerate(widths):
            up = cast("Streams", network.up_layers[level]).ul_stream
            down = cast("Streams", network.down_layers[LEVELS - 1 - level]).ul_stream
            self.first.append([_PixelResidual(cast("GatedResidual", b), n, width) for b in up])
            self.last.append([_PixelResidual(cast("GatedResidual", b), n, width) for b in down])
        self.shrink = [
            _PixelConv(cast("Shifted", layer), n, width)
            for layer, width in zip(network.downsize_ul_stream, widths, strict=False)
        ]
        grow = [cast("ShiftedUp", layer).deconv for layer in network.upsize_ul_stream][::-1]
        self.grow = [(layer.weight, layer.bias) for layer in grow]  # weight [inputs, outputs, 2, 2]
        self.grown = [self.from_above.new_zeros(n, network.config.width, 2, w) for w in widths[:-1]]
        self.out, self.out_bias = network.nin_out.lin_a.weight, network.nin_out.lin_a.bias

    def start_row(self, row: int, last: Tensor | None) -> None:
        if last is not None:
            self.from_above = self.start_above(_with_ones(last))
        self.start_left.start_row()
        for level in range(LEVELS):
            if row % (1 << level):
                continue
            for block in (*self.first[level], *self.last[level]):
                block.start_row()
            if level < LEVELS - 1:
                self.shrink[level].start_row()

    def advance(self, row: int, column: int, before: Tensor | None, above: _Above) -> Tensor:
        """Return the parameters ``[n, 10 mixtures]``; ``before`` is the pixel to the left."""
        x = self.from_above[:, :, 0, column]
        if before is not None:
            x = x + self.start_left(_with_ones(before), column - 1)
        return F.linear(F.elu(self._level(0, row, column, x, above)), self.out, self.out_bias)

    def _level(self, level: int, row: int, column: int, x: Tensor, above: _Above) -> Tensor:
        kept = [x]
        for block, row_above in zip(self.first[level], above.up[level], strict=True):
            kept.append(block(kept[-1], column, row_above[:, :, 0, column]))
        if level < LEVELS - 1:
            self.shrink[level].push(kept[-1], column)
            if row % 2 == 0 and column % 2 == 0:
                inner = self.shrink[level].read(column)
                self._grow(level, column, self._level(level + 1, row // 2, column // 2, inner, above))
            x = self.grown[level][:, :, row % 2, column]
        else:
            x = kept.pop()
        for block, row_above in zip(self.last[level], above.down[level], strict=True):
            x = block(x, column, torch.cat([row_above[:, :, 0, column], kept.pop()], dim=1))
        return x

    def _grow(self, level: int, column: int, inner: Tensor) -> None:
        weight, bias = self.grow[level]
        four = (inner @ weight.flatten(1)).view(len(inner), *weight.shape[1:]) + bias[:, None, None]
        self.grown[level][:, :, :, column : column + 2] = four
