"""The Fréchet distance against 50-digit arithmetic, closed forms, laws and the peers."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import (
    block_edges,
    frechet,
    frechet_distance,
    frechet_distance_between,
    frechet_distance_from_features,
    frechet_distance_to,
    frechet_without_blocks,
    gaussian_factor,
    gaussian_factor_from_features,
)
from evalkit.numerics.linalg import gram_nuclear_norm, psd_factor


def moments(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def exact_from_features(a, b):
    """Nuclear norm of the centred features' product in 50 digits."""
    with mpmath.workdps(50):
        sides = []
        for rows in (a, b):
            x = mpmath.matrix(rows.tolist())
            mean = [sum(x[i, j] for i in range(x.rows)) / x.rows for j in range(x.cols)]
            scale = mpmath.sqrt(x.rows - 1)
            factor = mpmath.matrix(x.cols, x.rows)
            for i, j in itertools.product(range(x.rows), range(x.cols)):
                factor[j, i] = (x[i, j] - mean[j]) / scale
            sides.append((mean, factor))
        (mean_a, f), (mean_b, g) = sides
        return float(
            sum((p - q) ** 2 for p, q in zip(mean_a, mean_b, strict=True))
            + sum(v * v for v in f)
            + sum(v * v for v in g)
            - 2 * sum(mpmath.svd_r(f.T * g, compute_uv=False))
        )


def exact_from_moments(mean_a, cov_a, mean_b, cov_b):
    """Eigenvalues of R S R with R the root of the first covariance, in 50 digits."""
    with mpmath.workdps(50):
        s, t = mpmath.matrix(cov_a.tolist()), mpmath.matrix(cov_b.tolist())
        values, vectors = mpmath.eigsy(s)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values])
        inner = mpmath.eigsy(root.T * t * root, eigvals_only=True)
        offset = sum(
            (mpmath.mpf(p) - mpmath.mpf(q)) ** 2
            for p, q in zip(mean_a.tolist(), mean_b.tolist(), strict=True)
        )
        trace = sum(s[i, i] + t[i, i] for i in range(s.rows))
        return float(offset + trace - 2 * sum(mpmath.sqrt(max(v, 0)) for v in inner))


SCALES = {"well": 0, "cov-1e6": -3, "cov-1e12": -6}


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("exponent", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize(("n", "m"), [(12, 10), (4, 3), (4, 30), (7, 8)])
def test_features_against_fifty_digits(n, m, exponent, rotated):
    rng = np.random.default_rng([n, m, -exponent, rotated])
    scale = np.logspace(0, exponent, 6)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0] if rotated else np.eye(6)
    a = rng.standard_normal((n, 6)) * scale @ turn
    b = rng.standard_normal((m, 6)) * scale @ turn + 0.1
    assert frechet_distance_from_features(a, b) == pytest.approx(exact_from_features(a, b), rel=1e-12)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("exponent", SCALES.values(), ids=SCALES)
def test_covariances_against_fifty_digits(exponent, rotated):
    rng = np.random.default_rng([-exponent, rotated])
    scale = np.logspace(0, exponent, 8)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0] if rotated else np.eye(8)
    a = moments(rng.standard_normal((30, 8)) * scale @ turn)
    b = moments(rng.standard_normal((30, 8)) * scale @ turn)
    assert frechet_distance(*a, *b) == pytest.approx(exact_from_moments(*a, *b), rel=1e-10)


def test_singular_covariances_with_exact_entries():
    # Integer factors: the covariances are exact in float64, so their null directions are exactly null.
    rng = np.random.default_rng(5)
    f, g = rng.integers(-4, 5, (7, 3)).astype(float), rng.integers(-4, 5, (7, 7)).astype(float)
    zero = np.zeros(7)
    for left, right in [(f, g), (f, f[::-1].copy()), (g, f)]:
        with mpmath.workdps(50):
            p, q = mpmath.matrix(left.tolist()), mpmath.matrix(right.tolist())
            nuclear = sum(mpmath.svd_r(p.T * q, compute_uv=False))
            exact = float(sum(v * v for v in p) + sum(v * v for v in q) - 2 * nuclear)
        measured = frechet_distance(zero, left @ left.T, zero, right @ right.T)
        assert measured == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_tiny_distances_do_not_cancel(gap):
    rng = np.random.default_rng(11)
    a = rng.standard_normal((40, 5))
    b = a + gap * rng.standard_normal(a.shape)
    exact = exact_from_features(a, b)
    assert frechet_distance_from_features(a, b) == pytest.approx(exact, rel=1e-8)
    by_moments = frechet_distance(*moments(a), *moments(b))
    # Covariances know the features only to eps: their distance is uncertain by eps / gap.
    assert by_moments == pytest.approx(exact, rel=max(1e-8, 1e-15 / gap))


