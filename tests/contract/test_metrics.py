"""The laws that each registered metric declares, and what every metric owes its reader."""

import dataclasses

import numpy as np
import pytest

from evalkit.core import About
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError
from evalkit.metrics import METRICS, SharedMetric, compute_all
from evalkit.spec import Score
from tests.contract.metric_cases import CASES, Reference, Side, case, compute, reference, side

KNOWN_LAWS = {
    "needs_reference", "ignores_reference", "zero_at_identity", "one_at_identity", "symmetric",
    "order_invariant", "non_negative", "at_most_one", "at_least_one", "detects_copies", "ranks_fidelity",
    "ranks_diversity", "ranks_noise",
}  # fmt: skip
every = pytest.mark.parametrize("name", METRICS)


def holding(law):
    """Names of the metrics that declare ``law``; a metric that declares nothing is caught elsewhere."""
    return pytest.mark.parametrize(
        "name", [name for name in METRICS if law in getattr(METRICS[name], "laws", ())]
    )


def test_every_case_is_of_a_registered_metric():
    assert set(CASES) <= set(METRICS)


@every
def test_declares_known_laws_and_its_facts(name):
    metric = METRICS[name]
    assert metric.laws, f"{name} declares no laws"
    assert metric.laws <= KNOWN_LAWS
    assert metric.name == name
    assert metric.title
    assert metric.better in ("lower", "higher")
    assert metric.reads in ("images", "pairs", "paths", "latents")
    assert metric.needs_reference == ("needs_reference" in metric.laws)
    assert metric.needs_reference != ("ignores_reference" in metric.laws)
    assert metric.needs_reference or not (metric.needs_bank or metric.needs_groups or metric.needs_held_out)


@every
def test_tells_a_newcomer_what_it_means(name):
    about = METRICS[name].about
    assert isinstance(about, About)
    for field in dataclasses.fields(about):
        text = getattr(about, field.name)
        assert len(text) >= 10, f"{name}: {field.name} says nothing"
        assert "\n" not in text
    assert any(digit.isdigit() for digit in about.source), "a source has a year"


@every
def test_is_plain_frozen_data_rebuilt_from_its_spec(name):
    metric = METRICS[name]()
    assert dataclasses.is_dataclass(metric)
    assert METRICS[name](**dict(metric.spec.params)) == metric
    assert metric.spec.kind == "metric"
    assert metric.spec.name == name
    if metric.reads == "images":
        assert metric.head in ("features", "logits")
    for field in dataclasses.fields(metric):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(metric, field.name, None)


@every
def test_scores_carry_an_error_bar_and_repeat(name):
    x, real = side(name, 0), reference(name, 1)
    score = compute(name, x, real)
    assert isinstance(score, Score)
    assert compute(name, x, real) == score
    assert score.n == len(x)
    assert score.block_sizes == (len(x) // 6,) * 6
    assert len(score.blocks) == 6
    assert score.n_reference == (70 if METRICS[name].needs_reference else 0)
    assert score.better == METRICS[name].better
    assert score.stderr > 0
    assert score.ci.low < score.value < score.ci.high
    assert score.ci.level == 0.95
    assert all(np.isfinite(v) for v in score.details.values())


@pytest.mark.parametrize("name", [name for name in METRICS if case(name).exact_blocks])
def test_blocks_are_the_metric_without_each_block(name):
    x, real = side(name, 2), reference(name, 3)
    score = compute(name, x, real)
    size = len(x) // 6
    for block, value in enumerate(score.blocks):
        rest = x.take(np.delete(np.arange(len(x)), np.s_[size * block : size * (block + 1)]))
        assert value == pytest.approx(compute(name, rest, real, blocks=1).value, rel=1e-6, abs=1e-12)


@every
def test_one_block_has_no_error_bar_or_that_of_a_mean(name):
    score = compute(name, side(name, 0), reference(name, 1), blocks=1)
    assert (score.bias_corrected, score.blocks) == (None, ())
    of_a_mean = score.ci is not None and score.ci.method != "jackknife-t"
    assert of_a_mean or (score.stderr, score.ci) == (None, None)


@every
def test_value_does_not_depend_on_the_blocks(name):
    x, real = side(name, 4), reference(name, 5)
    one, many = (compute(name, x, real, blocks=b) for b in (1, 7))
    assert many.value == pytest.approx(one.value, rel=1e-9)


@every
def test_too_few_images_are_refused_with_the_minimum(name):
    few = METRICS[name](**case(name).params).minimum_images - 1
    with pytest.raises(InvalidInputError, match="at least"):
        compute(name, side(name, 0).take(np.arange(few)), reference(name, 1), blocks=1)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(name, bad):
    if METRICS[name].reads == "pairs" and name != "clip-directional" and (np.isnan(bad) or name == "psnr"):
        pytest.skip("a pair without a region or of equal images is counted, see tests/metrics/test_paired.py")
    x = side(name, 0)
    x.rows[7, 0] = bad
    for blocks in (1, 6):
        with pytest.raises(InvalidInputError):
            compute(name, x, reference(name, 1), blocks=blocks)


@pytest.mark.fault("duplicate-images")
@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].reads == "images"])
def test_exact_duplicates_are_counted(name):
    x = side(name, 0)
    x.rows[50:53] = x.rows[0]
    assert any(w.startswith("3 of 60") for w in compute(name, x, reference(name, 1)).warnings)
    assert not any("duplicate" in w for w in compute(name, side(name, 0), reference(name, 1)).warnings)


