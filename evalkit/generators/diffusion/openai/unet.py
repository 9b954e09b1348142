"""The U-Net of improved-diffusion and guided-diffusion, and what must be known to sample it.

Fields are named after the flags of the public programs, so that a checkpoint's flags can be copied into a
sidecar as they are. Those that the tensors show are checked against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalkit.errors import CheckpointError
from evalkit.generators.configuration import UnrevealedError
from evalkit.generators.diffusion.openai.layers import AttentionBlock, GroupNorm32, timestep_embedding
from evalkit.generators.diffusion.openai.paths import Shape, middle, run, time_embed, way_down, way_up

UNSET = -1
"""How the public programs write a number that is not given."""


def unrevealed(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return which fields of an :class:`OpenAIConfig` are still needed beside ``values``.

    One of the two numbers of heads is enough. Where the code that wrote the file has but one of them,
    ``values`` holds the other as :data:`UNSET`.
    """
    missing = [name for name in ("diffusion_steps", "image_size", "noise_schedule") if name not in values]
    heads = {name: values.get(name) for name in ("num_heads", "num_head_channels")}
    if set(heads.values()) <= {None, UNSET}:
        missing += [name for name, number in heads.items() if number is None] or list(heads)
    alone = heads["num_heads"] == 1 and heads["num_head_channels"] in {None, UNSET}
    alone = alone and values.get("num_heads_upsample") in {None, UNSET, 1}
    if not alone and values.get("use_new_attention_order") is None:
        missing.append("use_new_attention_order")
    if values.get("diffusion_steps") != 1000 and values.get("rescale_timesteps") is None:
        missing.append("rescale_timesteps")
    return tuple(sorted(missing))


@dataclass(frozen=True)
class OpenAIConfig:
    """Architecture and diffusion process.

    The first nine fields are inferred, and the image size where the multipliers are a public program's own.
    The rest without a default come from a preset or a sidecar. Of those with one, ``num_heads`` or
    ``num_head_channels`` is needed (with both, the latter counts, as in the public code), and so are
    ``use_new_attention_order`` unless there is a single head and ``rescale_timesteps`` unless there are 1000
    steps, where it changes nothing. ``num_heads_upsample``, ``predict_xstart`` and ``sigma_small`` default as
    the public programs do. ``classifier_sha256`` is filled in by the build where a classifier guides.
    """

    num_channels: int
    levels: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[bool, ...]
    use_scale_shift_norm: bool
    resblock_updown: bool
    class_cond: bool
    num_classes: int
    learn_sigma: bool
    image_size: int
    diffusion_steps: int
    noise_schedule: str
    num_heads: int = UNSET
    num_head_channels: int = UNSET
    use_new_attention_order: bool | None = None
    rescale_timesteps: bool | None = None
    num_heads_upsample: int = UNSET
    predict_xstart: bool = False
    sigma_small: bool = False
    classifier_scale: float | None = None
    classifier_sha256: str = ""

    def __post_init__(self) -> None:
        missing = unrevealed(vars(self))
        if missing:
            raise UnrevealedError(missing)
        along = zip(self.levels, self.attention_levels, strict=True)
        for channels in {self.levels[-1], *(width for width, attends in along if attends)}:
            self.heads(channels)
            self.heads(channels, up=True)

    def heads(self, channels: int, *, up: bool = False) -> int:
        """Return the number of attention heads over ``channels``.

        Raises:
            CheckpointError: the channels cannot be split so.
        """
        if self.num_head_channels > 0:
            heads, rest = divmod(channels, self.num_head_channels)
        else:
            heads = self.num_heads_upsample if up and self.num_heads_upsample > 0 else self.num_heads
            rest = channels % heads
        if rest:
            raise CheckpointError(f"{channels} channels cannot be split into the given attention heads")
        return heads

    @property
    def shape(self) -> Shape:
        """What the tensors show of the network."""
        return Shape(
            width=self.num_channels,
            levels=self.levels,
            blocks=self.num_res_blocks,
            attention=self.attention_levels,
            scale_shift=self.use_scale_shift_norm,
            resblock_updown=self.resblock_updown,
        )


class OpenAIUNet(nn.Module):
    """Noisy image, time and label to the prediction, with the variance's channels where that is learned."""

    def __init__(self, config: OpenAIConfig) -> None:
        super().__init__()
        self.config = config
        shape, new_order = config.shape, bool(config.use_new_attention_order)

        def attention(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, heads=config.heads(channels), new_order=new_order)

        def attention_up(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, heads=config.heads(channels, up=True), new_order=new_order)

        self.time_embed = time_embed(shape)
        if config.class_cond:
            self.label_emb = nn.Embedding(config.num_classes, shape.embedding)
        self.input_blocks, left = way_down(shape, 3, attention)
        self.middle_block = middle(shape, attention)
        self.output_blocks = way_up(shape, left, attention_up)
        self.out = nn.Sequential(
            GroupNorm32(shape.levels[0]),
            nn.SiLU(),
            nn.Conv2d(shape.levels[0], 6 if config.learn_sigma else 3, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, 3 or 6, h, w]`` for ``x [n, 3, h, w]`` at times ``t [n]`` and ``labels [n]``.

        Labels are needed where the network has them, and not looked at where it has none.
        """
        embedding = self.time_embed(timestep_embedding(t, self.config.num_channels))
        if self.config.class_cond:
            embedding = embedding + self.label_emb(labels)
        h, left = x, []
        for stage in self.input_blocks:
            h = run(stage, h, embedding)  # type: ignore[arg-type]  # a list of layers
            left.append(h)
        h = run(self.middle_block, h, embedding)
        for stage in self.output_blocks:
            h = run(stage, torch.cat([h, left.pop()], dim=1), embedding)  # type: ignore[arg-type]
        prediction: Tensor = self.out(h.to(x.dtype))
        return prediction