def test_closed_form_of_commuting_covariances():
    mean = np.array([1.0, 2.0, -1.0])
    variances_a, variances_b = np.array([1.0, 4.0, 9.0]), np.array([16.0, 1.0, 0.25])
    expected = mean @ mean + ((np.sqrt(variances_a) - np.sqrt(variances_b)) ** 2).sum()
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    measured = frechet_distance(np.zeros(3), turn * variances_a @ turn.T, mean, turn * variances_b @ turn.T)
    assert measured == pytest.approx(expected, rel=1e-12)


def test_closed_form_in_one_dimension_and_of_two_by_two():
    assert frechet_distance(
        np.array([1.0]), np.array([[4.0]]), np.array([4.0]), np.array([[9.0]])
    ) == pytest.approx(10)
    # tr sqrt(M) of a 2x2 matrix is sqrt(tr M + 2 sqrt(det M)).
    s, t = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    root = math.sqrt(np.trace(s @ t) + 2 * math.sqrt(np.linalg.det(s @ t)))
    assert frechet_distance(np.zeros(2), s, np.zeros(2), t) == pytest.approx(
        np.trace(s + t) - 2 * root, rel=1e-12
    )


def test_zero_covariances_leave_the_means():
    zero = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zero, np.full(3, 2.0), zero) == 12.0
    assert frechet_distance(np.zeros(3), zero, np.zeros(3), np.eye(3)) == 3.0


features = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(rng=features, n=st.integers(2, 12), m=st.integers(2, 12), d=st.integers(1, 8), log=st.integers(-6, 6))
def test_laws(rng, n, m, d, log):
    a = rng.standard_normal((n, d)) * 10.0**log
    b = rng.standard_normal((m, d)) * 10.0**log + 10.0**log
    distance = frechet_distance_from_features(a, b)
    assert distance >= 0
    assert frechet_distance_from_features(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance_from_features(rng.permutation(a), b) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance_from_features(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-9)
    assert frechet_distance_from_features(a, a) <= 1e-24 * np.square(a).sum()
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert frechet_distance_from_features(a @ turn, b @ turn) == pytest.approx(distance, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(rng=features, n=st.integers(9, 30), d=st.integers(1, 8))
def test_features_and_moments_agree(rng, n, d):
    a, b = rng.standard_normal((n, d)), rng.standard_normal((n + 3, d)) * 2
    by_moments = frechet_distance(a.mean(0), np.cov(a.T).reshape(d, d), b.mean(0), np.cov(b.T).reshape(d, d))
    assert by_moments == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)
    assert by_moments >= 0


def test_against_the_peers(monkeypatch):
    from pytorch_fid import fid_score
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    # The peer passes ``disp=False``, which newer SciPy warns of and then drops: the same root, asked plainly.
    root = fid_score.linalg.sqrtm
    monkeypatch.setattr(fid_score.linalg, "sqrtm", lambda matrix, disp: (root(matrix), disp))
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((200, 12)) + 1, rng.standard_normal((150, 12)) * 1.5
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    ours = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert ours == pytest.approx(fid_score.calculate_frechet_distance(mean_a, cov_a, mean_b, cov_b), rel=1e-6)
    peer = fid_statistics_to_metric(
        {"mu": mean_a, "sigma": cov_a}, {"mu": mean_b, "sigma": cov_b}, verbose=False
    )
    assert ours == pytest.approx(peer["frechet_inception_distance"], rel=1e-6)
    assert frechet_distance_from_features(a, b) == pytest.approx(ours, rel=1e-10)


@pytest.mark.parametrize("decay", [2, 8, 14, 20])
@pytest.mark.parametrize("rotated", [False, True])
def test_gram_form_of_graded_factors_keeps_its_stated_error(decay, rotated):
    """GRADED_ERROR in the module rests on this."""
    rng, d, n = np.random.default_rng([decay, rotated]), 300, 1200
    turns = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2)]
    spread = np.exp(-np.arange(d) / d * decay)
    a = rng.standard_normal((n, d)) * spread @ turns[0]
    b = rng.standard_normal((n, d)) * spread @ turns[int(rotated)]
    factors = [gaussian_factor(*moments(x)) for x in (a, b)]
    cross = factors[0].factor.T @ factors[1].factor
    exact = np.linalg.svd(cross, compute_uv=False).sum()
    assert gram_nuclear_norm(cross)[0] == pytest.approx(exact, rel=5e-12)
    assert frechet_distance_between(*factors) == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)


SPECTRA = {
    "flat": np.ones(300),
    "smooth": np.exp(-np.arange(300) / 30),
    "steep": 1 / np.arange(1, 301) ** 3.0,
    "few large": np.where(np.arange(300) < 5, 1, 1e-5),
    "half": np.where(np.arange(300) < 150, 1, 1e-5),
    "few small": np.where(np.arange(300) < 295, 1, 1e-5),
}


