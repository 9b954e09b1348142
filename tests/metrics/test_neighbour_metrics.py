"""F score, realism, AuthPct, C_T and FLD: what each reports beyond the contract."""

import dataclasses
import itertools

import numpy as np
import pytest

from evalkit.core import About, FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics import METRICS, compared, compute_all
from evalkit.metrics.authenticity import AuthPct
from evalkit.metrics.ct import DataCopying
from evalkit.metrics.f_score import FScore, f_score
from evalkit.metrics.fld import FeatureLikelihoodDivergence, drawn
from evalkit.metrics.precision_recall import Coverage, Precision, Recall
from evalkit.metrics.realism import Realism
from evalkit.numerics import block_edges
from evalkit.numerics.data_copying import cell_distances
from evalkit.numerics.likelihood import feature_likelihood
from evalkit.numerics.manifolds import Balls
from evalkit.numerics.memorisation import authentic_rows
from evalkit.numerics.realism import realism_scores

NEW = (FScore(), Realism(), AuthPct(), DataCopying(), FeatureLikelihoodDivergence())
each = pytest.mark.parametrize("metric", NEW, ids=lambda metric: metric.name)


class HeldOutMissing:
    def __init__(self, bank, count=None):
        self.bank = bank
        self.count = len(bank) if count is None else count

    @property
    def held_out(self):
        raise NothingMeasuredError("no held-out reference")


class Reference(HeldOutMissing):
    def __init__(self, bank, held_out, count=None):
        super().__init__(bank, count)
        self._held_out = HeldOutMissing(held_out)

    @property
    def held_out(self):
        return self._held_out


def features(seed, n, d=6, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def in_blocks(x, blocks):
    return FeatureSet(tuple(x[i:j] for i, j in itertools.pairwise(block_edges(len(x), blocks))))


def compute(metric, x, reference, blocks=6):
    return metric.compute(in_blocks(x, blocks), reference, rng=np.random.default_rng(0))


REFERENCE = Reference(features(1, 240), features(2, 150))


@each
def test_is_registered_documented_and_rebuilt_from_its_spec(metric):
    assert isinstance(METRICS[metric.name](), type(metric))
    assert METRICS[metric.name](**dict(metric.spec.params)) == metric
    for text in dataclasses.astuple(metric.about):
        assert len(text) > 20
    assert metric.laws >= {"needs_reference", "order_invariant"}
    assert metric.needs_bank


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage"])
def test_the_rest_of_the_family_is_documented(name):
    assert isinstance(METRICS[name].about, About)


@each
def test_blocks_are_the_metric_without_each_block(metric):
    x = features(0, 120)
    score = compute(metric, x, REFERENCE)
    assert (score.n, score.n_reference, len(score.blocks)) == (120, 240, 6)
    assert score.stderr > 0
    assert score.better == metric.better
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[20 * block : 20 * block + 20], axis=0)
        assert value == pytest.approx(compute(metric, rest, REFERENCE, blocks=1).value, rel=1e-6, abs=1e-12)


@each
def test_order_and_blocks_do_not_matter(metric):
    x = features(0, 120)
    value = compute(metric, x, REFERENCE).value
    assert compute(metric, x, REFERENCE, blocks=1).value == pytest.approx(value, rel=1e-9)
    mixed = np.random.default_rng(5).permutation(x)
    assert compute(metric, mixed, REFERENCE).value == pytest.approx(value, rel=1e-9)


@each
def test_what_it_refuses(metric):
    x = features(0, 120)
    with pytest.raises(NothingMeasuredError, match="reference"):
        compute(metric, x, None)
    with pytest.raises(InvalidInputError, match=f"at least {metric.minimum_images}"):
        compute(metric, x[: metric.minimum_images - 1], REFERENCE, blocks=1)
    assert np.isfinite(compute(metric, x[: metric.minimum_images], REFERENCE, blocks=1).value)
    with pytest.raises(InvalidInputError, match="dimensions"):
        compute(metric, x[:, :3], REFERENCE)
    x[3, 2] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        compute(metric, x, REFERENCE)


@each
def test_duplicates_are_counted(metric):
    x = features(0, 120)
    x[110:113] = x[0]
    assert any(w.startswith("3 of 120") for w in compute(metric, x, REFERENCE).warnings)


