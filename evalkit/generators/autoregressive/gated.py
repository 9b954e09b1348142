"""Gated PixelCNN (van den Oord et al. 2016b): a vertical and a horizontal stack, without a blind spot.

The vertical stack sees the rows above a position, the horizontal stack what lies to its left and, through
the vertical one, above. Every layer is a gate ``tanh(W_f x + V_f c) * sigmoid(W_g x + V_g c)`` that the class
c enters. Used for pixels (three channels of 256 values) and for the codes of a VQ-VAE (one of 512).

The channels of a pixel are ordered in the head, not in every layer: the stacks see whole pixels that come
before, and the head of channel k is then given the channels before k. What each output depends on is as in
the paper; the masks inside the layers are not needed, and one evaluation of the stacks serves three channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class GatedPixelCNNConfig:
    """Sizes; ``embedded`` looks values up in a table (codes), otherwise they enter as numbers in [-1, 1]."""

    resolution: int = 32
    channels: int = 3
    values: int = 256
    features: int = 64
    layers: int = 9
    reach: int = 3
    head: int = 128
    num_classes: int = 10
    embedded: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that no network has.

        Raises:
            ValueError: a size is below 1 (the number of classes may be 0, for none), or a table of values for
                several channels.
        """
        sizes = (self.resolution, self.channels, self.values - 1, self.features, self.layers, self.reach)
        if min(*sizes, self.head) < 1 or self.num_classes < 0 or (self.embedded and self.channels > 1):
            raise ValueError(f"impossible sizes: {self}")


