"""Generators with a closed form, and the squared distance: every path length is then a formula."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.seeding import normal_per_image
from evalkit.spec import Spec

SIDE = 8


def matrix(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns))).float()


@dataclasses.dataclass(eq=False)
class LinearGenerator:
    """image = A latent (+ noise of its seed, + 0.01 label); w = f(z) where there is a mapping."""

    spaces: tuple = ("z", "w")
    dim: int = 16
    side: int = SIDE
    scale: float = 0.02
    noise: float = 0.0
    num_classes: int = 0
    normalises: bool = True
    family: str = "gan"
    resolution: int = SIDE
    calls: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.a = matrix(3 * self.side**2, self.dim) * self.scale
        self.b = matrix(self.dim, self.dim, seed=1)

    @property
    def spec(self):
        return Spec.of("generator", "linear", dim=self.dim, scale=self.scale, noise=self.noise)

    def generate(self, seeds, *, labels=None):
        raise NotImplementedError

    def latents(self, seeds):
        return normal_per_image(seeds, (self.dim,), device=torch.device("cpu"))

    def mapping(self, z, *, labels=None):
        x = z / z.square().mean(dim=1, keepdim=True).add(1e-8).sqrt() if self.normalises else z
        w = torch.tanh(x.double() @ self.b.double().T)
        return w.float() if labels is None else (w + torch.from_numpy(labels)[:, None]).float()

    def synthesis(self, latents, *, space, noise_seeds, labels=None):
        self.calls.append((space, latents, noise_seeds, labels))
        w = self.mapping(latents, labels=labels) if space == "z" and "w" in self.spaces else latents
        flat = w.double() @ self.a.double().T
        if self.noise:
            grain = normal_per_image(noise_seeds, (flat.shape[1],), device=torch.device("cpu"))
            flat += self.noise * grain
        if labels is not None:
            flat += 0.01 * torch.from_numpy(labels)[:, None]
        return flat.float().view(-1, 3, self.side, self.side)


class SquaredDistance:
    """Sum of squared differences, in float64."""

    spec = Spec.of("pair-measure", "squared")

    def distance(self, generated, reference):
        assert generated.dtype == torch.float32
        return (generated.double() - reference.double()).square().sum((1, 2, 3))


@pytest.fixture
def linear():
    return LinearGenerator


@pytest.fixture
def squared():
    return SquaredDistance()
