"""Synthetic checkpoints in the layouts that people hold: real names and shapes, seeded random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "data" / "layouts"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def shapes(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) of the layout called ``name``."""
    rows = (line.split(" ") for line in (FOLDER / f"{name}.txt").read_text().splitlines())
    return {key: (dtype, _shape(text)) for key, dtype, text in rows}


def tensors(name: str, *, scale: float = 0.02) -> dict[str, Tensor]:
    """Seeded tensors of that layout: normal with standard deviation ``scale``; integers are 1."""
    rng = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}
    for key, (dtype, shape) in shapes(name).items():
        if dtype.startswith("int"):
            made[key] = torch.ones(shape, dtype=getattr(torch, dtype))
        else:
            made[key] = torch.empty(shape).normal_(0.0, scale, generator=rng)
    return made


def _shape(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(int(part) for part in text.split("x"))
