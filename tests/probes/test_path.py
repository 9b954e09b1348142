"""The rows of the path length against closed forms, an independent walk and torch-fidelity."""

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import FeatureSet, Probe
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators.toy import GaussianTiles
from evalkit.metrics.path_length import PerceptualPathLength
from evalkit.probes import path_probe
from evalkit.probes.latents import box_average
from evalkit.probes.path import prepare
from evalkit.seeding import image_seeds

EPSILON = 1e-4
N = 400


def probe_of(generator, distance, **changes):
    chosen = {"seed": 3, "space": "w", "sampling": "end", "epsilon": EPSILON, "crop": False} | changes
    return path_probe(generator, distance=distance, **chosen)


def rows_of(probe, n=N):
    return probe(np.arange(n), ["distance"])["distance"]


def ends(probe, generator, n=N):
    """The latents z0, z1 and positions t, by the documented rule of the seeds."""
    seeds = probe._seeds(np.arange(n))
    z0, z1 = generator.latents(seeds[0]).double(), generator.latents(seeds[1]).double()
    return z0, z1, torch.from_numpy(probe._positions(seeds[2]))


def metric_value(rows, **params):
    return PerceptualPathLength(**params).compute(FeatureSet((rows,)), None, rng=np.random.default_rng(0))


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_linear_generator_in_w_has_its_closed_form(linear, squared, sampling):
    """A straight path through a linear map: |A (w1 - w0)|^2, whatever t and epsilon."""
    g = linear()
    probe = probe_of(g, squared, sampling=sampling)
    z0, z1, _ = ends(probe, g)
    exact = (
        ((g.mapping(z1.float()) - g.mapping(z0.float())).double() @ g.a.double().T).square().sum(1).numpy()
    )
    rows = rows_of(probe)
    # A row carries the rounding of float32 latents and images, 6e-8 of a step of 1e-4; a mean does not.
    np.testing.assert_allclose(rows[:, 0], exact, rtol=1e-2)
    assert rows.mean(dtype=np.float64) == pytest.approx(exact.mean(), rel=1e-4)
    low, high = np.percentile(exact, 1, method="lower"), np.percentile(exact, 99, method="higher")
    trimmed = exact[(exact >= low) & (exact <= high)].mean()
    assert metric_value(rows).value == pytest.approx(trimmed, rel=1e-4)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("sampling", ["end", "full"])
@pytest.mark.parametrize("interpolation", ["slerp-unit", "slerp"])
def test_linear_generator_in_z_has_its_closed_form(linear, squared, sampling, epsilon, interpolation):
    """On the unit sphere a step is the chord 2 sin(epsilon w / 2) along the tangent in its middle."""
    g = linear(spaces=("z",))
    probe = probe_of(g, squared, space="z", sampling=sampling, epsilon=epsilon, interpolation=interpolation)
    z0, z1, t = ends(probe, g)
    r0, r1 = z0.norm(dim=1, keepdim=True), z1.norm(dim=1, keepdim=True)
    u, v = z0 / r0, z1 / r1
    angle = torch.arccos((u * v).sum(1, keepdim=True))
    side = v - (u * v).sum(1, keepdim=True) * u
    side = side / side.norm(dim=1, keepdim=True)
    middle = (t[:, None] + epsilon / 2) * angle
    tangent = side * torch.cos(middle) - u * torch.sin(middle)
    radial = u * torch.cos(middle) + side * torch.sin(middle)
    half = epsilon * angle / 2
    chord = 2 * torch.sin(half) * tangent
    if interpolation == "slerp":  # lengths go linearly from |z0| to |z1|
        length = r0 + (t[:, None] + epsilon / 2) * (r1 - r0)
        chord = length * chord + epsilon * (r1 - r0) * torch.cos(half) * radial
    exact = (chord @ g.a.double().T).square().sum(1) / epsilon**2
    rows = rows_of(probe)[:, 0]
    np.testing.assert_allclose(rows, exact, rtol=1e-2 if epsilon == EPSILON else 1e-4)
    assert rows.mean(dtype=np.float64) == pytest.approx(float(exact.mean()), rel=1e-4)


