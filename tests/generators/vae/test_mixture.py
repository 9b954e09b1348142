"""The mixture over a VAE's latents: fitted to known clusters, drawn by seed, kept in the checkpoint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.checkpoint import Checkpoint, save_checkpoint
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.generators.vae.mixture import GaussianMixture, split_mixture
from evalkit.training.latent_mixture import add_mixture, fit_mixture
from evalkit.training.loop import TrainingSet

CONFIG = VAEConfig(latent_dim=3, width=8)


def _clusters() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    wide = torch.randn(3000, 2, generator=rng) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    narrow = 0.3 * torch.randn(1000, 2, generator=rng) + torch.tensor([6.0, -2.0])
    return torch.cat([wide, narrow])


def test_the_fit_finds_weights_means_and_covariances():
    mixture = fit_mixture(_clusters(), components=2)
    order = mixture.weights.argsort(descending=True)
    assert mixture.weights[order].tolist() == pytest.approx([0.75, 0.25], abs=0.01)
    assert mixture.means[order[1]].tolist() == pytest.approx([6.0, -2.0], abs=0.05)
    factor = mixture.factors[order[0]]
    expected = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    assert torch.allclose(factor @ factor.T, expected, atol=0.08)


def test_the_fit_matches_the_first_two_moments_of_the_points():
    points = _clusters().double()
    mixture = fit_mixture(points.float(), components=4)
    mean = mixture.weights @ mixture.means
    second = torch.einsum("k,kij->ij", mixture.weights, mixture.factors @ mixture.factors.mT)
    second += torch.einsum("k,ki,kj->ij", mixture.weights, mixture.means, mixture.means)
    assert torch.allclose(mean.double(), points.mean(dim=0), atol=1e-4)
    assert torch.allclose(second.double(), points.T @ points / len(points), atol=2e-3)  # and the ridge


def test_draws_follow_the_mixture_and_the_seed():
    mixture = fit_mixture(_clusters(), components=2)
    seeds = np.arange(4000, dtype=np.int64) * 7919
    drawn = mixture.sample(seeds, device=torch.device("cpu"))
    assert torch.equal(drawn[5:9], mixture.sample(seeds[5:9], device=torch.device("cpu")))
    assert drawn.mean(dim=0).tolist() == pytest.approx(_clusters().mean(dim=0).tolist(), abs=0.15)
    assert float((drawn[:, 0] > 4).float().mean()) == pytest.approx(0.25, abs=0.02)


def test_too_few_points():
    with pytest.raises(InvalidInputError, match="too few"):
        fit_mixture(torch.randn(5, 2), components=3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(1)
    plain, mixed = folder / "plain.safetensors", folder / "mixed.safetensors"
    config = dataclasses.asdict(CONFIG)
    save_checkpoint(plain, ConvVAE(CONFIG).state_dict(), architecture="vae", config=config, training={})
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
    add_mixture(plain, mixed, TrainingSet(images, np.zeros(30, dtype=np.int64)), components=2)
    return plain, mixed


def test_the_mixture_is_a_sampler_of_the_checkpoint_that_has_one(paths):
    plain, mixed = paths
    seeds = np.array([1, 2, 3])
    usual, other = load_generator("vae", plain), load_generator("vae", mixed)
    assert torch.equal(usual.generate(seeds), other.generate(seeds))  # the default prior is untouched
    mixture = load_generator("vae", mixed, options=SamplingOptions(sampler="mixture"))
    images = mixture.generate(seeds)
    assert torch.equal(images[1:2], mixture.generate(seeds[1:2]))
    assert not torch.equal(mixture.latents(seeds), usual.latents(seeds))
    assert mixture.spec != other.spec
    with pytest.raises(UsageError, match="no mixture"):
        load_generator("vae", plain, options=SamplingOptions(sampler="mixture"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture.factors": torch.zeros(2, 3, 4)}, "mixture.factors has shape"),
        ({"mixture.weights": torch.tensor([float("nan"), 1.0])}, "not finite"),
        ({"mixture.weights": None}, "incomplete"),
    ],
)
def test_damaged_mixtures_are_refused(change, message):
    whole = GaussianMixture(torch.ones(2), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)).tensors()
    tensors = {k: v for k, v in {**whole, **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=message):
        split_mixture(Checkpoint(tensors=tensors, sha256="0" * 64, format="torch"))
