"""Sampling PixelCNN with cached activations: each channel of each pixel evaluates one position of each layer.

The three channels of a pixel are drawn one after the other; after the first evaluation the features of red
are final, after the second those of green, after the third those of blue.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.generators.autoregressive.categorical import draw
from evalkit.generators.autoregressive.masked import GROUPS, VALUES, MaskedConv, PixelCNN, ResidualBlock


def sample(network: PixelCNN, uniforms: Tensor) -> Tensor:
    """Draw int64 values ``[n, 3, h, w]`` in raster order; uniforms are ``[n, h, w, 3]`` in [0, 1)."""
    n, size = len(uniforms), network.config.resolution
    values = torch.zeros(n, GROUPS, size, size, dtype=torch.int64, device=uniforms.device)
    stack = _Stack(network, n)
    pixel = network.first.weight.new_zeros(n, GROUPS)
    for row in range(size):
        for column in range(size):
            pixel.zero_()
            for channel in range(GROUPS):
                logits = stack.logits(pixel, row, column)[:, channel * VALUES : (channel + 1) * VALUES]
                drawn = draw(logits, uniforms[:, row, column, channel])
                values[:, channel, row, column] = drawn
                pixel[:, channel] = drawn.to(pixel.dtype) * (2.0 / (VALUES - 1)) - 1.0
            stack.first.put(pixel, row, column)
    return values


def sample_naively(network: PixelCNN, uniforms: Tensor) -> Tensor:
    """Draw the same values by one full evaluation for each draw: the definition."""
    n, size = len(uniforms), network.config.resolution
    values = torch.zeros(n, GROUPS, size, size, dtype=torch.int64, device=uniforms.device)
    for row in range(size):
        for column in range(size):
            for channel in range(GROUPS):
                logits = network(values)[:, row, column, channel]
                values[:, channel, row, column] = draw(logits, uniforms[:, row, column, channel])
    return values


class _Window:
    """A convolution and its padded input; what comes later is zero and its weights are masked."""

    def __init__(self, layer: MaskedConv, n: int, size: int) -> None:
        self.reach = layer.kernel_size[0] // 2
        weight = (layer.weight * layer.mask)[:, :, : self.reach + 1]  # nothing below the position
        self.bias = cast("Tensor", layer.bias)
        self.matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)
        self.seen = weight.new_zeros(n, size + self.reach, size + 2 * self.reach, weight.shape[1])

    def put(self, x: Tensor, row: int, column: int) -> None:
        self.seen[:, row + self.reach, column + self.reach] = x

    def read(self, row: int, column: int) -> Tensor:
        window = self.seen[:, row : row + self.reach + 1, column : column + 2 * self.reach + 1]
        return torch.addmm(self.bias, window.flatten(1), self.matrix)

    def __call__(self, x: Tensor, row: int, column: int) -> Tensor:
        self.put(x, row, column)
        return self.read(row, column)


class _Stack:
    """All layers at one position."""

    def __init__(self, network: PixelCNN, n: int) -> None:
        size = network.config.resolution
        blocks = [cast("ResidualBlock", block) for block in network.blocks]
        self.first = _Window(network.first, n, size)
        self.blocks = [
            (_dense(block.narrow), _Window(block.wide, n, size), _dense(block.out)) for block in blocks
        ]
        self.hidden, self.last = _dense(network.hidden), _dense(network.logits)

    def logits(self, pixel: Tensor, row: int, column: int) -> Tensor:
        """Return ``[n, 768]`` given the known channels of the pixel ``[n, 3]``, the others zero."""
        x = self.first(pixel, row, column)
        for narrow, wide, out in self.blocks:
            y = wide(F.relu(F.linear(F.relu(x), *narrow)), row, column)
            x = x + F.linear(F.relu(y), *out)
        return F.linear(F.relu(F.linear(F.relu(x), *self.hidden)), *self.last)


def _dense(layer: MaskedConv) -> tuple[Tensor, Tensor]:
    return (layer.weight * layer.mask)[:, :, 0, 0], cast("Tensor", layer.bias)
