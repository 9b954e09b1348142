"""KID against clean-fid, torch-fidelity and torchmetrics, on equal features, subsets and subset sizes.

    python benchmarks/kid.py                       # 100 subsets of 1000 out of 10 000, 2048-d
    python benchmarks/kid.py --curve               # kid_curve.csv over N and d
    python benchmarks/kid.py --memory              # peak memory of each

evalkit's first time is for the exact statistic over all pairs, its values without each of 20 blocks, and the
subsets, from one pass. The second table has the exact statistic and its values without blocks alone, which is
what ``kd`` reports, also where the reference was met before in this process. Peers' products and sums are
float32; evalkit's products are float32 where it measures that this moves the result by less than 1e-6 of
itself, and its sums float64. Its products run in torch, as they do in ``evalkit score``. Two contenders are
there for comparison: evalkit with numpy's products, and torch-fidelity given float64 features.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np
import torch
from cleanfid.fid import kernel_distance as clean_fid_distance
from curves import points, write_curve
from interleaved import ceilings, interleaved, peak_memory, roofline, save
from numpy.typing import NDArray
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance

from evalkit.numerics.mmd import KernelSums, SubsetEstimate, kernel_sums, kernel_sums_and_subsets
from evalkit.numerics.products import products_on

COUNT, WIDTH, SUBSETS, SIZE, BLOCKS = 10_000, 2048, 100, 1000, 20
Features = NDArray[np.float32]


def features(n: int, seed: int, width: int = WIDTH) -> Features:
    """Rows that are never negative, as those of a last pooling are."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((n, width), dtype=np.float32) + np.float32(0.02 * seed), 0)


def ours(
    generated: Features, reference: Features, *, torch_too: bool = True, seed: int = 2020
) -> tuple[KernelSums, SubsetEstimate]:
    with products_on("cpu") if torch_too else contextlib.nullcontext():
        return kernel_sums_and_subsets(
            np.array_split(generated, BLOCKS),
            reference,
            subsets=SUBSETS,
            subset_size=SIZE,
            rng=np.random.RandomState(seed),  # what torch-fidelity draws with
        )


def exact(generated: Features, reference: Features) -> KernelSums:
    with products_on("cpu"):
        return kernel_sums(np.array_split(generated, BLOCKS), reference)


def exact_anew(generated: Features, reference: Features, numbers: Iterator[int]) -> KernelSums:
    """Of a reference that differs in one value from all before: what is kept of those does not help."""
    other = reference.copy()
    other[0, 0] = next(numbers)
    return exact(generated, other)


def clean_fid(generated: Features, reference: Features) -> float:
    return clean_fid_distance(reference, generated, num_subsets=SUBSETS, max_subset_size=SIZE)


def torch_fidelity(generated: Features, reference: Features) -> dict[str, float]:
    sides = torch.from_numpy(generated), torch.from_numpy(reference)
    return kid_features_to_metric(
        *sides, kid_subsets=SUBSETS, kid_subset_size=SIZE, rng_seed=2020, verbose=False
    )


def torch_fidelity_double(generated: Features, reference: Features) -> dict[str, float]:
    return torch_fidelity(generated.astype(np.float64), reference.astype(np.float64))


def torchmetrics(generated: Features, reference: Features) -> float:
    metric = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=SUBSETS, subset_size=SIZE)
    metric.real_features = [torch.from_numpy(reference)]
    metric.fake_features = [torch.from_numpy(generated)]
    metric._update_count = 1  # noqa: SLF001 - features come ready made
    return float(metric.compute()[0])


PEERS = ("clean-fid", "torch-fidelity", "torchmetrics")
CONTENDERS: dict[str, Callable[[Features, Features], object]] = {
    "evalkit": ours,
    "clean-fid": clean_fid,
    "torch-fidelity": torch_fidelity,
    "torchmetrics": torchmetrics,
}


def agreement(x: Features, y: Features) -> str:
    sums, subsets = ours(x, y)
    same = torch_fidelity(x, y)["kernel_inception_distance_mean"]
    exact = torch_fidelity_double(x, y)["kernel_inception_distance_mean"]
    if abs(subsets.mean - same) > 1e-3 * abs(same):
        raise AssertionError(f"{subsets.mean} over the subsets of torch-fidelity, which has {same}")
    return (
        f"agreement: subsets {subsets.mean:.8f}, torch-fidelity on the same subsets {same:.8f} (float32), "
        f"{exact:.8f} (float64; evalkit is {abs(subsets.mean / exact - 1):.0e} off), "
        f"exact {sums.value():.8f}, clean-fid {clean_fid(x, y):.8f}, torchmetrics {torchmetrics(x, y):.8f}"
    )


def usual(rounds: int) -> None:
    x, y, top = features(COUNT, 1), features(COUNT, 0), ceilings()
    compared = interleaved(
        f"KID, {SUBSETS} subsets of {SIZE} out of {COUNT}, {WIDTH}-d, evalkit with the exact statistic",
        {name: partial(call, x, y) for name, call in CONTENDERS.items()}
        | {
            "evalkit with numpy": partial(ours, x, y, torch_too=False),
            "torch-fidelity in float64": partial(torch_fidelity_double, x, y),
        },
        rounds=rounds,
        target=dict.fromkeys(PEERS, 1.1),
    )
    alone = interleaved(
        f"KID, the exact statistic alone out of {COUNT}, {WIDTH}-d, beside the peers' {SUBSETS} subsets",
        {"evalkit": partial(exact_anew, x, y, count()), "evalkit, reference kept": partial(exact, x, y)}
        | {name: partial(CONTENDERS[name], x, y) for name in PEERS},
        rounds=rounds,
        target=dict.fromkeys(PEERS, 1.0),
    )
    top = top.raised()
    lines = [
        agreement(x, y),
        roofline(
            "one Gram pass",
            operations=4 * COUNT**2 * WIDTH,
            traffic=4 * 4 * COUNT * WIDTH,
            seconds=min(compared.seconds["evalkit"]),
            ceiling=top.float32,
            memory=top.memory,
        ),
    ]
    print(compared.text(), alone.text(), *lines, sep="\n")
    save("kid", [compared, alone], lines=lines)


def run(name: str, sides: tuple[Features, Features]) -> None:
    CONTENDERS[name](*sides)


def memory() -> None:
    sides = features(COUNT, 1), features(COUNT, 0)
    lines = [f"memory added, {name}: {peak_memory(run, name, sides) / 1e9:.2f} GB" for name in CONTENDERS]
    print(*lines, sep="\n")
    save("kid_memory", [], lines=lines)


def curve(rounds: int) -> None:
    cases = [("N", n, n, WIDTH) for n in (1000, 2000, 5000, 10_000)]
    cases += [("d", width, 5000, width) for width in (64, 256, 1024, WIDTH)]
    rows = []
    for variable, at, n, width in cases:
        x, y = features(n, 1, width), features(n, 0, width)
        contenders = {name: partial(call, x, y) for name, call in CONTENDERS.items()}
        compared = interleaved(f"{n}, {width}-d", contenders, rounds=rounds)
        print(compared.text(), flush=True)
        work = f"KID, {'d = 2048' if variable == 'N' else 'N = 5 000'}"
        rows += points(compared, work, variable, at)
    write_curve("kid", rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    for flag in ("--memory", "--curve"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    if args.memory:
        memory()
    if args.curve:
        curve(args.rounds)
    if not (args.memory or args.curve):
        usual(args.rounds)


if __name__ == "__main__":
    main()
