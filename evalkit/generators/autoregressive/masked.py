"""PixelCNN (van den Oord et al. 2016a): one stack of masked convolutions over RGB.

A 7x7 convolution of type A, residual blocks with a 3x3 convolution of type B, two 1x1 convolutions of type
B, a 256-way softmax for each channel. Every channel of features belongs to red, green or blue, in this order
in three equal groups; at its own position a feature sees groups before its own (A) or up to its own (B).
Kernels hold the rows above and the pixels to the left; the region that stays unseen (the blind spot) is the
paper's, and the reason for the Gated PixelCNN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 3
VALUES = 256


@dataclass(frozen=True)
class PixelCNNConfig:
    """Sizes: ``features`` is h of the paper (blocks work on 2h channels), a multiple of three."""

    features: int
    blocks: int
    head: int
    resolution: int

    def __post_init__(self) -> None:
        """Refuse sizes that no network has.

        Raises:
            ValueError: channels that do not fall into three equal groups, or sizes below 1.
        """
        if min(self.features, self.blocks, self.head, self.resolution) < 1:
            raise ValueError(f"impossible sizes: {self}")
        if self.features % GROUPS or self.head % GROUPS:
            raise ValueError(f"features and head must be multiples of {GROUPS}: {self}")


class MaskedConv(nn.Conv2d):
    """A convolution whose weights on what comes later are zero, whatever the checkpoint holds there."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, own: bool) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        mask = torch.zeros(outputs, inputs, kernel, kernel)
        middle = kernel // 2
        mask[:, :, :middle] = 1.0
        mask[:, :, middle, :middle] = 1.0
        group_out = torch.arange(outputs) * GROUPS // outputs
        group_in = torch.arange(inputs) * GROUPS // inputs
        seen = group_in[None] <= group_out[:, None] if own else group_in[None] < group_out[:, None]
        mask[:, :, middle, middle] = seen.to(mask.dtype)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h, w]``."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class ResidualBlock(nn.Module):
    """``x + 1x1(relu(3x3(relu(1x1(relu(x))))))``, all of type B, 2h to h to h to 2h channels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.narrow = MaskedConv(2 * features, features, 1, own=True)
        self.wide = MaskedConv(features, features, 3, own=True)
        self.out = MaskedConv(features, 2 * features, 1, own=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 2h, h, w]`` to the same shape."""
        change: Tensor = self.out(F.relu(self.wide(F.relu(self.narrow(F.relu(x))))))
        return x + change


class PixelCNN(nn.Module):
    """Logits of every channel of every pixel, given all that come before."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.first = MaskedConv(3, 2 * config.features, 7, own=False)
        self.blocks = nn.ModuleList(ResidualBlock(config.features) for _ in range(config.blocks))
        self.hidden = MaskedConv(2 * config.features, config.head, 1, own=True)
        self.logits = MaskedConv(config.head, GROUPS * VALUES, 1, own=True)

    def forward(self, values: Tensor) -> Tensor:
        """Return logits ``[n, h, w, 3, 256]`` of int64 ``values`` ``[n, 3, h, w]``."""
        x = self.first(values.to(self.first.weight.dtype) * (2.0 / (VALUES - 1)) - 1.0)
        for block in self.blocks:
            x = block(x)
        x = self.logits(F.relu(self.hidden(F.relu(x))))
        logits: Tensor = x.permute(0, 2, 3, 1).unflatten(-1, (GROUPS, VALUES))
        return logits
