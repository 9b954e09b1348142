"""A Gaussian mixture over the latents, fitted after the training, in place of the standard normal prior.

Ghosh, Sajjadi, Vergari, Black & Schölkopf 2020, "From variational to deterministic autoencoders", sec. 4:
ex-post density estimation, 10 components of full covariance. A checkpoint that has one holds the tensors
``mixture.weights`` ``[k]``, ``mixture.means`` ``[k, d]`` and ``mixture.factors`` ``[k, d, d]`` (lower
triangular L with covariance L L^T) beside those of the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.counter_noise import ELEMENT_STREAM, uniform_at
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.seeding import normal_per_image

_PREFIX = "mixture."


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Weights ``[k]``, means ``[k, d]`` and lower Cholesky factors ``[k, d, d]``, float32."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def sample(self, seeds: IndexArray, *, device: torch.device) -> Tensor:
        """Return float32 ``[n, d]``: component and normal numbers of row i come from seed i alone."""
        shape = self.means.shape[1:]
        noise = normal_per_image(seeds, shape, device=torch.device("cpu"))
        uniform = uniform_at(seeds, 0, (1,), stream=ELEMENT_STREAM, device="cpu").double()
        cumulative = self.weights.double().cumsum(dim=0)
        chosen = (cumulative <= uniform * cumulative[-1]).sum(dim=1).clamp_(max=len(cumulative) - 1)
        moved = torch.einsum("nij,nj->ni", self.factors[chosen], noise)
        return (self.means[chosen] + moved).to(device)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds."""
        return {_PREFIX + field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def split_mixture(checkpoint: Checkpoint) -> tuple[Checkpoint, GaussianMixture | None]:
    """Return the checkpoint without its mixture, and the mixture where it has one.

    Raises:
        CheckpointError: the mixture is incomplete, or its shapes or values are impossible.
    """
    own = {k.removeprefix(_PREFIX): v for k, v in checkpoint.tensors.items() if k.startswith(_PREFIX)}
    if not own:
        return checkpoint, None
    if set(own) != {"weights", "means", "factors"}:
        raise CheckpointError(f"the mixture of the latents is incomplete: it has {', '.join(sorted(own))}")
    mixture = GaussianMixture(**{key: tensor.float() for key, tensor in own.items()})
    _check(mixture)
    rest = {k: v for k, v in checkpoint.tensors.items() if not k.startswith(_PREFIX)}
    return dataclasses.replace(checkpoint, tensors=rest), mixture


def _check(mixture: GaussianMixture) -> None:
    shapes: Mapping[str, tuple[int, ...]] = {
        "weights": mixture.means.shape[:1],
        "factors": (*mixture.means.shape, mixture.means.shape[-1]),
    }
    for name, expected in shapes.items():
        found = tuple(getattr(mixture, name).shape)
        if found != tuple(expected):
            raise CheckpointError(f"mixture.{name} has shape {list(found)}, expected {list(expected)}")
    whole = all(bool(torch.isfinite(t).all()) for t in mixture.tensors().values())
    if not whole or bool((mixture.weights < 0).any()) or float(mixture.weights.sum()) <= 0:
        raise CheckpointError("the mixture of the latents has values that are not finite, or no weights")
