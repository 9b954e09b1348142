"""Sampling a Gated PixelCNN with cached activations: each position computes only what it changed.

The vertical stack of a row depends on the rows above alone: it is computed once a row, for all columns. The
horizontal stack then moves along the row, one column at a time, over the last columns of its own layers.
Together that is one evaluation of the network in all, where the plain loop makes one for each position.

What is left is two products, a tanh and a product of its halves for each layer and position, all written
into buffers that are laid out once: the gate is ``tanh(a) sigmoid(b) = (t_a + t_a t_b) / 2`` with t the tanh
of (a, b / 2), whose halves are folded into the weights around it. Rounding differs from
:func:`sample_naively` in the last bits of float64, which moves one draw in about 1e12.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from evalkit.generators.autoregressive.categorical import draw
from evalkit.generators.autoregressive.gated import GatedLayer, GatedPixelCNN


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
    features = layers[-1].window.new_empty(n, config.features)
    targets = [*zip(*(layer.places for layer in layers[1:]), strict=True)]
    # The input has zeros, and not the zeroth value, where nothing is known yet.
    line = layers[0].rows.new_zeros(n, size, layers[0].rows.shape[-1])
    for row in range(size):
        v = line
        for layer in layers:
            v = layer.start_row(v)
        for column in range(size):
            for layer, target in zip(layers, (*targets[column], features), strict=True):
                layer.step(column, target)
            _draw_pixel(network, features, uniforms[:, row, column], values[:, :, row, column])
            pixel = network.represent(values[:, :, row : row + 1, column : column + 1])[:, :, 0, 0]
            line[:, column] = pixel
            if column + 1 < size:
                layers[0].places[column + 1].copy_(pixel)
    return values


def _draw_pixel(network: GatedPixelCNN, features: Tensor, uniforms: Tensor, pixel: Tensor) -> None:
    """Write the channels of one position ``[n, c]`` in their order, each knowing those before."""
    hidden = network.head.prepare(features)
    for channel in range(network.config.channels):
        drawn = draw(network.head.read(hidden, channel), uniforms[:, channel])
        pixel[:, channel] = drawn
        network.head.tell(hidden, channel, drawn)


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
    """The last rows of a layer's vertical input, the current row of its horizontal input.

    ``rows`` is ``[n, taps, w + 2 reach, inputs]``, padded with zeros, and ``unfolded`` a view of what each
    position sees of it, ``[n, w, taps, across, inputs]``. ``places`` are the columns ``[n, inputs]`` of the
    horizontal input, which whoever computes them writes, and ``windows`` what each step reads: views of one
    ``[n, (taps - 1 + w) inputs]``, so that a window is a matrix without being copied.
    """

    def __init__(self, layer: GatedLayer, labels: Tensor | None, n: int, size: int) -> None:
        self.first, self.reach, p = layer.first, layer.reach, layer.features
        vertical, horizontal = layer.vertical.weight, layer.horizontal.weight[:, :, 0]
        inputs, taps = horizontal.shape[1:]
        self.rows = vertical.new_zeros(n, vertical.shape[2], size + 2 * self.reach, inputs)
        self.unfolded = self.rows.unfold(2, 2 * self.reach + 1, 1).permute(0, 2, 1, 4, 3)
        self.patches = torch.empty_like(self.unfolded, memory_format=torch.contiguous_format)
        self.vertical = vertical.permute(2, 3, 1, 0).flatten(0, 2)
        self.vertical_bias = cast("Tensor", layer.vertical.bias)
        halved = torch.cat([vertical.new_ones(p), vertical.new_full((p,), 0.5)])  # tanh of b / 2, see above
        self.across = layer.across.weight[:, :, 0, 0].T * halved
        self.left_bias = (cast("Tensor", layer.across.bias) + cast("Tensor", layer.horizontal.bias)) * halved
        self.horizontal = horizontal.permute(2, 1, 0).reshape(-1, 2 * p) * halved
        self.for_above, for_left = layer.class_terms(labels)
        self.for_left = None if for_left is None else for_left * halved
        out = layer.out.weight[:, :, 0, 0].T * 0.5
        self.out = torch.cat([out, cast("Tensor", layer.out.bias)[None]])  # the bias meets a column of ones
        self.gated = vertical.new_ones(n, p + 1)
        self.left = vertical.new_empty(n, 2 * p)
        self.a, self.b, self.product = self.left[:, :p], self.left[:, p:], self.gated[:, :p]
        self.window = vertical.new_zeros(n, (taps - 1 + size) * inputs)
        ends = [(column + taps) * inputs for column in range(size)]
        self.windows = [self.window[:, end - taps * inputs : end] for end in ends]
        self.places = [self.window[:, end - inputs : end] for end in ends]

    def start_row(self, v: Tensor) -> Tensor:
        """Take the newest row ``[n, w, inputs]`` of the vertical input; return that of the output."""
        n, size, _ = v.shape
        for tap in range(self.rows.shape[1] - 1):
            self.rows[:, tap] = self.rows[:, tap + 1]
        self.rows[:, -1, self.reach : self.reach + size] = v
        self.patches.copy_(self.unfolded)
        above = torch.addmm(self.vertical_bias, self.patches.view(n * size, -1), self.vertical)
        left = torch.addmm(self.left_bias, above, self.across).view(n, size, -1)
        above = above.view(n, size, -1)
        if self.for_above is not None and self.for_left is not None:
            above.add_(self.for_above[:, None])
            left.add_(self.for_left[:, None])
        self.from_above = left.unbind(dim=1)
        a, b = above.chunk(2, dim=2)
        return a.tanh().mul_(b.sigmoid())

    def step(self, column: int, target: Tensor) -> None:
        """Read the window that ends in ``column`` and write the output's column ``[n, features]``."""
        torch.addmm(self.from_above[column], self.windows[column], self.horizontal, out=self.left)
        self.left.tanh_()
        torch.addcmul(self.a, self.a, self.b, out=self.product)
        if self.first:
            torch.mm(self.gated, self.out, out=target)
        else:
            torch.addmm(self.places[column], self.gated, self.out, out=target)