def test_an_orthogonal_map_measures_the_angle(linear, squared):
    """A'A = 1: every row is (2 sin(epsilon w / 2) / epsilon)^2 = w^2 (1 - (epsilon w)^2 / 12 + ...)."""
    g = linear(spaces=("z",), dim=4)
    g.a = torch.linalg.qr(g.a)[0]
    probe = probe_of(g, squared, space="z", epsilon=0.1, sampling="full", interpolation="slerp-unit")
    z0, z1, _ = ends(probe, g)
    angle = torch.arccos(torch.cosine_similarity(z0, z1)).numpy()
    np.testing.assert_allclose(rows_of(probe)[:, 0], (2 * np.sin(0.05 * angle) / 0.1) ** 2, rtol=1e-5)


def published_walk(g, z0, z1, t, *, space, epsilon):
    """A plain second writing of the protocol in float32 torch, with t + epsilon added in float32."""
    z0, z1, t = z0.float(), z1.float(), t.float()[:, None]
    if space == "w":
        w0, w1 = g.mapping(z0), g.mapping(z1)
        points = [w0 + p * (w1 - w0) for p in (t, t + epsilon)]
    else:
        u, v = (z / z.norm(dim=-1, keepdim=True) for z in (z0, z1))
        cosine = (u * v).sum(-1, keepdim=True)
        side = torch.nn.functional.normalize(v - cosine * u, dim=-1)
        turns = [p * torch.acos(cosine) for p in (t, t + epsilon)]
        points = [
            g.mapping(torch.nn.functional.normalize(u * a.cos() + side * a.sin(), dim=-1)) for a in turns
        ]
    images = [g.synthesis(p, space="w", noise_seeds=np.zeros(len(p), dtype=np.int64)) for p in points]
    distances = (images[0].double() - images[1].double()).square().sum((1, 2, 3)).numpy() / epsilon**2
    keep = np.sort(distances)
    n = len(keep)
    return keep[int(np.floor(0.01 * (n - 1))) : int(np.ceil(0.99 * (n - 1))) + 1].mean()


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("sampling", ["end", "full"])
def test_the_value_is_that_of_the_published_code(linear, squared, space, sampling):
    """Float32 positions, as published, move single rows by 1e-3 and the mean of 400 by less than 1e-4."""
    g = linear()
    probe = probe_of(g, squared, space=space, sampling=sampling)
    assert probe.interpolation == ("lerp" if space == "w" else "slerp-unit")
    walked = published_walk(g, *ends(probe, g), space=space, epsilon=EPSILON)
    assert metric_value(rows_of(probe)).value == pytest.approx(walked, rel=2e-4)


def fidelity(module, latents, *, mode, dtype, quantise=False):
    """torch-fidelity's PPL on given latents; its percentiles use an argument that numpy 2.4 has no more."""
    from torch_fidelity.generative_model_base import GenerativeModelBase
    from torch_fidelity.metric_ppl import KEY_METRIC_PPL_MEAN, calculate_ppl
    from torch_fidelity.registry import NOISE_SOURCE_REGISTRY, SAMPLE_SIMILARITY_REGISTRY
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase

    class Squared(SampleSimilarityBase):
        def __init__(self, name, **_):
            super().__init__(name)

        def forward(self, a, b):
            assert a.dtype == dtype
            scale = 127.5 if dtype == torch.uint8 else 1
            return ((a.double() - b.double()) / scale).square().sum((1, 2, 3))

    class Model(GenerativeModelBase):
        z_size, z_type, num_classes = latents[0].shape[1], "evalkit-fixed", 0

        def forward(self, z):
            images = module(z)
            return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8) if quantise else images

    draws = iter(latents)
    NOISE_SOURCE_REGISTRY["evalkit-fixed"] = lambda rng, shape: next(draws)
    SAMPLE_SIMILARITY_REGISTRY["evalkit-squared"] = Squared
    try:
        return calculate_ppl(
            1, input1=Model(), input1_model_num_samples=len(latents[0]), cuda=False, verbose=False,
            ppl_epsilon=EPSILON, ppl_z_interp_mode=mode, ppl_sample_similarity="evalkit-squared",
            ppl_sample_similarity_resize=None, ppl_sample_similarity_dtype="float32", batch_size=64,
            ppl_discard_percentile_lower=None, ppl_discard_percentile_higher=None,
        )[KEY_METRIC_PPL_MEAN]  # fmt: skip
    finally:
        del NOISE_SOURCE_REGISTRY["evalkit-fixed"], SAMPLE_SIMILARITY_REGISTRY["evalkit-squared"]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("slerp-unit", "slerp_unit"), ("slerp-any", "slerp_any"), ("lerp", "lerp")]
)
def test_torch_fidelity_agrees_where_its_path_is_float(linear, squared, ours, theirs):
    """Its float path, through a wrapper; what is left is its float32 interpolation near t = 0.

    Its ``slerp_unit`` weighs the latents as drawn, and normalises the second point alone: only for latents
    that are unit vectors already is it the published path, so it is given such.
    """
    g = linear(spaces=("z",))
    probe = probe_of(g, squared, space="z", interpolation=ours)
    z0, z1, _ = ends(probe, g)

    def module(z):
        return g.synthesis(z, space="z", noise_seeds=np.zeros(len(z), dtype=np.int64))

    if theirs == "slerp_unit":
        z0, z1 = (torch.nn.functional.normalize(z) for z in (z0, z1))
    value = fidelity(module, (z0.float(), z1.float()), mode=theirs, dtype=torch.float32)
    all_rows = metric_value(rows_of(probe), lower=0.0, higher=100.0)
    assert all_rows.value == pytest.approx(value, rel=2e-4)


