"""Sampling a Gated PixelCNN with cached activations: each position computes only what it changed.

The vertical stack of a row depends on the rows above alone: it is computed once a row, for all columns. The
horizontal stack then moves along the row, one column at a time, over the last columns of its own layers.
Together that is one evaluation of the network in all, where the plain loop makes one for each position.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.generators.autoregressive.categorical import draw
from evalkit.generators.autoregressive.gated import GatedLayer, GatedPixelCNN, gate


def sample(network: GatedPixelCNN, labels: Tensor | None, uniforms: Tensor) -> Tensor:
    """Draw int64 values ``[n, c, h, w]`` in raster order.

    Args:
        network: in the type to compute in (float64, so that the batch cannot flip a draw).
        labels: int64 ``[n]``, or None where unconditional.
        uniforms: ``[n, h, w, c]`` in [0, 1), one for each draw.
    """
    config = network.config
    n, size = len(uniforms), config.resolution
    values = torch.zeros(n, config.channels, size, size, dtype=torch.int64, device=uniforms.device)
    layers = [_LayerCache(cast("GatedLayer", layer), labels, n, size) for layer in network.layers]
    empty = network.represent(values).shape[1]
    # The input has zeros, and not the zeroth value, where nothing is known yet.
    inputs = layers[0].weight.new_zeros(n, empty, size, size)
    for row in range(size):
        v = inputs[:, :, max(row - 1, 0) : row] if row else inputs[:, :, :1] * 0.0
        for layer in layers:
            v = layer.start_row(v)
        for column in range(size):
            h = inputs[:, :, row, column - 1] if column else inputs[:, :, row, 0] * 0.0
            for layer in layers:
                h = layer.next_column(h, column)
            hidden = network.head.prepare(h)
            for channel in range(config.channels):
                drawn = draw(network.head.read(hidden, channel), uniforms[:, row, column, channel])
                values[:, channel, row, column] = drawn
                network.head.tell(hidden, channel, drawn)
            pixel = values[:, :, row : row + 1, column : column + 1]
            inputs[:, :, row, column] = network.represent(pixel)[:, :, 0, 0]
    return values


def sample_naively(network: GatedPixelCNN, labels: Tensor | None, uniforms: Tensor) -> Tensor:
    """Draw the same values as :func:`sample` by one full evaluation for each draw: the definition."""
    config = network.config
    n, size = len(uniforms), config.resolution
    values = torch.zeros(n, config.channels, size, size, dtype=torch.int64, device=uniforms.device)
    for row in range(size):
        for column in range(size):
            for channel in range(config.channels):
                logits = network(values, labels)[:, row, column, channel]
                values[:, channel, row, column] = draw(logits, uniforms[:, row, column, channel])
    return values


class _LayerCache:
    """The last rows of a layer's vertical input, the current row of its horizontal input."""

    def __init__(self, layer: GatedLayer, labels: Tensor | None, n: int, size: int) -> None:
        self.layer, self.size = layer, size
        weight = layer.horizontal.weight  # [2p, inputs, 1, taps]
        self.weight = weight[:, :, 0].permute(2, 1, 0).reshape(-1, weight.shape[0])
        self.taps = weight.shape[3]
        self.rows = weight.new_zeros(n, weight.shape[1], layer.vertical.kernel_size[0], size)
        self.window = weight.new_zeros(n, self.taps, weight.shape[1])
        self.out = layer.out.weight[:, :, 0, 0].T
        self.for_above, self.for_left = layer.class_terms(labels)

    def start_row(self, v: Tensor) -> Tensor:
        """Take the newest row ``[n, inputs, 1, w]`` of the vertical input; return that of the output."""
        layer, reach = self.layer, self.layer.reach
        self.rows = torch.cat([self.rows[:, :, 1:], v], dim=2)
        above = layer.vertical(F.pad(self.rows, (reach, reach, 0, 0)))
        left = layer.across(above) + cast("Tensor", layer.horizontal.bias)[:, None, None]
        if self.for_above is not None and self.for_left is not None:
            above, left = above + self.for_above[:, :, None, None], left + self.for_left[:, :, None, None]
        self.from_above = left[:, :, 0].permute(2, 0, 1).contiguous()  # [w, n, 2p]
        self.window.zero_()
        return gate(above)

    def next_column(self, h: Tensor, column: int) -> Tensor:
        """Take the newest column ``[n, inputs]`` of the horizontal input; return that of the output."""
        self.window = torch.cat([self.window[:, 1:], h[:, None]], dim=1)
        left = torch.addmm(self.from_above[column], self.window.flatten(1), self.weight)
        change = torch.addmm(cast("Tensor", self.layer.out.bias), gate(left), self.out)
        return change if self.layer.first else h + change
