"""Sampling the plain way, to measure against: a batch at once, everything derived anew, nothing overwritten.

Autoregressive models have cached activations here too, as a straightforward loop over small operations; the
loop without a cache takes a thousand evaluations of the network for each image.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.core import IndexArray
from evalkit.generators.autoregressive import gated_cache
from evalkit.generators.autoregressive.categorical import draw
from evalkit.generators.autoregressive.gated import GatedLayer, GatedPixelCNN, gate
from evalkit.generators.frozen import WeightLayer
from evalkit.generators.loading import load_generator
from evalkit.generators.sampling import NativeGenerator, SamplingOptions


class PlainSampler:
    """A second generator of the same weights whose layers derive what they need in every pass."""

    def __init__(self, model: str, options: SamplingOptions) -> None:
        self.generator = cast("NativeGenerator", load_generator(model, options=options))
        for module in self.generator.network.modules():
            if isinstance(module, WeightLayer):
                module.thaw()

    def __call__(self, seeds: IndexArray, labels: IndexArray | None) -> Tensor:
        """Return the uint8 images of one batch, all threads in each layer."""
        ours, gated_cache.sample = gated_cache.sample, sample_gated
        try:
            return self.generator._draw_part((seeds, labels))  # noqa: SLF001 - all of them as one part
        finally:
            gated_cache.sample = ours


def sample_gated(network: GatedPixelCNN, labels: Tensor | None, uniforms: Tensor) -> Tensor:
    """Draw the values of :func:`evalkit.generators.autoregressive.gated_cache.sample`, layer by layer."""
    config = network.config
    n, size = len(uniforms), config.resolution
    values = torch.zeros(n, config.channels, size, size, dtype=torch.int64, device=uniforms.device)
    layers = [_Layer(cast("GatedLayer", layer), labels, n, size) for layer in network.layers]
    inputs = layers[0].weight.new_zeros(n, network.represent(values).shape[1], size, size)
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


class _Layer:
    """The last rows of a layer's vertical input, the last columns of its horizontal input."""

    def __init__(self, layer: GatedLayer, labels: Tensor | None, n: int, size: int) -> None:
        self.layer = layer
        weight = layer.horizontal.weight
        self.weight = weight[:, :, 0].permute(2, 1, 0).reshape(-1, weight.shape[0])
        self.rows = weight.new_zeros(n, weight.shape[1], layer.vertical.kernel_size[0], size)
        self.window = weight.new_zeros(n, weight.shape[3], weight.shape[1])
        self.for_above, self.for_left = layer.class_terms(labels)

    def start_row(self, v: Tensor) -> Tensor:
        layer, reach = self.layer, self.layer.reach
        self.rows = torch.cat([self.rows[:, :, 1:], v], dim=2)
        above = layer.vertical(F.pad(self.rows, (reach, reach, 0, 0)))
        left = layer.across(above) + cast("Tensor", layer.horizontal.bias)[:, None, None]
        if self.for_above is not None and self.for_left is not None:
            above, left = above + self.for_above[:, :, None, None], left + self.for_left[:, :, None, None]
        self.from_above = left[:, :, 0].permute(2, 0, 1).contiguous()
        self.window.zero_()
        return gate(above)

    def next_column(self, h: Tensor, column: int) -> Tensor:
        self.window = torch.cat([self.window[:, 1:], h[:, None]], dim=1)
        left = torch.addmm(self.from_above[column], self.window.flatten(1), self.weight)
        out = self.layer.out
        change = torch.addmm(cast("Tensor", out.bias), gate(left), out.weight[:, :, 0, 0].T)
        return change if self.layer.first else h + change
