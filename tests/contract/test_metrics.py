"""The laws that each registered metric declares, and what every metric owes its reader."""

import dataclasses
import itertools

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError
from evalkit.metrics import METRICS, SharedMetric, compute_all
from evalkit.numerics import block_edges
from evalkit.spec import Score

KNOWN_LAWS = {
    "needs_reference", "ignores_reference", "zero_at_identity", "one_at_identity", "symmetric",
    "order_invariant", "non_negative", "at_most_one", "at_least_one",
}  # fmt: skip
every = pytest.mark.parametrize("name", METRICS)
WIDTH = 6


@dataclasses.dataclass(frozen=True)
class Reference:
    """The reference protocol over an array of features."""

    bank: np.ndarray

    @property
    def count(self):
        return len(self.bank)

    @property
    def mean(self):
        return self.bank.astype(np.float64).mean(axis=0)

    @property
    def covariance(self):
        return np.cov(self.bank.astype(np.float64), rowvar=False)


def features(seed, n=60, shift=0.3):
    return (np.random.default_rng(seed).standard_normal((n, WIDTH)) + shift).astype(np.float32)


def in_blocks(x, blocks=6):
    edges = block_edges(len(x), blocks)
    return FeatureSet(tuple(x[i:j] for i, j in itertools.pairwise(edges)))


def compute(name, x, reference, *, blocks=6, **params):
    return METRICS[name](**params).compute(in_blocks(x, blocks), reference, rng=np.random.default_rng(0))


def holding(law):
    """Names of the metrics that declare ``law``; a metric that declares nothing is caught elsewhere."""
    return pytest.mark.parametrize(
        "name", [name for name in METRICS if law in getattr(METRICS[name], "laws", ())]
    )


@every
def test_declares_known_laws_and_its_facts(name):
    metric = METRICS[name]
    assert metric.laws, f"{name} declares no laws"
    assert metric.laws <= KNOWN_LAWS
    assert metric.name == name
    assert metric.title
    assert metric.better in ("lower", "higher")
    assert metric.needs_reference == ("needs_reference" in metric.laws)
    assert metric.needs_reference != ("ignores_reference" in metric.laws)


@every
def test_is_plain_frozen_data_rebuilt_from_its_spec(name):
    metric = METRICS[name]()
    assert dataclasses.is_dataclass(metric)
    assert METRICS[name](**dict(metric.spec.params)) == metric
    assert metric.spec.kind == "metric"
    assert metric.spec.name == name
    assert metric.head in ("features", "logits")
    for field in dataclasses.fields(metric):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(metric, field.name, None)


@every
def test_scores_carry_an_error_bar_and_repeat(name):
    x, reference = features(0), Reference(features(1, 70, 0))
    score = compute(name, x, reference)
    assert isinstance(score, Score)
    assert compute(name, x, reference) == score
    assert (score.n, score.block_sizes, len(score.blocks)) == (60, (10,) * 6, 6)
    assert score.n_reference == (70 if METRICS[name].needs_reference else 0)
    assert score.better == METRICS[name].better
    assert score.stderr > 0
    assert score.ci.low < score.value < score.ci.high
    assert score.ci.level == 0.95
    assert all(np.isfinite(v) for v in score.details.values())


@every
def test_blocks_are_the_metric_without_each_block(name):
    x, reference = features(2), Reference(features(3, 70, 0))
    score = compute(name, x, reference)
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[10 * block : 10 * block + 10], axis=0)
        assert value == pytest.approx(compute(name, rest, reference, blocks=1).value, rel=1e-6, abs=1e-12)


@every
def test_one_block_has_no_error_bar(name):
    score = compute(name, features(0), Reference(features(1)), blocks=1)
    assert (score.stderr, score.ci, score.bias_corrected, score.blocks) == (None, None, None, ())


@every
def test_value_does_not_depend_on_the_blocks(name):
    x, reference = features(4), Reference(features(5))
    one, many = (compute(name, x, reference, blocks=b) for b in (1, 7))
    assert many.value == pytest.approx(one.value, rel=1e-9)