@holding("needs_reference")
def test_a_missing_reference_is_an_error(name):
    with pytest.raises(NothingMeasuredError, match="reference"):
        compute(name, side(name, 0), None)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs_held_out])
def test_a_missing_held_out_reference_is_an_error(name):
    with pytest.raises(NothingMeasuredError, match="held-out"):
        compute(name, side(name, 0), Reference(side(name, 1)))


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs_labels])
def test_missing_labels_are_an_error(name):
    features = side(name, 0).in_blocks(6)
    metric = METRICS[name](**case(name).params)
    with pytest.raises((NothingMeasuredError, InvalidInputError), match=r"class|label"):
        metric.compute(
            dataclasses.replace(features, labels=None), reference(name, 1), rng=np.random.default_rng(0)
        )


@holding("needs_reference")
def test_other_dimensions_are_refused(name):
    x = side(name, 0)
    with pytest.raises(EvalkitError):
        compute(name, Side(x.rows[:, :4], x.labels, x.texts), reference(name, 1))


@holding("ignores_reference")
def test_the_reference_does_not_matter(name):
    assert compute(name, side(name, 0), None) == compute(name, side(name, 0), reference(name, 1))


@holding("zero_at_identity")
def test_zero_at_identity(name):
    x = side(name, 0)
    assert compute(name, x, Reference(x, side(name, 9))).value == pytest.approx(0, abs=1e-12)


@holding("one_at_identity")
def test_one_at_identity(name):
    x = side(name, 0)
    assert compute(name, x, Reference(x, side(name, 9))).value == 1.0


@holding("symmetric")
def test_symmetric(name):
    x, y = side(name, 0), side(name, 1, n=46, shift=0.0)
    forward, backward = compute(name, x, Reference(y)), compute(name, y, Reference(x))
    assert forward.value == pytest.approx(backward.value, rel=1e-9)


@holding("order_invariant")
def test_order_invariant(name):
    x, real = side(name, 0), reference(name, 1)
    mixed = x.take(np.random.default_rng(2).permutation(len(x)))
    assert compute(name, mixed, real).value == pytest.approx(compute(name, x, real).value, rel=1e-9)


@holding("detects_copies")
def test_copies_of_training_images_are_worse_than_fresh_draws(name):
    fresh, real = side(name, 0, shift=0.0), reference(name, 1)
    copied = real.side.take(np.arange(len(fresh)))
    near = Side(copied.rows + np.float32(1e-3), copied.labels, copied.texts)
    bad, good = compute(name, near, real).value, compute(name, fresh, real).value
    assert bad > good if METRICS[name].better == "lower" else bad < good


@pytest.mark.parametrize("seed", range(5))
@every
def test_range(name, seed):
    laws = METRICS[name].laws
    value = compute(name, side(name, seed, shift=seed / 2), reference(name, seed + 10)).value
    assert "non_negative" not in laws or value >= 0
    assert "at_most_one" not in laws or value <= 1
    assert "at_least_one" not in laws or value >= 1


@pytest.mark.parametrize("name", [n for n in METRICS if "detects_copies" not in METRICS[n].laws])
def test_better_points_the_right_way(name):
    """What is closer to the reference, sharper, more varied or more alike wins."""
    good, bad = side(name, 0, shift=0.0), side(name, 0, shift=2.5)
    real = reference(name, 1, n=80)
    near, far = compute(name, good, real).value, compute(name, bad, real).value
    assert near < far if METRICS[name].better == "lower" else near > far


def test_compute_all_shares_and_keeps_order(monkeypatch):
    from evalkit.metrics import compared

    calls = []
    real = compared.compare
    monkeypatch.setattr(
        compared, "compare", lambda *args, **kwargs: calls.append(kwargs) or real(*args, **kwargs)
    )
    generated, target = side("fd", 0).in_blocks(6), reference("fd", 1)
    names = ["recall", "fd", "density", "realism", "precision", "kd", "authpct", "coverage", "is", "f-score"]
    inputs = [(METRICS[name](), generated, target) for name in names]
    scores = compute_all(inputs, rng=lambda: np.random.default_rng(0))
    (call,) = calls
    assert [balls.k for balls in call["balls"]] == [3, 5]
    assert (call["realism"], call["authentic"]) == ([3], True)
    for name, score in zip(names, scores, strict=True):
        alone = METRICS[name]().compute(generated, target, rng=np.random.default_rng(0))
        assert score == alone
    other = side("fd", 2).in_blocks(6)
    precision = METRICS["precision"]()
    pair = [(precision, generated, target), (precision, other, target)]
    first, second = compute_all(pair, rng=lambda: np.random.default_rng(0))
    assert first != second
    assert isinstance(precision, SharedMetric)


def test_no_metric_depends_on_which_others_were_asked_for():
    generated, target = side("fd", 0).in_blocks(6), reference("fd", 1)
    kd = METRICS["kd"](subsets=5, subset_size=20)
    alone = compute_all([(kd, generated, target)], rng=lambda: np.random.default_rng(0))
    twice = compute_all([(kd, generated, target)] * 2, rng=lambda: np.random.default_rng(0))
    assert (alone[0], alone[0]) == twice