class GatedLayer(nn.Module):
    """One gate in each stack; the first layer sees only what comes before (mask A of the paper).

    Kernels reach ``reach`` rows up and columns aside. Kernels of later layers hold the current position too.
    """

    def __init__(self, inputs: int, features: int, *, reach: int, classes: int, first: bool) -> None:
        super().__init__()
        self.reach, self.first, self.features = reach, first, features
        taps = reach if first else reach + 1
        self.vertical = nn.Conv2d(inputs, 2 * features, (taps, 2 * reach + 1))
        self.across = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = nn.Conv2d(inputs, 2 * features, (1, taps))
        self.out = nn.Conv2d(features, features, 1)
        self.classes = nn.Embedding(classes, 4 * features) if classes else None
        # A gate takes away about half of the scale; torch's own start would lose the signal in ten layers.
        for layer, gain in (
            (self.vertical, 2.0),
            (self.horizontal, 1.4),
            (self.across, 1.4),
            (self.out, 1.0),
        ):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(cast("Tensor", layer.bias))
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=0.1)

    def forward(
        self, v: Tensor, h: Tensor, labels: Tensor | None, *, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map both stacks ``[n, inputs, h, w]`` to ``[n, features, h, w]``."""
        rows, columns, reach = v.shape[2], h.shape[3], self.reach
        if self.first:  # shifted by one, so that neither stack sees its own position
            v, h = v[:, :, : rows - 1], h[:, :, :, : columns - 1]
        above = self.vertical(F.pad(v, (reach, reach, reach, 0)))
        left = self.horizontal(F.pad(h, (reach, 0, 0, 0))) + self.across(above)
        for_above, for_left = self.class_terms(labels)
        if for_above is not None and for_left is not None:
            above = above + for_above.to(above.dtype)[:, :, None, None]
            left = left.add_(for_left.to(left.dtype)[:, :, None, None])
        change = self.out(F.dropout(gate(left), dropout, training=dropout > 0.0))
        return gate(above), change if self.first else h + change

    def class_terms(self, labels: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What the class adds to each stack before its gate, ``[n, 2 features]`` each."""
        if self.classes is None or labels is None:
            return None, None
        first, second = self.classes(labels).chunk(2, dim=1)
        return first, second


def gate(x: Tensor) -> Tensor:
    """Return ``tanh(a) * sigmoid(b)`` of the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class Head(nn.Module):
    """Features of a position, and the channels of it that are known, to the logits of each channel."""

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        super().__init__()
        self.width, self.channels = config.head, config.channels
        self.hidden = nn.Linear(config.features, config.channels * config.head)
        self.known = nn.ModuleList(
            nn.Embedding(config.values, config.head * (config.channels - 1 - j))
            for j in range(config.channels - 1)
        )
        self.logits = nn.ModuleList(nn.Linear(config.head, config.values) for _ in range(config.channels))
        if not config.embedded:
            self._start_smoothly(config.values)

    @torch.no_grad()
    def _start_smoothly(self, values: int) -> None:
        """Let neighbouring values start with nearly equal weights: waves over the range.

        From independent weights, that a pixel of 100 makes 101 likely must be learnt for each value.
        """
        for channel, layer in enumerate(self.logits):
            waves = _waves(values, self.width)
            cast("nn.Linear", layer).weight.copy_(waves / math.sqrt(self.width))
            nn.init.zeros_(cast("nn.Linear", layer).bias)
            if channel < len(self.known):
                table = cast("nn.Embedding", self.known[channel]).weight
                table.copy_(torch.cat([_waves(values, self.width)] * (table.shape[1] // self.width), dim=1))

    def prepare(self, features: Tensor) -> list[Tensor]:
        """Map ``[..., features]`` to the hidden numbers ``[..., head]`` of each channel."""
        return list(self.hidden(torch.relu(features)).split(self.width, dim=-1))

    def tell(self, hidden: list[Tensor], channel: int, values: Tensor) -> None:
        """Add what ``values`` ``[...]`` of ``channel`` say to the hidden numbers of the channels after it."""
        if channel == self.channels - 1:
            return
        parts = self.known[channel](values).split(self.width, dim=-1)
        for later, part in enumerate(parts, start=channel + 1):
            hidden[later] = hidden[later] + part.to(hidden[later].dtype)

    def read(self, hidden: list[Tensor], channel: int) -> Tensor:
        """Return the logits ``[..., values]`` of ``channel``."""
        return cast("Tensor", self.logits[channel](torch.relu(hidden[channel])))


def _waves(values: int, width: int) -> Tensor:
    """Return ``[values, width]``: cosines of 0 to 16 periods, of falling amplitude and random sign."""
    frequency = torch.linspace(0.0, 32.0, width)
    phase = math.pi * (torch.arange(values)[:, None] + 0.5) / values * frequency
    sign = torch.randint(0, 2, (width,)) * 2.0 - 1.0
    return torch.cos(phase) * sign / (1.0 + frequency / 4.0)


class GatedPixelCNN(nn.Module):
    """Logits of every channel of every position, given all that come before in raster order."""

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        super().__init__()
        self.config = config
        p, classes = config.features, config.num_classes
        self.table = nn.Embedding(config.values, p) if config.embedded else None
        inputs = p if config.embedded else config.channels
        first = GatedLayer(inputs, p, reach=config.reach, classes=classes, first=True)
        later = (GatedLayer(p, p, reach=1, classes=classes, first=False) for _ in range(config.layers))
        self.layers = nn.ModuleList([first, *later])
        self.head = Head(config)

    def represent(self, values: Tensor) -> Tensor:
        """Map int64 ``[n, c, h, w]`` to the input of the stacks, ``[n, features or c, h, w]``.

        Numbers are centred: zeros outside the image then stand for middle grey.
        """
        if self.table is not None:
            embedded: Tensor = self.table(values[:, 0]).permute(0, 3, 1, 2)
            return embedded
        wanted = self.head.hidden.weight.dtype
        x = values.to(wanted) * (2.0 / (self.config.values - 1)) - 1.0
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, values: Tensor, labels: Tensor | None, *, dropout: float = 0.0) -> Tensor:
        """Return logits ``[n, h, w, c, values]`` of int64 ``values`` ``[n, c, h, w]``."""
        return torch.stack(list(self._logits(values, labels, dropout=dropout)), dim=3)

    def _logits(self, values: Tensor, labels: Tensor | None, *, dropout: float) -> Iterator[Tensor]:
        """Yield the logits ``[n, h, w, values]`` of each channel."""
        v = h = self.represent(values)
        for layer in self.layers:
            v, h = layer(v, h, labels, dropout=dropout)
        hidden = self.head.prepare(h.permute(0, 2, 3, 1))
        for channel in range(self.config.channels):
            yield self.head.read(hidden, channel)
            self.head.tell(hidden, channel, values[:, channel])

    def nats(self, values: Tensor, labels: Tensor | None, *, dropout: float = 0.0) -> Tensor:
        """Return the mean negative log likelihood of a value, in nats (scalar)."""
        losses = [
            F.cross_entropy(logits.flatten(0, 2).float(), values[:, channel].flatten())
            for channel, logits in enumerate(self._logits(values, labels, dropout=dropout))
        ]
        return torch.stack(losses).mean()
