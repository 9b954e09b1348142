"""Photographs, and backbones with seeded random weights in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from evalkit.extractors.backbones import TOPOLOGIES


def photographs(size: int = 96) -> torch.Tensor:
    """Three real pictures, uint8 [3, 3, size, size]."""
    whole = (data.astronaut(), data.coffee(), data.chelsea())
    crops = [picture[40 : 40 + size, 80 : 80 + size] for picture in whole]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def noisy(images: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(0, sigma, images.shape)
    return torch.from_numpy(np.clip(np.rint(images.numpy() + noise), 0, 255).astype(np.uint8))


def random_state(name: str) -> dict[str, torch.Tensor]:
    """He-scaled weights and biases away from zero; a classifier is added, which no stage may read."""
    generator = torch.Generator().manual_seed(16)
    state: dict[str, torch.Tensor] = {}
    for key, shape in TOPOLOGIES[name].layout().items():
        uniform = torch.rand(shape, generator=generator) - 0.5
        state[key] = uniform * (24 / uniform[0].numel()) ** 0.5 if key.endswith("weight") else uniform * 0.2
    return state | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="session")
def backbone_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    files = {name: folder / f"{name}.pth" for name in TOPOLOGIES}
    for name, path in files.items():
        torch.save(random_state(name), path)
    return files
