"""Seeded weights under any names, so that a public implementation can be run on the very same ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from evalkit.generators.checkpoint import Checkpoint


def seeded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a sane scale for each name, whatever the order: variances positive, vectors of length 1."""
    made: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(0)
            continue
        rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        tensor = torch.randn(shape, generator=rng)
        if name.endswith(("running_var", "stored_var", "sv0")):
            tensor = tensor.abs() + 0.5
        elif name.endswith(("weight_u", "weight_v", "u0")):
            tensor = tensor / tensor.norm()
        elif name.endswith("gamma"):
            tensor = tensor.abs() + 0.5
        elif len(shape) > 1:
            tensor = tensor / tensor[0].numel() ** 0.5
        else:
            tensor = tensor * 0.3 + (1.0 if name.endswith(("weight", "gain")) else 0.0)
        made[name] = tensor
    # As one power iteration leaves it, so that the norm is a sane number.
    for stem in [name.removesuffix("weight_orig") for name in made if name.endswith("weight_orig")]:
        right = made[f"{stem}weight_u"] @ made[f"{stem}weight_orig"].flatten(1)
        made[f"{stem}weight_v"] = right / right.norm()
    return made


def latents(n: int, dimensions: int) -> Tensor:
    """Seeded z."""
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(5))


def checkpoint(tensors: Mapping[str, Tensor], **given: object) -> Checkpoint:
    """What the reader hands to a ``build``."""
    return Checkpoint(tensors=tensors, sha256="0" * 64, format="torch", given=given)


def probe(images: Tensor) -> list[float]:
    """Five numbers that any mistake moves: mean, spread, and three pixels."""
    n, c, h, w = images.shape
    picked = (images[0, 0, h // 2, w // 3], images[n - 1, c - 1, 0, 0], images[n // 2, 0, h - 1, w // 2])
    return [float(images.mean()), float(images.std()), *(float(value) for value in picked)]
