"""The one pass over distances against plain matrices, where ties, duplicates and blocks are of every kind."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.core import FeatureSet
from evalkit.metrics import METRICS, compute_all
from evalkit.numerics import products, tiles
from evalkit.numerics.comparison import compare, nearest_distances
from evalkit.numerics.distances import nearest_other_rows, nearest_rows
from evalkit.numerics.gaussian_mmd import gaussian_sums
from evalkit.numerics.manifolds import Balls, ManifoldScores
from evalkit.numerics.mmd import kernel_sums_and_subsets
from evalkit.numerics.neighbourhoods import PROBED
from evalkit.numerics.products import products_on

KINDS = ("normal", "grid", "copies", "constant", "near copies", "wide", "narrow", "sorted", "offset")
NAMES = ("precision", "recall", "density", "coverage", "f-score", "realism", "authpct")


def sides(kind, n, m, rng):
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    if kind == "grid":
        x, y = (rng.integers(0, 3, side.shape) * 1.0 for side in (x, y))
    elif kind == "copies":
        x = y[rng.integers(0, m, n)]
    elif kind == "constant":
        x = np.ones((n, 3))
    elif kind == "near copies":
        y = np.repeat(y, 4, axis=0)[:m] + 1e-6 * y
        x = y[rng.integers(0, m, n)] + 1e-7 * x
    elif kind in ("wide", "narrow"):
        x *= {"wide": 50, "narrow": 0.01}[kind]
    elif kind == "sorted":
        x = x[x[:, 0].argsort()]
    elif kind == "offset":
        x, y = 1e-3 * x + 100, 1e-3 * y + 100
    return x, y


def plain(a, b):
    """Differences, no products; rounded as the distances are."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1)).astype(np.float32)


def radii(x, k):
    distances = plain(x, x)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, k - 1]


def by_definition(x, y, balls):
    distances = plain(x, y)
    ours, theirs = balls.hold(distances, radii(x, balls.k)[:, None]), balls.hold(distances, radii(y, balls.k))
    return ManifoldScores(
        precision=theirs.any(axis=1).mean(),
        recall=ours.any(axis=0).mean(),
        density=theirs.sum(axis=1).mean() / balls.k,
        coverage=theirs.any(axis=0).mean(),
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), m=st.integers(7, 40),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), k=st.integers(1, 5),
    inclusive=st.booleans(), rows=st.integers(1, 20), columns=st.integers(1, 20),
)  # fmt: skip
def test_everything_at_once_is_what_plain_matrices_give(seed, kind, m, sizes, k, inclusive, rows, columns):
    sizes = [k + 1, *sizes]
    x, y = sides(kind, sum(sizes), m, np.random.default_rng(seed))
    x, y = x - y.mean(axis=0), y - y.mean(axis=0)  # differences of near copies round as ours do
    parts = np.split(x, np.cumsum(sizes)[:-1])
    balls = [Balls(k, inclusive), Balls(2, inclusive=not inclusive), Balls(k, inclusive)]
    if len(x) < 3:
        balls = balls[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "ROWS", rows)
        patch.setattr(tiles, "COLUMNS", columns)
        patch.setattr(tiles, "PIECE_ENTRIES", 3 * columns)
        found = compare(parts, y, balls=balls, realism=[k, 1], authentic=True)
    for kind_of_ball, scores in found.manifolds.items():
        assert scores.scores == by_definition(x, y, kind_of_ball)
        for block, without in enumerate(scores.without):
            rest = np.concatenate(parts[:block] + parts[block + 1 :])
            assert without == by_definition(rest, y, kind_of_ball)
    assert len(found.manifolds) == len(set(balls))
    distances = plain(x, y)
    for neighbour, realism in found.realism.items():
        radius = radii(y, neighbour)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = radius.astype(np.float64) / distances
        ratio[np.isnan(ratio)] = 1.0
        expected = ratio[:, radius <= np.median(radius)].max(axis=1)
        np.testing.assert_allclose(realism, expected, rtol=3e-7)  # two distances rounded to float32
        np.testing.assert_array_equal(realism >= 1, expected >= 1)
    nearest = distances.argmin(axis=1)
    authentic = distances[np.arange(len(x)), nearest] > radii(y, 1)[nearest]
    np.testing.assert_array_equal(found.authentic, authentic)


def test_distances_are_those_of_nearest_rows():
    x = np.random.default_rng(0).standard_normal((700, 20)).astype(np.float32)
    np.testing.assert_array_equal(nearest_distances(x, 2)[:, :1], nearest_other_rows(x).distance)
    itself_first = nearest_rows(x, x, count=3).distance
    np.testing.assert_array_equal(nearest_distances(x, 2), itself_first[:, 1:])


class Bank:
    def __init__(self, bank):
        self.bank, self.count = bank, len(bank)


@pytest.fixture
def multiplied(monkeypatch):
    """Entries of every product that is made."""
    made = []
    tile = products._NumpyProducts.tile

    def counted(self, rows, right):
        out = tile(self, rows, right)
        made.append(out.size)
        return out

    monkeypatch.setattr(products._NumpyProducts, "tile", counted)
    return made


