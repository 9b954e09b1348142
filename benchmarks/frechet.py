"""The Fréchet distance against pytorch-fid, torch-fidelity and torchmetrics, and its error bar in one batch.

    python benchmarks/frechet.py            2048-d, N = 10 000; N = 1 000 < d; 20 blocks
    python benchmarks/frechet.py --large    N = 50 000 instead: distances from moments and from features
    python benchmarks/frechet.py --curve    seconds against d and against N, to frechet_curve.csv

Like is compared with like. "From moments" rows start from mean and covariance on both sides, which every
contender needs and none has counted. "From features" rows start from the features of the generated side and
the moments of the reference, so that everyone's own moments of the generated side are counted. With N < d
both sides are features: evalkit never forms a covariance, the peers do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from interleaved import OURS, Ceilings, Comparison, ceilings, interleaved, peak_memory, roofline, save
from pytorch_fid import fid_score
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from evalkit.accumulators.moments import moments_of
from evalkit.numerics import (
    GaussianFactor,
    frechet_distance,
    frechet_distance_between,
    frechet_distance_from_features,
    frechet_distance_to,
    frechet_without_blocks,
    gaussian_factor,
    gaussian_factor_from_features,
)
from evalkit.numerics.leave_out import Whole, distances_without
from evalkit.numerics.products import products_on

WIDTH, BLOCKS, BATCH = 2048, 20, 1000
MOST = 12  # distances that the 20 blocks may cost
PEERS = ("torch-fidelity", "torchmetrics", "pytorch-fid")
Array = np.ndarray[Any, np.dtype[Any]]
Moments = tuple[Array, Array]

_root = fid_score.linalg.sqrtm
# pytorch-fid passes ``disp=False``, which newer SciPy warns of and then drops: the same root, asked plainly.
fid_score.linalg.sqrtm = lambda matrix, disp=True: _root(matrix) if disp else (_root(matrix), 0.0)


@cache
def features(count: int, width: int = WIDTH, seed: int = 0) -> Array:
    """Float32 features whose standard deviations fall over two decades, in a random basis."""
    rng = np.random.default_rng([width, count, seed])
    spread = np.logspace(0, -2, width) * (1 + 0.2 * seed)
    turn = np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]
    x = rng.standard_normal((count, width), dtype=np.float32) * spread.astype(np.float32)
    return np.asarray(x @ turn.astype(np.float32) + np.float32(0.02 * seed))


def moments(x: Array) -> Moments:
    """Mean and covariance in float64."""
    found = moments_of([x])
    return found.mean, found.covariance


def by_pytorch_fid(a: Moments, b: Moments) -> float:
    """pytorch-fid: the root of the product of the covariances."""
    return float(fid_score.calculate_frechet_distance(*a, *b))


def by_torch_fidelity(a: Moments, b: Moments) -> float:
    """torch-fidelity: the eigenvalues of the product of the covariances."""
    sides = [{"mu": mean, "sigma": cov} for mean, cov in (a, b)]
    return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])


def by_torchmetrics(a: Moments, b: Moments) -> float:
    """torchmetrics: the same, in torch."""
    return float(_compute_fid(*(torch.from_numpy(array) for array in (*a, *b))))


def numpy_moments(x: Array) -> Moments:
    """What pytorch-fid does with its activations, which it keeps in float64."""
    wide = x.astype(np.float64)
    return np.mean(wide, axis=0), np.cov(wide, rowvar=False)


def torch_fidelity_moments(x: Array) -> Moments:
    """torch-fidelity's statistics; float64 as numpy's covariance is, though its mean stays float32."""
    found = fid_features_to_statistics(torch.from_numpy(x))
    return found["mu"].astype(np.float64), found["sigma"].astype(np.float64)


class _Features(torch.nn.Module):
    """Stands for a network whose features are its images."""

    num_features = WIDTH

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def torchmetrics_moments(x: Array) -> Moments:
    """Mean and covariance as torchmetrics' ``update`` and ``compute`` make them."""
    metric = FrechetInceptionDistance(feature=_Features())
    for start in range(0, len(x), BATCH):
        metric.update(torch.from_numpy(x[start : start + BATCH]), real=False)
    mean = metric.fake_features_sum / len(x)
    cov = (metric.fake_features_cov_sum - len(x) * mean[:, None] @ mean[None]) / (len(x) - 1)
    return mean.numpy(), cov.numpy()


