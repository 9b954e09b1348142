"""What the tensors of pytorch-ddpm and of the DDIM repository's files show of their networks."""

from __future__ import annotations

from evalkit.errors import CheckpointError
from evalkit.generators.diffusion.shapes import Tensors, size_of


def read_pytorch_ddpm(tensors: Tensors) -> dict[str, object]:
    """Return the inferred fields of a ``PytorchDDPMConfig``.

    Raises:
        CheckpointError: tensors of such a network are missing.
    """
    count = 1 + max(_numbers(tensors, "downblocks."), default=-1)
    halving = [i for i in range(count) if f"downblocks.{i}.main.weight" in tensors]
    blocks = halving[0] if halving else count
    if not blocks:
        raise CheckpointError("the tensor downblocks.0.block1.2.weight is missing")
    firsts = [f"downblocks.{i}" for i in range(0, count, blocks + 1)]
    return {
        "ch": size_of(tensors, "head.weight", 0),
        "levels": tuple(size_of(tensors, f"{first}.block1.2.weight", 0) for first in firsts),
        "num_res_blocks": blocks,
        "attention_levels": tuple(f"{first}.attn.proj_q.weight" in tensors for first in firsts),
        "T": size_of(tensors, "time_embedding.timembedding.0.weight", 0),
    }


def read_ddim(tensors: Tensors) -> dict[str, object]:
    """Return the inferred fields of a ``DDIMConfig``.

    Raises:
        CheckpointError: tensors of such a network are missing.
    """
    levels = range(1 + max(_numbers(tensors, "down."), default=-1))
    if not levels:
        raise CheckpointError("the tensor down.0.block.0.conv1.weight is missing")
    return {
        "ch": size_of(tensors, "conv_in.weight", 0),
        "levels": tuple(size_of(tensors, f"down.{i}.block.0.conv1.weight", 0) for i in levels),
        "num_res_blocks": 1 + max(_numbers(tensors, "down.0.block."), default=-1),
        "attention_levels": tuple(f"down.{i}.attn.0.q.weight" in tensors for i in levels),
    }


def _numbers(tensors: Tensors, prefix: str) -> set[int]:
    heads = (name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix))
    return {int(head) for head in heads if head.isdecimal()}
