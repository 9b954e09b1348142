"""Precision, recall, density and coverage against their definition, the peers and a mode-collapse toy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import block_edges, distances, manifold_scores, precision_recall_density_coverage
from evalkit.numerics.neighbours import ManifoldScores


def by_definition(x, y, k, inclusive):
    """Full distance matrices, no tricks."""

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).astype(np.float32)

    inside = np.less_equal if inclusive else np.less
    radius_x, radius_y = (np.sort(distances(a, a), axis=1)[:, k] for a in (x, y))
    cross = distances(x, y)
    in_reference, in_generated = inside(cross, radius_y[None]), inside(cross, radius_x[:, None])
    return ManifoldScores(
        precision=in_reference.any(1).mean(),
        recall=in_generated.any(0).mean(),
        density=in_reference.sum() / k / len(x),
        coverage=in_reference.any(0).mean(),
    )


def same(a, b):
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-12), name


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(12, 30),
    m=st.integers(6, 25),
    k=st.integers(1, 5),
    blocks=st.integers(2, 5),
    inclusive=st.booleans(),
)
def test_definition_and_every_block_left_out(seed, n, m, k, blocks, inclusive):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.4
    edges = block_edges(n, blocks)
    parts = [x[i:j] for i, j in itertools.pairwise(edges)]
    found = manifold_scores(parts, y, k=k, inclusive=inclusive)
    without = found.without
    same(found.scores, by_definition(x, y, k, inclusive))
    assert found.scores == precision_recall_density_coverage(x, y, k=k, inclusive=inclusive)
    if not without:
        assert n - max(map(len, parts)) <= k
    for b, left_out in enumerate(without):
        same(left_out, by_definition(np.concatenate(parts[:b] + parts[b + 1 :]), y, k, inclusive))
    if len(parts) > 2 and without:
        radius = np.sort(np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)).astype(np.float32), axis=1)[:, k]
        cross = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1)).astype(np.float32)
        held = (np.less_equal if inclusive else np.less)(cross, radius[:, None])
        first, last = held[edges[1] : edges[-2]].any(axis=0).mean(), held[edges[2] :].any(axis=0).mean()
        assert found.fixed_pairs[0][-1].recall == pytest.approx(first, rel=1e-12)
        assert found.fixed_pairs[0][0].recall == pytest.approx(last, rel=1e-12)


def test_tiles_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    parts, y = list(rng.standard_normal((3, 11, 4))), rng.standard_normal((20, 4))
    whole = manifold_scores(parts, y, k=2)
    monkeypatch.setattr(distances, "TILE_ENTRIES", 50)
    monkeypatch.setattr(distances, "PAIRS", 3)
    assert manifold_scores(parts, y, k=2) == whole


def test_against_prdc(capsys):
    from prdc import compute_prdc

    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((150, 8)), rng.standard_normal((170, 8)) * 1.1
    peer = compute_prdc(real_features=y, fake_features=x, nearest_k=5)
    capsys.readouterr()
    same(precision_recall_density_coverage(x, y, k=5, inclusive=False), ManifoldScores(**peer))


def test_against_torch_fidelity():
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((160, 6)), rng.standard_normal((140, 6)) * 1.3
    peer = prc_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), prc_neighborhood=3, verbose=False)
    ours = precision_recall_density_coverage(x, y, k=3)
    assert ours.precision == pytest.approx(peer["precision"], rel=1e-6)
    assert ours.recall == pytest.approx(peer["recall"], rel=1e-6)


def test_mode_collapse_fixes_the_direction():
    rng = np.random.default_rng(5)
    centres = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    reference = np.concatenate([c + rng.standard_normal((40, 2)) for c in centres])
    collapsed = rng.standard_normal((160, 2)) * 0.5
    scores = precision_recall_density_coverage(collapsed, reference, k=3)
    assert scores.precision > 0.95
    assert scores.recall < 0.3
    assert scores.coverage < 0.3
    swapped = precision_recall_density_coverage(reference, collapsed, k=3)
    assert swapped.precision < 0.3
    assert swapped.recall > 0.9


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_identical_sets(inclusive, offset):
    x = (np.random.default_rng(6).standard_normal((60, 5)) + offset).astype(np.float32)
    scores = precision_recall_density_coverage(x, x.copy(), k=4, inclusive=inclusive)
    assert (scores.precision, scores.recall, scores.coverage) == (1.0, 1.0, 1.0)
    # A ball holds its centre and its k neighbours, the k-th of them only where the ball is closed.
    assert scores.density == pytest.approx(5 / 4 if inclusive else 4 / 4, rel=1e-12)


def test_balls_of_duplicates_have_no_radius():
    y = np.repeat(np.random.default_rng(7).standard_normal((4, 3)) + 1e3, 5, axis=0)
    scores = precision_recall_density_coverage(y, y, k=2, inclusive=True)
    assert (scores.precision, scores.recall, scores.coverage) == (1.0, 1.0, 1.0)
    strict = precision_recall_density_coverage(y, y, k=2, inclusive=False)
    assert (strict.precision, strict.recall, strict.coverage, strict.density) == (0.0, 0.0, 0.0, 0.0)


def test_far_sets_share_nothing():
    x = np.random.default_rng(8).standard_normal((20, 3))
    scores = precision_recall_density_coverage(x, x + 1e3, k=3)
    assert scores == ManifoldScores(precision=0.0, recall=0.0, density=0.0, coverage=0.0)


def test_errors():
    good = np.random.default_rng(0).standard_normal((6, 3))
    for bad in (good[:3], np.full((6, 3), np.nan), good[:, :2], np.zeros(3)):
        with pytest.raises(InvalidInputError):
            precision_recall_density_coverage(bad, good, k=3)
        with pytest.raises(InvalidInputError):
            precision_recall_density_coverage(good, bad, k=3)
    with pytest.raises(InvalidInputError, match="k must be"):
        precision_recall_density_coverage(good, good, k=0)