@pytest.mark.parametrize("metric", [DataCopying(), FeatureLikelihoodDivergence()], ids=lambda m: m.name)
def test_held_out_images_are_needed(metric):
    assert metric.needs_held_out
    with pytest.raises(NothingMeasuredError, match="held-out"):
        compute(metric, features(0, 120), HeldOutMissing(features(1, 100)))


@pytest.mark.parametrize(
    "metric", [AuthPct(), DataCopying(), FeatureLikelihoodDivergence()], ids=lambda m: m.name
)
def test_it_sees_copies_and_says_when_it_cannot(metric):
    assert "detects_copies" in metric.laws
    noise = np.float32(0.01) * features(7, 120)
    honest, copied = (compute(metric, x, REFERENCE) for x in (features(0, 120), REFERENCE.bank[:120] + noise))
    worse = copied.value > honest.value if metric.better == "lower" else copied.value < honest.value
    assert worse
    assert abs(copied.value - honest.value) > 3 * honest.stderr
    part = Reference(REFERENCE.bank, features(2, 150), count=9000)
    assert any("240 of the 9000" in w for w in compute(metric, features(0, 120), part).warnings)


def test_f_score_is_the_harmonic_mean_and_shares_the_pass(monkeypatch):
    calls = []
    real = compared.compare
    monkeypatch.setattr(compared, "compare", lambda *a, **k: calls.append(k) or real(*a, **k))
    generated, reference = in_blocks(features(0, 120, shift=0.8), 6), REFERENCE
    metrics = (Precision(), FScore(beta=2.0), Recall(), FScore(), FScore(k=5, inclusive=False))
    p, f2, r, f1, other = compute_all(
        [(m, generated, reference) for m in metrics], rng=lambda: np.random.default_rng(0)
    )
    assert [c["balls"] for c in calls] == [[Balls(3), Balls(5, inclusive=False)]]
    assert 0 < p.value < r.value < 1 or 0 < r.value < p.value < 1
    assert f1.value == pytest.approx(2 / (1 / p.value + 1 / r.value), rel=1e-12)
    assert f2.value == pytest.approx(5 * p.value * r.value / (4 * p.value + r.value), rel=1e-12)
    assert f1.blocks[2] == pytest.approx(2 / (1 / p.blocks[2] + 1 / r.blocks[2]), rel=1e-12)
    assert other.value != f1.value


def coverage_scores(repetitions=150):
    """Coverage of 160 images of a perfect model, 200 reference images, 10 blocks."""
    bank = HeldOutMissing(features(1, 200))
    return [compute(Coverage(), features(1000 + r, 160), bank, blocks=10) for r in range(repetitions)]


def test_the_error_bar_of_coverage_is_steady_and_does_not_know_the_blocks():
    scores = coverage_scores()
    spread = np.std([s.value for s in scores], ddof=1)
    bars = np.array([s.stderr for s in scores])
    assert np.sqrt(np.mean(bars**2)) == pytest.approx(spread, rel=0.18)  # known to 6 %
    assert bars.std() < 0.3 * bars.mean()  # 0.43 by the pairs of blocks
    x, bank = features(0, 120, shift=0.5), HeldOutMissing(features(1, 200))
    few, many = (compute(Coverage(), x, bank, blocks=b) for b in (3, 20))
    assert few.stderr == pytest.approx(many.stderr, rel=1e-9)
    mixed = compute(Coverage(), x[np.random.default_rng(0).permutation(120)], bank, blocks=20)
    assert mixed.stderr == pytest.approx(many.stderr, rel=1e-9)


@pytest.mark.parametrize(
    ("metric", "shift", "counted"),
    [(Coverage(), 0.0, "of 40 images"), (Recall(), 50.0, "only 0 of 40 images"),
     (Precision(), 50.0, "only 0 of 120 images"), (Precision(), 0.8, None)],
)  # fmt: skip
def test_a_share_next_to_its_bound_says_so(metric, shift, counted):
    score = compute(metric, features(0, 120, shift=shift), HeldOutMissing(features(1, 40)))
    found = [w for w in score.warnings if "off its bound" in w]
    assert len(found) == (counted is not None)
    assert all(counted in warning for warning in found)