DISTANCES: Mapping[str, Callable[[Moments, Moments], float]] = {
    OURS: lambda a, b: frechet_distance(*a, *b),
    "torch-fidelity": by_torch_fidelity,
    "torchmetrics": by_torchmetrics,
    "pytorch-fid": by_pytorch_fid,
}
MOMENTS: Mapping[str, Callable[[Array], Moments]] = {
    OURS: moments,
    "torch-fidelity": torch_fidelity_moments,
    "torchmetrics": torchmetrics_moments,
    "pytorch-fid": numpy_moments,
}


def to_factor(x: Array, factor: GaussianFactor) -> float:
    """Evalkit's distance from features to a factored reference."""
    if len(x) <= x.shape[1]:
        return frechet_distance_between(gaussian_factor_from_features(x), factor)
    mean, cov = moments(x)
    return frechet_distance_to(factor, mean=mean, cov=cov)


def errors(work: Mapping[str, Callable[[], float]], exact: float) -> str:
    """How far each contender is from the exact value, as a line."""
    found = {name: abs(run() / exact - 1) for name, run in work.items()}
    return "relative error: " + ", ".join(f"{name} {error:.0e}" for name, error in found.items())


def from_moments(count: int, rounds: int, ceiling: Ceilings) -> tuple[Comparison, str]:
    """Moments are given on both sides."""
    a, b = (features(count, seed=seed) for seed in (1, 0))
    sides = moments(a), moments(b)
    work = {name: partial(run, *sides) for name, run in DISTANCES.items()}
    note = errors(work, frechet_distance_from_features(a, b))
    found = interleaved(
        f"Fréchet distance from moments, {WIDTH}-d, N = {count}", work, rounds=rounds, warm_up=False,
        target={"torch-fidelity": 2.5, "torchmetrics": 2.5, "pytorch-fid": 10}, notes=[note],
    )  # fmt: skip
    top = ceiling.raised()
    # Two Cholesky factors (d^3 / 3 each), a congruence (d^3), the band form (4/3 d^3).
    line = roofline(
        f"Fréchet distance, {WIDTH}-d", operations=3 * WIDTH**3, traffic=6 * 8 * WIDTH**2,
        seconds=min(found.seconds[OURS]), ceiling=top.float64, memory=top.memory,
    )  # fmt: skip
    return found, line


def from_features(count: int, rounds: int) -> Comparison:
    """Features of one side against moments of the other."""
    x, real = features(count, seed=1), moments(features(count, seed=0))
    factor = gaussian_factor(*real)

    def peer(name: str) -> float:
        return DISTANCES[name](MOMENTS[name](x), real)

    work: dict[str, Callable[[], float]] = {OURS: partial(to_factor, x, factor)} | {
        name: partial(peer, name) for name in PEERS
    }
    title = f"Fréchet distance from features, {WIDTH}-d, N = {count}; evalkit's reference factor is kept"
    return interleaved(
        title, work, rounds=rounds, warm_up=False,
        target={"torch-fidelity": 2.5, "torchmetrics": 2.5, "pytorch-fid": 10},
        notes=[errors(work, frechet_distance(*moments(x), *real))],
    )  # fmt: skip


def exact_of_few(a: Array, b: Array) -> float:
    """Singular values of the product of the centred features, in float64 without any shortcut."""
    x, y = (side.astype(np.float64) - side.astype(np.float64).mean(axis=0) for side in (a, b))
    offset = a.astype(np.float64).mean(axis=0) - b.astype(np.float64).mean(axis=0)
    n, m = len(x) - 1, len(y) - 1
    nuclear = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(n * m)
    return float(offset @ offset + np.square(x).sum() / n + np.square(y).sum() / m - 2 * nuclear)


