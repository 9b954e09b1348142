"""The probes on evalkit's own generators and distances: both spaces, all the way to a score."""

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import FeatureSet, LatentGenerator
from evalkit.errors import UsageError
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.gan.style_sampling import build
from evalkit.metrics.path_length import PerceptualPathLength
from evalkit.perceptual import build_pair_measure
from evalkit.probes import PathDistance, path_probe, separability_probe
from evalkit.probes.latents import labels_of
from evalkit.spec import Spec


@pytest.fixture(scope="module")
def stylegan():
    """A small one with random weights: 16 pixels, 3 classes."""
    config = StyleGANConfig(
        latent_dim=32, style_dim=24, mapping_layers=2, num_classes=3, channels=(16, 12, 8)
    )
    torch.manual_seed(0)
    network = StyleGANGenerator(config)
    checkpoint = Checkpoint(
        tensors=network.state_dict(), sha256="0" * 64, format="evalkit", architecture="stylegan",
        config=dataclasses.asdict(config),
    )  # fmt: skip
    return build(checkpoint, SamplingOptions())


@pytest.fixture(scope="module")
def perceptual():
    return build_pair_measure("pd-efficientnet-lite0", weights={}, device="cpu")


def probe_of(generator, distance, **changes):
    chosen = {"seed": 0, "space": "z", "sampling": "end", "epsilon": 1e-4, "crop": False} | changes
    return path_probe(generator, distance=distance, **chosen)


def rows_of(probe, n):
    return probe(np.arange(n), ["distance"])["distance"]


def test_a_perceptual_distance_is_a_path_distance(perceptual):
    assert isinstance(perceptual, PathDistance)


@pytest.mark.parametrize("name", ["cgan", "vae"])
def test_bundled_models_keep_the_length_of_their_prior(name, perceptual):
    generator = load_generator(name)
    assert isinstance(generator, LatentGenerator)
    probe = probe_of(generator, perceptual)
    assert probe.interpolation == "slerp"
    rows = rows_of(probe, 16)
    assert (rows > 0).all()
    wider = rows_of(probe_of(generator, perceptual, epsilon=1e-3), 16)
    # Ten times the step, a hundred times the distance: what is measured is a derivative, not rounding.
    assert wider.mean() == pytest.approx(rows.mean(), rel=0.05)
    with pytest.raises(UsageError, match="space 'w'"):
        probe_of(generator, perceptual, space="w")


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("sampling", ["end", "full"])
def test_the_style_gan_has_both_spaces(stylegan, squared, space, sampling):
    probe = probe_of(stylegan, squared, space=space, sampling=sampling)
    assert probe.interpolation == ("lerp" if space == "w" else "slerp-unit")
    rows = rows_of(probe, 32)
    np.testing.assert_array_equal(rows_of(probe, 20), rows[:20])
    score = PerceptualPathLength(space=space, sampling=sampling).compute(
        FeatureSet((rows[:16], rows[16:])), None, rng=np.random.default_rng(0)
    )
    assert score.value == pytest.approx(rows.mean(), rel=1e-6)
    assert score.stderr > 0


def test_the_derivative_of_the_style_gan(stylegan, squared):
    """At the end of a path in w: the squared length of the directional derivative, in float64."""
    probe = probe_of(stylegan, squared, space="w")
    index = np.arange(12)
    rows, seeds = rows_of(probe, 12), probe._seeds(index)
    labels = labels_of(stylegan, probe.seed, index)
    w0, w1 = (stylegan.mapping(stylegan.latents(seeds[i]), labels=labels).double() for i in (0, 1))
    network, noise = stylegan.network.synthesis.double(), stylegan._noise(seeds[3]).double()
    try:
        with torch.no_grad():
            step = 1e-5 * (w1 - w0)
            slope = (network(w0 + step, noise) - network(w0 - step, noise)) / 2e-5
    finally:
        stylegan.network.synthesis.float()
    exact = slope.square().sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(rows[:, 0], exact, rtol=1e-2)
    assert rows.mean() == pytest.approx(exact.mean(), rel=1e-3)


def test_separability_rows_of_the_style_gan(stylegan):
    class Bright:
        spec, names = Spec.of("attributes", "bright"), ("bright",)

        def __call__(self, images):
            return images.mean((1, 2, 3))[:, None]

    probe = separability_probe(stylegan, seed=0, attributes=Bright())
    assert probe.heads == {"z": 33, "w": 25}
    rows = probe(np.arange(40), ["z", "w"])
    np.testing.assert_array_equal(rows["z"][:, -1], rows["w"][:, -1])