def test_torch_fidelity_as_it_comes_measures_rounding(linear, squared):
    """Its default wants uint8 images: a step of 1e-4 moves most pixels by nothing and a few by a level."""
    g = linear(spaces=("z",))
    probe = probe_of(g, squared, space="z", interpolation="lerp")
    z0, z1, _ = ends(probe, g)

    def module(z):
        return g.synthesis(z, space="z", noise_seeds=np.zeros(len(z), dtype=np.int64))

    rounded = fidelity(module, (z0.float(), z1.float()), mode="lerp", dtype=torch.uint8, quantise=True)
    assert rounded > 20 * metric_value(rows_of(probe), lower=0.0, higher=100.0).value


def test_a_row_depends_on_its_index_alone(linear, squared):
    probe = probe_of(linear(num_classes=3, noise=0.1), squared, sampling="full")
    together = rows_of(probe, 40)
    assert together.shape == (40, 1)
    assert together.dtype == np.float32
    some = np.array([39, 3, 17])
    np.testing.assert_array_equal(probe(some, ["distance"])["distance"], together[some])
    assert isinstance(probe, Probe)
    assert probe.heads == {"distance": 1}


def test_the_two_images_share_noise_and_label(linear, squared):
    quiet, loud = (
        rows_of(probe_of(linear(num_classes=4, noise=noise), squared), 50) for noise in (0.0, 0.05)
    )
    np.testing.assert_allclose(loud, quiet, rtol=2e-2)
    g = linear(num_classes=4, noise=0.05)
    rows_of(probe_of(g, squared), 16)
    _, latents, noise_seeds, labels = g.calls[-1]
    half = len(labels) // 2
    np.testing.assert_array_equal(noise_seeds[:half], noise_seeds[half:])
    np.testing.assert_array_equal(labels[:half], labels[half:])
    assert np.bincount(labels[:half]).tolist() == [half // 4] * 4
    assert len(set(noise_seeds[:half].tolist())) == half
    assert latents.dtype == torch.float32


def test_draws_are_distinct_and_uniform(linear, squared):
    probe = probe_of(linear(), squared, sampling="full")
    seeds = probe._seeds(np.arange(2000))
    assert len(np.unique(seeds)) == 8000
    assert not np.isin(seeds, image_seeds(3, np.arange(8000))).any()
    t = probe._positions(seeds[2])
    assert 0 <= t.min() < t.max() < 1
    assert np.abs(np.sort(t) - (np.arange(2000) + 0.5) / 2000).max() < 0.04  # Kolmogorov: 1.36 / sqrt(2000)
    assert (probe_of(linear(), squared)._positions(seeds[2]) == 0).all()
    assert (probe_of(linear(), squared, seed=4)._seeds(np.arange(5)) != seeds[:, :5]).all()


def test_the_path_fits_the_generator(linear, squared):
    """A normalising mapping takes the published path; a prior that must keep its length keeps it."""
    cases = [
        (linear(), "w", "lerp"),
        (linear(), "z", "slerp-unit"),
        (linear(normalises=False), "z", "slerp"),
        (linear(spaces=("z",)), "z", "slerp"),
        (linear(num_classes=5), "z", "slerp-unit"),
    ]
    for generator, space, path in cases:
        assert probe_of(generator, squared, space=space).interpolation == path
    g = linear()
    unit, kept = (rows_of(probe_of(g, squared, space="z", interpolation=i)) for i in ("slerp-unit", "slerp"))
    assert kept.mean() == pytest.approx(unit.mean(), rel=1e-4)  # such a mapping sees directions only


def test_crop_and_box_average():
    ramp = torch.arange(16.0)
    image = (100 * ramp[:, None] + ramp[None, :]).expand(1, 3, 16, 16)
    cut = prepare(image, crop=True)
    assert cut.shape == (1, 3, 8, 8)
    assert cut[0, 0, 0, 0] == 604
    assert cut[0, 0, -1, -1] == 1311
    assert prepare(image, crop=False) is image
    large = torch.randn(1, 3, 512, 512)
    boxed = box_average(large)
    np.testing.assert_allclose(boxed, large.view(1, 3, 256, 2, 256, 2).mean((3, 5)), rtol=1e-4, atol=1e-6)
    assert box_average(torch.zeros(1, 3, 511, 511)).shape == (1, 3, 511, 511)
    assert box_average(torch.zeros(1, 3, 600, 600)).shape == (1, 3, 300, 300)
    assert prepare(torch.zeros(1, 3, 1024, 1024), crop=True).shape == (1, 3, 256, 256)
    with pytest.raises(InvalidInputError, match="boxes of 2"):
        box_average(torch.zeros(1, 3, 513, 513))
    with pytest.raises(InvalidInputError, match="square"):
        prepare(torch.zeros(1, 3, 16, 8), crop=True)


def test_crop_changes_the_row(linear, squared):
    whole, cut = (rows_of(probe_of(linear(side=16), squared, crop=crop), 64) for crop in (False, True))
    assert (cut < whole).all()
    assert cut.mean() == pytest.approx(whole.mean() / 4, rel=0.2)


def test_images_are_never_quantised(linear, squared):
    g = linear()
    g.synthesis = lambda latents, **_: torch.zeros(len(latents), 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UsageError, match="float"):
        rows_of(probe_of(g, squared), 2)
    g.synthesis = lambda latents, **_: torch.full((len(latents), 3, 8, 8), torch.nan)
    with pytest.raises(InvalidInputError, match="not finite"):
        rows_of(probe_of(g, squared), 2)


def test_the_spec_holds_every_choice(linear, squared):
    base = probe_of(linear(), squared, space="z")
    digests = {base.spec.digest()}
    for change in (
        {"seed": 4}, {"space": "w"}, {"sampling": "full"}, {"epsilon": 1e-3}, {"crop": True},
        {"interpolation": "slerp"},
    ):  # fmt: skip
        digests.add(probe_of(linear(), squared, **({"space": "z"} | change)).spec.digest())
    digests.add(probe_of(linear(scale=0.03), squared, space="z").spec.digest())
    other = type("Other", (), {"spec": dataclasses.replace(squared.spec, name="other"), "distance": None})()
    digests.add(probe_of(linear(), other, space="z").spec.digest())
    assert len(digests) == 9
    assert probe_of(linear(), squared, space="z").spec == base.spec


@pytest.mark.parametrize(
    ("change", "match"),
    [({"space": "w"}, "has z"), ({"space": "x"}, "has z"), ({"sampling": "start"}, "full or end"),
     ({"epsilon": 0.0}, "between 0 and 1"), ({"interpolation": "slurp"}, "did you mean"),
     ({"space": "z", "interpolation": "circle"}, "unknown interpolation")],
)  # fmt: skip
def test_what_cannot_be_walked_is_refused(linear, squared, change, match):
    chosen = {"space": "z"} | change
    with pytest.raises(UsageError) as error:
        probe_of(linear(spaces=("z",)), squared, **chosen)
    assert match in f"{error.value.message} {error.value.hint}"


def test_a_generator_without_latents_is_refused(squared):
    with pytest.raises(UsageError, match="shows none") as error:
        probe_of(GaussianTiles(), squared)
    assert "LatentGenerator" in error.value.hint


def test_w_is_walked_straight_and_heads_are_known(linear, squared):
    with pytest.raises(UsageError, match="straight"):
        probe_of(linear(), squared, interpolation="slerp")
    with pytest.raises(UsageError, match="no head"):
        probe_of(linear(), squared)(np.arange(2), ["pooled"])
