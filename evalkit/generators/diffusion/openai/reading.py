"""What the tensors of an improved-diffusion or guided-diffusion checkpoint show of its network."""

from __future__ import annotations

import math

from evalkit.errors import CheckpointError
from evalkit.generators.diffusion.openai.paths import Shape
from evalkit.generators.diffusion.shapes import Tensors, size_of

IMAGE_SIZES = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}
"""Channel multipliers -> image size, as the public programs tie them together unless told otherwise."""


def read_unet(tensors: Tensors) -> dict[str, object]:
    """Return the fields of an ``OpenAIConfig`` that shapes and names show.

    Raises:
        CheckpointError: tensors of such a U-Net are missing or have impossible shapes, or it is an upsampler.
    """
    first = size_of(tensors, "input_blocks.0.0.weight", 1)
    if first != 3:
        raise CheckpointError(
            f"the network reads {first} channels, so it is an upsampler or no image model",
            hint="an upsampler needs images to start from: score the images that it made as a folder",
        )
    shape = _shape(tensors, *_up_structure(tensors))
    class_cond = "label_emb.weight" in tensors
    outputs = size_of(tensors, "out.2.weight", 0)
    if outputs not in {3, 6}:
        raise CheckpointError(f"the network gives {outputs} channels, not 3 (or 6 with a learned variance)")
    return {
        "num_channels": shape.width,
        "levels": shape.levels,
        "num_res_blocks": shape.blocks,
        "attention_levels": shape.attention,
        "use_scale_shift_norm": shape.scale_shift,
        "resblock_updown": shape.resblock_updown,
        "class_cond": class_cond,
        "num_classes": size_of(tensors, "label_emb.weight", 0) if class_cond else 0,
        "learn_sigma": outputs == 6,
    }


def usual_image_size(tensors: Tensors) -> int | None:
    """Return the image size that the public programs tie to the multipliers of this U-Net, or None."""
    shape = _shape(tensors, *_up_structure(tensors))
    return IMAGE_SIZES.get(tuple(channels / shape.width for channels in shape.levels))


def read_encoder(tensors: Tensors) -> tuple[Shape, int, int]:
    """Return a classifier's shape, number of classes and the side of its lowest resolution.

    Raises:
        CheckpointError: the tensors are not of a classifier with attention pooling.
    """
    if "out.2.positional_embedding" not in tensors:
        raise CheckpointError(
            "this is no noisy classifier of guided-diffusion with attention pooling",
            hint="`classifier` names a file such as 64x64_classifier.pt",
        )
    side = math.isqrt(size_of(tensors, "out.2.positional_embedding", 1) - 1)
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("input_blocks."))
    blocks, updown = _down_structure(tensors, last)
    shape = _shape(tensors, blocks, (last + 1) // (blocks + 1), updown)
    return shape, size_of(tensors, "out.2.c_proj.weight", 0), side


def _up_structure(tensors: Tensors) -> tuple[int, int, bool]:
    """Blocks at each level, number of levels, and whether residual blocks resample.

    The first output block that ends in an upsampler is the last one of the lowest level.
    """
    stages = 1 + max(
        (int(name.split(".")[1]) for name in tensors if name.startswith("output_blocks.")), default=-1
    )
    for index in range(stages):
        for position in (1, 2):
            if f"output_blocks.{index}.{position}.conv.weight" in tensors:
                return index, stages // (index + 1), False
            if f"output_blocks.{index}.{position}.in_layers.0.weight" in tensors:
                return index, stages // (index + 1), True
    if stages < 2:
        raise CheckpointError("there are too few output blocks for a U-Net")
    return stages - 1, 1, False  # a single level: nothing resamples


def _down_structure(tensors: Tensors, last: int) -> tuple[int, bool]:
    """Blocks at each level and whether residual blocks resample, from input blocks alone.

    Convolutions that resample have names of their own. Residual blocks that do are the ones without attention
    among those that have it; a classifier without such a level cannot be told, and the public ones have it.
    """
    for index in range(1, last + 1):
        if f"input_blocks.{index}.0.op.weight" in tensors:
            return index - 1, False
    attending = [i for i in range(1, last + 1) if f"input_blocks.{i}.1.qkv.weight" in tensors]
    runs = [i for i in attending if i - 1 not in attending]
    if not runs:
        raise CheckpointError("the number of blocks at each level of the classifier cannot be told")
    blocks = next(n for n in range(1, last + 1) if runs[0] + n not in attending)
    return blocks, True


def _shape(tensors: Tensors, blocks: int, levels: int, updown: bool) -> Shape:
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    channels = tuple(size_of(tensors, f"{first}.0.in_layers.2.weight", 0) for first in firsts)
    if not blocks or not channels:
        raise CheckpointError("there are too few blocks for a U-Net")
    return Shape(
        width=size_of(tensors, "time_embed.0.weight", 1),
        levels=channels,
        blocks=blocks,
        attention=tuple(f"{first}.1.qkv.weight" in tensors for first in firsts),
        scale_shift=size_of(tensors, f"{firsts[0]}.0.emb_layers.1.weight", 0) == 2 * channels[0],
        resblock_updown=updown,
    )