def test_the_whole_family_makes_every_product_once(multiplied, monkeypatch):
    monkeypatch.setattr(tiles, "COLUMNS", 30)
    rng = np.random.default_rng(1)
    n, m = 500, 400
    generated = FeatureSet(tuple(rng.standard_normal((20, 25, 8)).astype(np.float32)))
    bank = Bank(rng.standard_normal((m, 8)).astype(np.float32))

    def scores(names):
        return compute_all([(METRICS[name](), generated, bank) for name in names], rng=np.random.default_rng)

    together = scores(NAMES)
    # Half of each square, the squares on its diagonal whole; a probe of both sides.
    squares = (n * n + m * m) / 2 + 30 * (n + m) / 2 + 2 * PROBED**2
    assert n * m + (n * n + m * m) / 2 <= sum(multiplied) <= n * m + squares
    multiplied.clear()
    assert scores(NAMES[:5]) == together[:5]  # error bars of 20 blocks and all
    assert sum(multiplied) <= n * m + (n * n + 30 * n) / 2 + PROBED**2  # the reference's own are remembered
    multiplied.clear()
    assert scores(NAMES[5:]) == together[5:]
    assert sum(multiplied) == n * m


def test_one_pass_gives_both_kernel_distances(multiplied, monkeypatch):
    monkeypatch.setattr(tiles, "COLUMNS", 30)
    rng = np.random.default_rng(2)
    blocks, bank = list(rng.standard_normal((10, 30, 6))), rng.standard_normal((200, 6))
    sums, subsets = kernel_sums_and_subsets(blocks, bank, subsets=50, subset_size=60, rng=rng)
    assert sum(multiplied) <= 500 * 500 / 2 + 30 * 500 / 2
    assert sums.value() == pytest.approx(subsets.mean, abs=subsets.std)


@pytest.fixture
def three_threads():
    """Torch's, of which the processes of a test run have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("numpy_is_faster", [False, True])
@pytest.mark.parametrize("rows", [2048, 96])
def test_tiles_on_many_cores_give_the_same(rows, numpy_is_faster, monkeypatch):
    monkeypatch.setattr(products, "_numpy_is_faster", lambda: numpy_is_faster)
    monkeypatch.setattr(tiles, "ROWS", rows)
    monkeypatch.setattr(tiles, "COLUMNS", rows // 4)
    rng = np.random.default_rng(3)
    parts, y = list(rng.standard_normal((4, 200, 33))), rng.standard_normal((700, 33)) + 0.1
    asked = {"balls": [Balls(3), Balls(5, inclusive=False)], "realism": [3], "authentic": True}
    here = compare(parts, y, **asked)
    subsets = {"subsets": 6, "subset_size": 300}
    sums, mean = kernel_sums_and_subsets(parts, y, **subsets, rng=np.random.default_rng(0))
    gaussian = gaussian_sums(parts, y, sigma=10.0)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        with products_on("cpu"):
            own = nearest_distances.__wrapped__(y, 5)
            few = compare(parts, y, balls=asked["balls"])
            there = compare(parts, y, **asked)
            found.append(kernel_sums_and_subsets(parts, y, **subsets, rng=np.random.default_rng(0)))
            smooth = gaussian_sums(parts, y, sigma=10.0)
        assert here.manifolds == there.manifolds == few.manifolds
        np.testing.assert_array_equal(here.realism[3], there.realism[3])
        np.testing.assert_array_equal(here.authentic, there.authentic)
        np.testing.assert_array_equal(nearest_distances(y, 5), own)
        assert smooth.value() == pytest.approx(gaussian.value(), rel=1e-9)
    (one, one_mean), (three, three_mean) = found
    np.testing.assert_array_equal(three.within, one.within)
    np.testing.assert_array_equal(three.across, one.across)
    assert three_mean == one_mean
    np.testing.assert_allclose(three.within, sums.within, rtol=1e-12)
    np.testing.assert_allclose(three.across, sums.across, rtol=1e-12)
    assert three_mean.mean == pytest.approx(mean.mean, rel=1e-10)
    assert isinstance(products.products_of(y), products._NumpyProducts)


@settings(deadline=None)
@given(
    count=st.integers(1, 200),
    others=st.integers(1, 200),
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    together=st.integers(1, 4),
)
def test_parts_hold_every_pair_once(count, others, rows, columns, together):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ROWS", rows), ("COLUMNS", columns), ("TOGETHER", together)):
            patch.setattr(tiles, name, value)
        across, within = np.zeros((count, others)), np.zeros((count, count))
        for part in tiles.parts_across(count, others):
            for panel in part.rows:
                across[panel, part.columns] += 1
        for part in tiles.parts_within(count):
            for panel in part.rows:
                within[panel, part.columns] += 1
                if panel != part.columns:
                    within[part.columns, panel] += 1
    assert (across == 1).all()
    assert (within == 1).all()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_tiles_of_products(device):
    rng = np.random.default_rng(4)
    left, right = rng.standard_normal((50, 7)), rng.standard_normal((9, 7))
    if device is None:
        found = products.products_of(left)
    else:
        with products_on(device):
            found = products.products_of(left)
    for rows in (slice(0, 50), slice(10, 13), slice(5, 50)):
        np.testing.assert_allclose(found.tile(rows, right), left[rows] @ right.T, rtol=1e-12, atol=1e-14)


def test_kinds_of_sides_differ():
    rng = np.random.default_rng(5)
    made = [sides(kind, 9, 8, rng) for kind in KINDS]
    for (x, y), (u, v) in itertools.combinations(made, 2):
        assert not (np.array_equal(x, u) and np.array_equal(y, v))