def of_few(count: int, rounds: int) -> Comparison:
    """Fewer images than dimensions, features on both sides."""
    a, b = (features(count, seed=seed) for seed in (1, 0))

    def peer(name: str) -> float:
        return DISTANCES[name](MOMENTS[name](a), MOMENTS[name](b))

    work: dict[str, Callable[[], float]] = {OURS: partial(frechet_distance_from_features, a, b)}
    work |= {name: partial(peer, name) for name in PEERS}
    return interleaved(
        f"Fréchet distance from features on both sides, {WIDTH}-d, N = {count} < d", work, rounds=rounds,
        warm_up=False, target={"torch-fidelity": 8, "pytorch-fid": 40},
        notes=[errors(work, exact_of_few(a, b)) + " (of singular values in float64)"],
    )  # fmt: skip


def blocks(count: int, rounds: int) -> Comparison:
    """The 20 leave-one-block-out values in one batch, against as many distances."""
    x, real = features(count, seed=1), moments(features(10_000, seed=0))
    target, parts = gaussian_factor(*real), np.array_split(x, BLOCKS)
    few = count <= WIDTH
    own = moments(x)

    def batch() -> list[float]:
        if few:
            return list(frechet_without_blocks(x, [0, *np.cumsum([len(part) for part in parts])], target))
        groups = [(block,) for block in range(BLOCKS)]
        whole = Whole(count, *own)
        with products_on("cpu"):  # as evalkit score does
            return list(distances_without(parts, groups, target, whole=whole, measure=_unproven))

    def one() -> float:
        return to_factor(x, target) if few else frechet_distance(*own, *real)

    timed = interleaved("", {OURS: batch, "one": one}, rounds=rounds, warm_up=False)
    off = abs(batch()[0] / to_factor(np.concatenate(parts[1:]), target) - 1)
    name = f"{BLOCKS} x one distance"
    seconds = {OURS: timed.seconds[OURS], name: [BLOCKS * second for second in timed.seconds["one"]]}
    price = BLOCKS / Comparison("", seconds).ratio(name)
    given = "features on one side" if few else "moments on both sides"
    return Comparison(
        f"{BLOCKS} leave-one-block-out distances in one batch, {WIDTH}-d, N = {count}",
        seconds,
        target={name: BLOCKS / MOST},
        notes=(
            f"the batch costs {price:.1f} distances from {given} (promised: {MOST})",
            f"relative difference to a distance without the block: {off:.0e}",
        ),
    )


def _unproven(group: Sequence[int]) -> float:
    raise RuntimeError(f"without blocks {group} the batch is not proven good enough")


def peak_of(name: str, count: int) -> float:
    """One distance from features, for :func:`peak_memory`."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, WIDTH), dtype=np.float32)
    mean, cov = MOMENTS[name](x)
    return DISTANCES[name]((mean, cov), (np.zeros(WIDTH), np.eye(WIDTH)))


def main() -> None:
    """Parse the flags and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="N = 50 000 instead: four minutes")
    parser.add_argument("--curve", action="store_true", help="write frechet_curve.csv instead")
    flags = parser.parse_args()
    if flags.curve:
        from frechet_curve import write  # noqa: PLC0415 - which imports this module

        write()
        return
    count = 50_000 if flags.large else 10_000
    first, line = from_moments(count, flags.rounds, ceilings())
    found, lines = [first], [line]
    if not flags.large:
        found.append(of_few(1000, flags.rounds))
        found += [blocks(rows, flags.rounds) for rows in (10_000, 1000)]
    found.append(from_features(count, flags.rounds))
    features.cache_clear()
    peaks = {name: peak_memory(peak_of, name, count) / 1e6 for name in (OURS, *PEERS)}
    told = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
    lines.append(
        f"peak memory from {count} float32 features ({count * WIDTH * 4e-6:.0f} MB, included): {told}"
    )
    print("\n\n".join([*(comparison.text() for comparison in found), *lines]))
    save("frechet_large" if flags.large else "frechet", found, lines=lines)


if __name__ == "__main__":
    main()
