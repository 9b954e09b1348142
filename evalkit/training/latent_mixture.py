"""Fitting the mixture over a VAE's latents after the training (see :mod:`evalkit.generators.vae.mixture`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from evalkit.errors import InvalidInputError
from evalkit.generators.checkpoint import load_weights, read_checkpoint, save_checkpoint
from evalkit.generators.configuration import build_config
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.generators.vae.mixture import GaussianMixture, split_mixture
from evalkit.training.loop import TrainingSet

COMPONENTS = 10
_RIDGE = 1e-4
_AT_ONCE = 500


def add_mixture(source: Path, target: Path, data: TrainingSet, *, components: int = COMPONENTS) -> None:
    """Write the checkpoint ``source`` with a mixture fitted to the latents of ``data`` to ``target``."""
    checkpoint, _ = split_mixture(read_checkpoint(source))
    config = build_config(VAEConfig, checkpoint)
    network = ConvVAE(config).eval()
    load_weights(network, checkpoint, name="vae")
    mixture = fit_mixture(posterior_draws(network, data), components=components)
    save_checkpoint(
        target,
        {**checkpoint.tensors, **mixture.tensors()},
        architecture="vae",
        config=dict(checkpoint.config or {}),
        training={**checkpoint.training, "mixture_components": components},
    )


@torch.no_grad()
def posterior_draws(network: ConvVAE, data: TrainingSet, *, seed: int = 0) -> Tensor:
    """Return float32 ``[n, d]``: one draw from q(z|x) for each image: what the decoder was trained on."""
    rng = torch.Generator().manual_seed(seed)
    draws = []
    for start in range(0, len(data.images), _AT_ONCE):
        images = torch.from_numpy(data.images[start : start + _AT_ONCE]).float().div_(127.5).sub_(1.0)
        mean, log_variance = network.encode(images.contiguous(memory_format=torch.channels_last))
        draws.append(mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng))
    return torch.cat(draws)


@torch.no_grad()
def fit_mixture(
    points: Tensor, *, components: int = COMPONENTS, iterations: int = 60, seed: int = 0
) -> GaussianMixture:
    """Fit full-covariance components to ``points`` ``[n, d]`` by expectation maximisation, in float64.

    Starts from the points' nearest of ``components`` of them, drawn far apart (k-means++, Arthur &
    Vassilvitskii 2007). A ridge of 1e-4 of the mean variance keeps covariances invertible.

    Raises:
        InvalidInputError: fewer points than two for each component.
    """
    if len(points) < 2 * components:
        raise InvalidInputError(f"{len(points)} latents are too few for {components} components")
    x = points.double()
    ridge = _RIDGE * float(x.var(dim=0).mean()) * torch.eye(x.shape[1], dtype=torch.float64)
    nearest = torch.cdist(x, _far_apart(x, components, seed)).argmin(dim=1)
    shares = torch.nn.functional.one_hot(nearest, components).double()
    for _ in range(iterations):
        weights, means, factors = _maximise(x, shares, ridge)
        shares = torch.softmax(_log_joint(x, weights, means, factors), dim=1)
    weights, means, factors = _maximise(x, shares, ridge)
    return GaussianMixture(weights.float(), means.float(), factors.float())


def _far_apart(x: Tensor, count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    chosen = x[torch.randint(len(x), (1,), generator=rng)]
    while len(chosen) < count:
        distance = torch.cdist(x, chosen).amin(dim=1).square()
        chosen = torch.cat([chosen, x[torch.multinomial(distance, 1, generator=rng)]])
    return chosen


def _maximise(x: Tensor, shares: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    totals = shares.sum(dim=0).clamp(min=1e-8)
    means = shares.T @ x / totals[:, None]
    factors = []
    for share, total, mean in zip(shares.T, totals, means, strict=True):
        centred = x - mean
        factors.append(torch.linalg.cholesky((centred * share[:, None]).T @ centred / total + ridge))
    return totals / len(x), means, torch.stack(factors)


def _log_joint(x: Tensor, weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    columns = []
    for weight, mean, factor in zip(weights, means, factors, strict=True):
        whitened = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
        columns.append(weight.log() - factor.diagonal().log().sum() - 0.5 * whitened.square().sum(dim=0))
    return torch.stack(columns, dim=1)
