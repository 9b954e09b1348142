"""The ways down and up of a U-Net, as the public checkpoints number their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from evalkit.generators.diffusion.openai.layers import Downsample, Resample, ResidualBlock, Upsample

MakeAttention = Callable[[int], nn.Module]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the tensors of such a U-Net show.

    Attributes:
        width: width of the time embedding before its layers (``num_channels``).
        levels: channels at each resolution, the largest first.
        blocks: residual blocks at each level on the way down (``num_res_blocks``); one more on the way up.
        attention: whether a level's blocks are followed by attention.
        scale_shift: whether the embedding scales and shifts (``use_scale_shift_norm``).
        resblock_updown: whether residual blocks resample, rather than convolutions.
    """

    width: int
    levels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    scale_shift: bool
    resblock_updown: bool

    @property
    def embedding(self) -> int:
        """Width of the time embedding."""
        return 4 * self.width

    def block(self, inputs: int, outputs: int, *, resample: Resample = "none") -> ResidualBlock:
        """Return a residual block of this network."""
        return ResidualBlock(inputs, outputs, self.embedding, scale_shift=self.scale_shift, resample=resample)


def time_embed(shape: Shape) -> nn.Sequential:
    """Return the two layers behind the sinusoids."""
    return nn.Sequential(
        nn.Linear(shape.width, shape.embedding), nn.SiLU(), nn.Linear(shape.embedding, shape.embedding)
    )


def way_down(shape: Shape, in_channels: int, attention: MakeAttention) -> tuple[nn.ModuleList, list[int]]:
    """Return the input blocks and the channels that each of them leaves for the way up."""
    channels = shape.levels[0]
    stages = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, channels, 3, padding=1)])])
    left = [channels]
    for level, outputs in enumerate(shape.levels):
        for _ in range(shape.blocks):
            stages.append(
                _stage(shape.block(channels, outputs), attention if shape.attention[level] else None)
            )
            channels = outputs
            left.append(channels)
        if level < len(shape.levels) - 1:
            down = (
                shape.block(channels, channels, resample="down")
                if shape.resblock_updown
                else Downsample(channels)
            )
            stages.append(nn.ModuleList([down]))
            left.append(channels)
    return stages, left


def middle(shape: Shape, attention: MakeAttention) -> nn.ModuleList:
    """Return the blocks at the lowest resolution, which always attend."""
    channels = shape.levels[-1]
    return nn.ModuleList(
        [shape.block(channels, channels), attention(channels), shape.block(channels, channels)]
    )


def way_up(shape: Shape, left: list[int], attention: MakeAttention) -> nn.ModuleList:
    """Return the output blocks; each also reads what one input block ``left``, the last first."""
    stages, channels, waiting = nn.ModuleList(), shape.levels[-1], list(left)
    for level in reversed(range(len(shape.levels))):
        outputs = shape.levels[level]
        for position in range(shape.blocks + 1):
            stage = _stage(
                shape.block(channels + waiting.pop(), outputs), attention if shape.attention[level] else None
            )
            channels = outputs
            if level and position == shape.blocks:
                stage.append(
                    shape.block(channels, channels, resample="up")
                    if shape.resblock_updown
                    else Upsample(channels)
                )
            stages.append(stage)
    return stages


def _stage(block: ResidualBlock, attention: MakeAttention | None) -> nn.ModuleList:
    return nn.ModuleList([block, *([attention(block.outputs)] if attention else [])])


def run(stage: Iterable[nn.Module], x: Tensor, embedding: Tensor) -> Tensor:
    """Pass ``x`` through the layers of one stage; residual blocks see the time embedding too."""
    for layer in stage:
        x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
    return x
