"""Rows of latents and attributes: where an attribute is linear in w but not in z, the score says so."""

import itertools

import numpy as np
import pytest
import torch

from evalkit.core import FeatureSet, Probe
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators.toy import GaussianTiles
from evalkit.metrics.separability import LinearSeparability
from evalkit.numerics import block_edges
from evalkit.probes import separability_probe
from evalkit.seeding import image_seeds
from evalkit.spec import Spec


class Ring:
    """z in the plane; w = (|z|^2, z): "outside the median circle" is a half-space of w and none of z."""

    spec = Spec.of("generator", "ring")
    family, num_classes, resolution, spaces = "gan", 0, 4, ("z", "w")

    def generate(self, seeds, *, labels=None):
        raise NotImplementedError

    def latents(self, seeds):
        return torch.stack([torch.randn(2, generator=torch.Generator().manual_seed(int(s))) for s in seeds])

    def mapping(self, z, *, labels=None):
        return torch.cat([z.square().sum(1, keepdim=True) - 2 * np.log(2), z], dim=1)

    def synthesis(self, latents, *, space, noise_seeds, labels=None):
        w = latents if space == "w" else self.mapping(latents)
        return torch.tanh(w)[:, :, None, None].expand(-1, 3, 4, 4)


class Channels:
    """Attributes: the mean of the first channel, and of the second, is at least 0."""

    spec = Spec.of("attributes", "channels")

    def __init__(self, names=("outside", "right")):
        self.names = names

    def __call__(self, images):
        return torch.atanh(images[:, :2].mean((2, 3)).clamp(-0.999, 0.999))


def rows_of(probe, n, head):
    return probe(np.arange(n), [head])[head]


def score(rows, *, space, attributes, blocks=1):
    parts = tuple(rows[i:j] for i, j in itertools.pairwise(block_edges(len(rows), blocks)))
    metric = LinearSeparability(space=space, attributes=attributes)
    return metric.compute(FeatureSet(parts), None, rng=np.random.default_rng(0))


def test_linear_in_w_and_not_in_z():
    probe = separability_probe(Ring(), seed=1, attributes=Channels())
    assert probe.heads == {"z": 4, "w": 5}
    rows = probe(np.arange(2000), ["z", "w"])
    in_w = score(rows["w"], space="w", attributes=2, blocks=10)
    in_z = score(rows["z"], space="z", attributes=2, blocks=10)
    assert in_w.value == pytest.approx(1.0, abs=1e-12)
    # No straight cut tells inside from outside: the whole bit stays; "right" is a cut in z as in w.
    assert in_z.details["entropy_0"] == pytest.approx(np.log(2), abs=0.05)
    assert in_z.details["entropy_1"] < 0.01
    assert in_z.value == pytest.approx(2.0, abs=0.1)
    assert 0 < in_z.stderr < 0.1


def test_rows_are_latent_then_logits_of_the_images_that_score_draws():
    probe = separability_probe(Ring(), seed=5, attributes=Channels())
    index = np.array([7, 0, 3])
    row = probe(index, ["z", "w"])
    z = Ring().latents(image_seeds(5, index))
    np.testing.assert_array_equal(row["z"][:, :2], z)
    np.testing.assert_array_equal(row["w"][:, :3], Ring().mapping(z))
    images = Ring().synthesis(z, space="z", noise_seeds=index)
    np.testing.assert_allclose(row["w"][:, 3:], Channels()(images), rtol=1e-5)
    np.testing.assert_array_equal(row["w"][:, 3:], row["z"][:, 2:])
    np.testing.assert_array_equal(rows_of(probe, 50, "w")[index], row["w"])
    assert row["w"].dtype == np.float32
    assert isinstance(probe, Probe)


def test_space_z_alone_and_labels(linear):
    g = linear(spaces=("z",), num_classes=4)
    probe = separability_probe(g, seed=0, attributes=Channels())
    assert probe.heads == {"z": g.dim + 2}
    rows_of(probe, 32, "z")
    space, _, noise_seeds, labels = g.calls[-1]
    assert space == "z"
    np.testing.assert_array_equal(noise_seeds, image_seeds(0, np.arange(32)))
    assert np.bincount(labels).tolist() == [8, 8, 8, 8]


def test_the_spec_names_model_seed_and_attributes(linear):
    specs = {
        separability_probe(g, seed=seed, attributes=Channels(names)).spec.digest()
        for g, seed, names in (
            (linear(), 0, ("a", "b")),
            (linear(), 1, ("a", "b")),
            (linear(), 0, ("a", "c")),
            (linear(scale=1.0), 0, ("a", "b")),
        )
    }
    assert len(specs) == 4


def test_refusals(linear):
    with pytest.raises(UsageError, match="shows none"):
        separability_probe(GaussianTiles(), seed=0, attributes=Channels())
    with pytest.raises(UsageError, match="needs an attribute"):
        separability_probe(linear(), seed=0, attributes=Channels(()))
    probe = separability_probe(linear(spaces=("z",)), seed=0, attributes=Channels())
    with pytest.raises(UsageError, match="no head"):
        rows_of(probe, 2, "w")
    wrong = separability_probe(linear(), seed=0, attributes=Channels(("one",)))
    with pytest.raises(UsageError, match="gave"):
        rows_of(wrong, 2, "z")
    g = linear()
    g.synthesis = lambda latents, **_: torch.full((len(latents), 3, 8, 8), torch.nan)
    with pytest.raises(InvalidInputError, match="not finite"):
        rows_of(separability_probe(g, seed=0, attributes=Channels()), 2, "z")