@every
def test_too_few_images_are_refused_with_the_minimum(name):
    with pytest.raises(InvalidInputError, match="at least"):
        compute(name, features(0, 1), Reference(features(1)), blocks=1)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(name, bad):
    x = features(0)
    x[7, 2] = bad
    for blocks in (1, 6):
        with pytest.raises(InvalidInputError):
            compute(name, x, Reference(features(1)), blocks=blocks)


@every
def test_exact_duplicates_are_counted(name):
    x = features(0)
    x[50:53] = x[0]
    assert any(w.startswith("3 of 60") for w in compute(name, x, Reference(features(1))).warnings)
    assert not any("duplicate" in w for w in compute(name, features(0), Reference(features(1))).warnings)


@holding("needs_reference")
def test_a_missing_reference_is_an_error(name):
    with pytest.raises(NothingMeasuredError, match="reference"):
        compute(name, features(0), None)


@holding("needs_reference")
def test_other_dimensions_are_refused(name):
    with pytest.raises(EvalkitError):
        compute(name, features(0)[:, :4], Reference(features(1)))


@holding("ignores_reference")
def test_the_reference_does_not_matter(name):
    assert compute(name, features(0), None) == compute(name, features(0), Reference(features(1)))


@holding("zero_at_identity")
def test_zero_at_identity(name):
    x = features(0)
    assert compute(name, x, Reference(x)).value == pytest.approx(0, abs=1e-12)


@holding("one_at_identity")
def test_one_at_identity(name):
    x = features(0)
    assert compute(name, x, Reference(x)).value == 1.0


@holding("symmetric")
def test_symmetric(name):
    x, y = features(0), features(1, 45, 0)
    forward, backward = compute(name, x, Reference(y)), compute(name, y, Reference(x))
    assert forward.value == pytest.approx(backward.value, rel=1e-9)


@holding("order_invariant")
def test_order_invariant(name):
    x, reference = features(0), Reference(features(1))
    mixed = np.random.default_rng(2).permutation(x)
    assert compute(name, mixed, reference).value == pytest.approx(compute(name, x, reference).value, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@every
def test_range(name, seed):
    laws = METRICS[name].laws
    value = compute(name, features(seed, shift=seed / 2), Reference(features(seed + 10))).value
    assert "non_negative" not in laws or value >= 0
    assert "at_most_one" not in laws or value <= 1
    assert "at_least_one" not in laws or value >= 1


@every
def test_better_points_the_right_way(name):
    """A generator close to the reference beats one far away; sharp varied logits beat flat ones."""
    if METRICS[name].needs_reference:
        reference = Reference(features(1, 80, 0))
        good, bad = features(0, 80, 0), features(0, 80, 2.5)
    else:
        reference, good, bad = None, features(0) * 20, features(0) * 0.1
    near, far = compute(name, good, reference).value, compute(name, bad, reference).value
    assert near < far if METRICS[name].better == "lower" else near > far


def test_compute_all_shares_and_keeps_order(monkeypatch):
    from evalkit.metrics import precision_recall

    calls = []
    real = precision_recall.manifold_scores
    monkeypatch.setattr(
        precision_recall,
        "manifold_scores",
        lambda *args, **kwargs: calls.append(kwargs) or real(*args, **kwargs),
    )
    generated, reference = in_blocks(features(0)), Reference(features(1))
    names = ["recall", "fd", "density", "precision", "kd", "coverage", "is"]
    inputs = [(METRICS[name](), generated, reference) for name in names]
    scores = compute_all(inputs, rng=lambda: np.random.default_rng(0))
    assert [call["k"] for call in calls] == [3, 5]
    for name, score in zip(names, scores, strict=True):
        assert score == compute(name, features(0), reference)
    other = in_blocks(features(2))
    precision = METRICS["precision"]()
    pair = [(precision, generated, reference), (precision, other, reference)]
    first, second = compute_all(pair, rng=lambda: np.random.default_rng(0))
    assert first != second
    assert isinstance(precision, SharedMetric)


def test_no_metric_depends_on_which_others_were_asked_for():
    generated, reference = in_blocks(features(0)), Reference(features(1))
    kd = METRICS["kd"](subsets=5, subset_size=20)
    alone = compute_all([(kd, generated, reference)], rng=lambda: np.random.default_rng(0))
    twice = compute_all([(kd, generated, reference)] * 2, rng=lambda: np.random.default_rng(0))
    assert (alone[0], alone[0]) == twice
