"""C_T against scikit-learn and SciPy put together as the authors do, and the direction of its sign."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from evalkit.errors import InvalidInputError
from evalkit.numerics.clustering import kmeans, lloyd, nearest_centre, principal_axes, projected
from evalkit.numerics.data_copying import cell_distances, mann_whitney_z

CENTRES = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])


def clusters(seed, n, width=8, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)) * scale
    x[:, :2] += CENTRES[rng.integers(0, 3, n)]
    return x.astype(np.float32)


def peer(generated, training, held_out, components, tau_count):
    """The published recipe from its parts; three far clusters give k-means one answer whatever its seeds."""
    pca = PCA(components, svd_solver="full").fit(training.astype(np.float64))
    x, y, z = (pca.transform(s.astype(np.float64)) for s in (generated, training, held_out))
    cut = KMeans(3, n_init=10, random_state=0, tol=0).fit(y)
    cells = [cut.predict(s) for s in (x, y, z)]
    scores, weights = [], []
    for cell in range(3):
        if (cells[0] == cell).sum() <= tau_count:
            continue
        tree = NearestNeighbors(n_neighbors=1).fit(y[cells[1] == cell])
        a, b = (tree.kneighbors(s[c == cell])[0][:, 0] for s, c in ((x, cells[0]), (z, cells[2])))
        u = mannwhitneyu(a, b, alternative="less").statistic
        n, m = len(a), len(b)
        scores.append((u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12))
        weights.append(m)
    return np.dot(weights, scores) / np.sum(weights)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_recipe_of_the_authors_in_peer_packages(seed):
    generated, training, held_out = (
        clusters(seed, 150, scale=0.9),
        clusters(seed + 10, 300),
        clusters(seed + 20, 200),
    )
    ours = cell_distances(
        generated, training, held_out, cells=3, components=5, rng=np.random.default_rng(0)
    ).statistic(more_than=20)
    assert ours == pytest.approx(peer(generated, training, held_out, 5, 20), rel=1e-6)


def test_cells_with_too_few_samples_are_left_out_strictly():
    training, held_out = clusters(0, 300), clusters(1, 200)
    generated = clusters(2, 400)
    first = generated[(generated[:, 0] < 5) & (generated[:, 1] < 5)][:60]
    second = generated[generated[:, 0] > 5]
    for few, cells in ((20, 1), (21, 2)):
        x = np.concatenate([first, second[:few]])
        found = cell_distances(x, training, held_out, cells=3, components=64, rng=np.random.default_rng(0))
        z = found.z_scores()
        assert np.isfinite(z).sum() == 2
        counts = np.bincount(found.generated_cell, minlength=3)
        held = np.bincount(found.held_out_cell, minlength=3)
        used = counts > 20
        assert used.sum() == cells
        assert found.statistic(more_than=20) == pytest.approx(
            (held[used] @ z[used]) / held[used].sum(), rel=1e-12
        )
    assert found.statistic(more_than=60) is None


def test_copies_are_negative_and_noise_is_positive():
    training, held_out = clusters(0, 300), clusters(1, 300)
    rng = np.random.default_rng(2)
    copies = training[:150] + np.float32(0.01) * rng.standard_normal((150, 8)).astype(np.float32)
    values = [
        cell_distances(x, training, held_out, cells=3, components=64, rng=np.random.default_rng(0)).statistic(
            more_than=20
        )
        for x in (copies, clusters(3, 150), clusters(4, 150, scale=3.0))
    ]
    assert values[0] < -8
    assert abs(values[1]) < 3
    assert values[2] > 8


def test_z_score_without_ties_and_with():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(40), rng.standard_normal(50) + 0.3
    u = sum(float(a > b) + 0.5 * float(a == b) for a in x for b in y)
    expected = (u - 40 * 50 / 2 + 0.5) / np.sqrt(40 * 50 * 91 / 12)
    assert mann_whitney_z(x, y) == pytest.approx(expected, rel=1e-12)
    x, y = np.round(x), np.round(y)
    assert mann_whitney_z(x, y) == pytest.approx(
        (mannwhitneyu(x, y).statistic - 999.5) / np.sqrt(40 * 50 * 91 / 12), rel=1e-12
    )
    assert np.isnan(mann_whitney_z(x[:0], y))


def test_lloyd_against_scikit_learn_from_equal_centres():
    x = np.random.default_rng(0).standard_normal((200, 4))
    start = x[:5]
    theirs = KMeans(5, init=start, n_init=1, tol=0, algorithm="lloyd").fit(x)
    np.testing.assert_allclose(lloyd(x, start), theirs.cluster_centers_, rtol=1e-9)
    np.testing.assert_array_equal(nearest_centre(x, lloyd(x, start)), theirs.labels_)


def test_kmeans_repeats_and_is_as_good_as_scikit_learn():
    x = clusters(5, 300).astype(np.float64)
    ours = kmeans(x, clusters=3, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(ours, kmeans(x, clusters=3, rng=np.random.default_rng(1)))
    theirs = KMeans(3, n_init=10, random_state=0, tol=0).fit(x)
    inertia = np.square(x - ours[nearest_centre(x, ours)]).sum()
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-9)


def test_an_empty_cell_keeps_its_centre():
    x = np.array([[0.0], [1.0]])
    assert lloyd(x, np.array([[0.5], [99.0]])).tolist() == [[0.5], [99.0]]


@pytest.mark.parametrize("shape", [(60, 6), (5, 9)])
def test_principal_axes_against_scikit_learn(shape):
    x = np.random.default_rng(0).standard_normal(shape) * np.arange(1, shape[1] + 1)
    mean, axes = principal_axes(x, 3)
    theirs = PCA(3, svd_solver="full").fit(x)
    np.testing.assert_allclose(mean, theirs.mean_, atol=1e-12)
    np.testing.assert_allclose(np.abs(axes.T), np.abs(theirs.components_), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        np.abs(projected(x, mean, axes)), np.abs(theirs.transform(x)), rtol=1e-8, atol=1e-10
    )
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()


def test_errors():
    good, rng = clusters(0, 40), np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match="no held-out image"):
        cell_distances(good, good, good[:3] * 0 + 99, cells=3, components=64, rng=rng)
    with pytest.raises(InvalidInputError, match="distinct"):
        cell_distances(good, np.ones_like(good), good, cells=3, components=64, rng=rng)
    for bad in (good[:, :3], good * np.nan, good[:1]):
        with pytest.raises(InvalidInputError):
            cell_distances(good, bad, good, cells=3, components=64, rng=rng)
        with pytest.raises(InvalidInputError):
            cell_distances(good, good, bad, cells=3, components=64, rng=rng)