@pytest.mark.parametrize("spread", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("rotated", [False, True])
def test_the_error_that_is_told_holds_for_spectra_with_gaps(spread, rotated):
    rng = np.random.default_rng([int(spread.sum()), rotated])
    turns = [np.linalg.qr(rng.standard_normal((300, 300)))[0] for _ in range(2)]
    a = rng.standard_normal((1000, 300)) * spread @ turns[0]
    b = rng.standard_normal((1000, 300)) * spread * 1.1 @ turns[int(rotated)]
    factors = [gaussian_factor(*moments(x)) for x in (a, b)]
    cross = factors[0].factor.T @ factors[1].factor
    singular = np.linalg.svd(cross, compute_uv=False)
    nuclear, error = frechet._nuclear_norm(cross, *factors)
    assert abs(nuclear - singular.sum()) <= error + 1e-14 * nuclear
    offset = np.square(factors[0].mean - factors[1].mean).sum()
    exact = offset + factors[0].trace + factors[1].trace - 2 * singular.sum()
    assert frechet_distance_between(*factors) == pytest.approx(exact, rel=1e-9)


def test_smooth_spectra_need_no_singular_values(monkeypatch):
    rng = np.random.default_rng(8)
    turn, spread = np.linalg.qr(rng.standard_normal((300, 300)))[0], np.exp(-np.arange(300) / 60)
    a, b = (moments(rng.standard_normal((900, 300)) * spread * scale @ turn) for scale in (1, 1.1))
    monkeypatch.setattr(np.linalg, "svd", pytest.fail)
    assert frechet_distance(*a, *b) > 0


def test_cached_factor_gives_the_same_distance():
    rng = np.random.default_rng(1)
    a, b = moments(rng.standard_normal((50, 6))), moments(rng.standard_normal((40, 6)))
    cached = gaussian_factor(*b)
    assert frechet_distance_to(cached, mean=a[0], cov=a[1]) == frechet_distance(*a, *b)
    assert cached.trace == pytest.approx(np.trace(b[1]), rel=1e-14)


@pytest.mark.parametrize("n", [24, 40, 90])
def test_without_blocks_is_the_distance_of_the_rest(n):
    rng = np.random.default_rng(n)
    x, other = rng.standard_normal((n, 30)) + 0.5, rng.standard_normal((70, 30))
    reference = gaussian_factor_from_features(other)
    edges = block_edges(n, 5)
    measured = frechet_without_blocks(x, edges, reference)
    for value, (start, stop) in zip(measured, itertools.pairwise(edges), strict=True):
        rest = np.delete(x, np.s_[start:stop], axis=0)
        assert value == pytest.approx(frechet_distance_from_features(rest, other), rel=1e-8)


def test_without_blocks_of_duplicated_features():
    x = np.repeat(np.random.default_rng(0).standard_normal((6, 20)), 3, axis=0)
    other = np.random.default_rng(1).standard_normal((50, 20))
    measured = frechet_without_blocks(x, (0, 9, 18), gaussian_factor_from_features(other))
    expected = [frechet_distance_from_features(rest, other) for rest in (x[9:], x[:9])]
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_chunked_qr_is_the_factor_of_the_covariance():
    x = np.random.default_rng(2).standard_normal((100, 4)).astype(np.float32)
    factor = gaussian_factor_from_features(x)
    np.testing.assert_allclose(
        factor.factor @ factor.factor.T, np.cov(x.astype(float), rowvar=False), rtol=1e-10
    )


BAD = {
    "nan": (np.zeros(2), np.array([[1.0, np.nan], [np.nan, 1.0]])),
    "infinite mean": (np.array([0.0, np.inf]), np.eye(2)),
    "not symmetric": (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])),
    "indefinite": (np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])),
    "negative": (np.zeros(2), np.diag([1.0, -1e-3])),
    "hollow": (np.zeros(2), np.array([[0.0, 1.0], [1.0, 0.0]])),
    "shape": (np.zeros(3), np.eye(2)),
    "vector": (np.zeros(2), np.ones(2)),
    "empty": (np.zeros(0), np.zeros((0, 0))),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_broken_moments_are_refused(bad):
    with pytest.raises(InvalidInputError):
        frechet_distance(*bad, np.zeros(2), np.eye(2))
    with pytest.raises(InvalidInputError):
        frechet_distance(np.zeros(2), np.eye(2), *bad)


def test_dimensions_must_agree():
    with pytest.raises(InvalidInputError, match="2 and 3"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(InvalidInputError, match="2 features"):
        frechet_without_blocks(np.ones((4, 2)), (0, 2, 4), gaussian_factor(np.zeros(3), np.eye(3)))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 3)),
        np.zeros(3),
        np.full((4, 3), np.nan),
        np.zeros((4, 3), dtype=np.int64),
        np.zeros((4, 0)),
    ],
)
def test_broken_features_are_refused(bad):
    with pytest.raises(InvalidInputError):
        frechet_distance_from_features(bad, np.random.default_rng(0).standard_normal((4, 3)))


def test_rounding_below_zero_is_not_refused():
    x = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    stored = np.cov(x, rowvar=False).astype(np.float32)  # rank 4 of 9, rounded: slightly negative eigenvalues
    assert np.linalg.eigvalsh(stored.astype(float))[0] < 0
    assert psd_factor(stored).shape[1] < 9