def test_f_score_ends_and_errors():
    from sklearn.metrics import fbeta_score

    assert f_score(0.0, 0.0) == 0.0
    assert f_score(1.0, 0.0) == 0.0
    assert f_score(1.0, 1.0, beta=7.0) == 1.0
    # 3 hits, 1 false alarm, 2 misses: precision 3/4, recall 3/5.
    truth, said = [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]
    for beta in (0.5, 1.0, 3.0):
        assert f_score(3 / 4, 3 / 5, beta=beta) == pytest.approx(
            fbeta_score(truth, said, beta=beta), rel=1e-12
        )
    for beta in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InvalidInputError, match="beta"):
            f_score(3 / 4, 3 / 5, beta=beta)
        with pytest.raises(UsageError, match="beta"):
            FScore(beta=beta)


def test_realism_headline_and_median():
    x = features(0, 121, shift=0.5)
    score = compute(Realism(), x, REFERENCE, blocks=4)
    by_image = realism_scores(x, REFERENCE.bank, k=3)
    assert score.value == (by_image >= 1).mean()
    assert score.details == {"median_score": np.median(by_image)}
    copied = compute(Realism(), REFERENCE.bank, REFERENCE)
    assert 0.5 <= copied.value <= 1
    near, far = (compute(Realism(), features(0, 100, shift=s), REFERENCE).value for s in (0.0, 2.0))
    assert near > far


def test_authpct_is_a_percentage():
    x = features(0, 120)
    score = compute(AuthPct(), x, REFERENCE)
    assert score.value == pytest.approx(100 * authentic_rows(x, REFERENCE.bank).mean(), rel=1e-12)
    assert compute(AuthPct(), REFERENCE.bank, REFERENCE).value == 0
    assert compute(AuthPct(), features(0, 60, shift=50.0), REFERENCE).value == 100


def test_ct_headline_details_and_warnings():
    score = compute(DataCopying(), features(0, 120), REFERENCE)
    found = cell_distances(
        features(0, 120), REFERENCE.bank, REFERENCE.held_out.bank, cells=3, components=64,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert score.value == found.statistic(more_than=20)
    assert [score.details[f"z_cell_{c}"] for c in range(3)] == list(found.z_scores())
    one_cell = compute(
        DataCopying(), features(0, 61) * np.float32(0.01) + REFERENCE.bank[0], REFERENCE, blocks=1
    )
    assert one_cell.warnings[0].startswith("2 of 3 cells hold 20 generated images or fewer")
    with pytest.raises(UsageError, match="0 cells"):
        DataCopying(cells=0)


def test_ct_without_an_error_bar_where_a_block_is_all_of_a_cell():
    x = features(0, 70) * np.float32(0.01) + REFERENCE.bank[0]
    score = DataCopying().compute(FeatureSet((x[:55], x[55:])), REFERENCE, rng=np.random.default_rng(0))
    assert score.stderr is None


def test_fld_headline_details_and_warnings():
    x = features(0, 120)
    score = compute(FeatureLikelihoodDivergence(), x, REFERENCE)
    value = feature_likelihood(
        [x], REFERENCE.bank, REFERENCE.held_out.bank, rng=np.random.default_rng(0)
    ).value
    assert score.value == pytest.approx(value.divergence, rel=1e-12)
    assert score.details["generalisation_gap"] == pytest.approx(value.generalisation_gap, rel=1e-12)
    assert score.warnings == ()
    few = compute(FeatureLikelihoodDivergence(), features(0, 121), REFERENCE, blocks=1)
    assert any("fewer than two training images" in w for w in few.warnings)
    copies = compute(FeatureLikelihoodDivergence(), REFERENCE.bank[:120], REFERENCE, blocks=1)
    assert any("evalkit memorisation" in w for w in copies.warnings)
    assert np.isfinite(copies.value)


def test_fld_draws_as_many_as_published():
    x = features(0, 120)
    used = drawn(in_blocks(x, 6), 50, rng=np.random.default_rng(1))
    assert used.count == 50
    rows = [np.flatnonzero((x == row).all(axis=1))[0] for row in used.stacked()]
    assert rows == sorted(set(rows))
    assert [sum(20 * b <= r < 20 * b + 20 for r in rows) for b in range(6)] == list(used.sizes)
    score = compute(FeatureLikelihoodDivergence(size=50), x, REFERENCE)
    assert (score.n, score.block_sizes) == (
        50,
        compute(FeatureLikelihoodDivergence(size=50), x, REFERENCE).block_sizes,
    )
    with pytest.raises(UsageError, match="size"):
        FeatureLikelihoodDivergence(size=1)
