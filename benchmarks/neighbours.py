"""Precision, recall, density and coverage against prdc and torch-fidelity, on equal features.

    python benchmarks/neighbours.py                # 10 000 x 10 000
    python benchmarks/neighbours.py --memory       # peak memory of each at that size
    python benchmarks/neighbours.py --large        # 50 000 x 10 000; the memory of 50 000 x 50 000
    python benchmarks/neighbours.py --curve        # neighbours_curve.csv over N and d

What evalkit remembers of a reference is not used: every round has another one. Its products run in torch, as
they do in ``evalkit score``; one contender uses numpy's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from functools import partial

import numpy as np
import prdc
import torch
from curves import points, write_curve
from interleaved import Ceilings, Comparison, ceilings, interleaved, peak_memory, roofline, save
from numpy.typing import NDArray
from torch_fidelity.metric_prc import prc_features_to_metric

from evalkit.numerics.comparison import Compared, compare
from evalkit.numerics.manifolds import Balls
from evalkit.numerics.products import products_on

WIDTH, BLOCKS = 2048, 20
FIDELITY_ROWS = 20_000
KYNKAANNIEMI, NAEEM = Balls(3), Balls(5, inclusive=False)
Features = NDArray[np.float32]


def features(n: int, seed: int, width: int = WIDTH) -> Features:
    """Rows whose directions carry very unequal variance, as those of networks do."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(1, width + 1) ** -0.35).astype(np.float32)
    rows = rng.standard_normal((n, width), dtype=np.float32) * spread
    return rows + np.float32(0.02 * seed)


def ours(
    generated: Features, reference: Features, *, blocks: int = 1, family: bool = False, torch_too: bool = True
) -> Compared:
    """Both conventions at once; with ``family``, realism and authenticity too."""
    reference[0, 0] += np.float32(1e-3)  # another reference: nothing is remembered of it
    parts = np.array_split(generated, blocks)
    with products_on("cpu") if torch_too else contextlib.nullcontext():
        return compare(
            parts,
            reference,
            balls=[KYNKAANNIEMI, NAEEM],
            realism=[3] if family else [],
            authentic=family,
        )


def theirs_prdc(generated: Features, reference: Features) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        return prdc.compute_prdc(real_features=reference, fake_features=generated, nearest_k=5)


def theirs_fidelity(generated: Features, reference: Features) -> dict[str, float]:
    # Above, its default keeps all distances at once: 20 GB for 50 000.
    frugal = max(len(generated), len(reference)) > FIDELITY_ROWS
    sides = torch.from_numpy(generated), torch.from_numpy(reference)
    return prc_features_to_metric(*sides, prc_neighborhood=3, save_cpu_ram=frugal, verbose=False)


def agreement(generated: Features, reference: Features, *, with_prdc: bool) -> str:
    """Compare the numbers; theirs come from float32 distances, which decide a few pairs otherwise."""
    found = ours(generated, reference)
    peer = theirs_fidelity(generated, reference)
    scores = found.manifolds[KYNKAANNIEMI].scores
    pairs = {"precision": (scores.precision, peer["precision"]), "recall": (scores.recall, peer["recall"])}
    if with_prdc:
        theirs, strict = theirs_prdc(generated, reference), found.manifolds[NAEEM].scores
        pairs |= {f"{name} (k 5)": (getattr(strict, name), theirs[name]) for name in theirs}
    for name, (mine, other) in pairs.items():
        if abs(mine - other) > 2e-3 * max(1.0, abs(other)):
            raise AssertionError(f"{name} is {mine}, theirs {other}")
    return "agreement: " + ", ".join(
        f"{name} {mine:.4f} / {other:.4f}" for name, (mine, other) in pairs.items()
    )


def products(n: int, m: int, *, seconds: float, top: Ceilings) -> str:
    """Roofline of the products in float32: two halves and a whole, each set read once."""
    pairs = (n * n + m * m) / 2 + n * m
    top = top.raised()
    return roofline(
        f"{n} x {m}",
        operations=2 * pairs * WIDTH,
        traffic=4 * (n + m) * WIDTH * 2,
        seconds=seconds,
        ceiling=top.float32,
        memory=top.memory,
    )


def usual(rounds: int) -> None:
    x, y, top = features(10_000, 1), features(10_000, 0), ceilings()
    compared = interleaved(
        "precision, recall, density and coverage, 10 000 x 10 000, 2048-d",
        {
            "evalkit": partial(ours, x, y),
            "evalkit with numpy": partial(ours, x, y, torch_too=False),
            "evalkit, error bars, realism, authenticity": partial(ours, x, y, blocks=BLOCKS, family=True),
            "prdc": partial(theirs_prdc, x, y),
            "torch-fidelity (two of them)": partial(theirs_fidelity, x, y),
        },
        rounds=rounds,
        warm_up=False,
        target={"prdc": 3.5, "torch-fidelity (two of them)": 1.6},
    )
    finish(
        "neighbours",
        [compared],
        [
            agreement(x, y, with_prdc=True),
            products(10_000, 10_000, seconds=min(compared.seconds["evalkit"]), top=top),
        ],
    )


def large(rounds: int) -> None:
    x, y, top = features(50_000, 1), features(10_000, 0), ceilings()
    peer = "torch-fidelity (two of them)"
    compared = interleaved(
        "precision, recall, density and coverage, 50 000 x 10 000, 2048-d",
        {
            "evalkit": partial(ours, x, y),
            "evalkit, error bars, realism, authenticity": partial(ours, x, y, blocks=BLOCKS, family=True),
            peer: partial(theirs_fidelity, x, y),
        },
        rounds=rounds,
        warm_up=False,
        target={peer: 2.3},
    )
    lines = [products(50_000, 10_000, seconds=min(compared.seconds["evalkit"]), top=top)]
    lines += memory_of(("evalkit", "torch-fidelity"), 50_000, 10_000) + memory_of(
        ("evalkit",), 50_000, 50_000
    )
    finish("neighbours_large", [compared], lines)


def work(name: str, sides: tuple[Features, Features]) -> None:
    {
        "evalkit": partial(ours, blocks=BLOCKS, family=True),
        "prdc": theirs_prdc,
        "torch-fidelity": theirs_fidelity,
    }[name](*sides)


def memory_of(names: tuple[str, ...], n: int, m: int) -> list[str]:
    sides = features(n, 1), features(m, 0)
    added = {name: peak_memory(work, name, sides) for name in names}
    lines = [f"memory added, {n} x {m}, {name}: {size / 1e9:.2f} GB" for name, size in added.items()]
    return [
        *lines,
        *(
            f"evalkit adds {added['evalkit'] / size:.2f} of {name}"
            for name, size in added.items()
            if name != "evalkit"
        ),
    ]


def curve(rounds: int) -> None:
    contenders: dict[str, Callable[[Features, Features], object]] = {
        "evalkit": ours, "torch-fidelity": theirs_fidelity, "prdc": theirs_prdc,
    }  # fmt: skip
    works = [("N", n, n, WIDTH) for n in (1000, 2000, 5000, 10_000)]
    works += [("d", width, 5000, width) for width in (64, 256, 1024, WIDTH)]
    rows = []
    for variable, at, n, width in works:
        work = f"neighbours, {'d = 2048' if variable == 'N' else '5 000 x 5 000'}"
        x, y = features(n, 1, width), features(n, 0, width)
        compared = interleaved(
            f"{n} x {n}, {width}-d", {name: partial(call, x, y) for name, call in contenders.items()},
            rounds=min(rounds, 3), warm_up=n <= 5000,
        )  # fmt: skip
        print(compared.text(), flush=True)
        rows += points(compared, work, variable, at)
    write_curve("neighbours", rows)


def finish(name: str, comparisons: list[Comparison], lines: list[str]) -> None:
    for compared in comparisons:
        print(compared.text())
    print("\n".join(lines))
    save(name, comparisons, lines=lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    for flag in ("--memory", "--large", "--curve"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    if args.memory:
        finish("neighbours_memory", [], memory_of(("evalkit", "prdc", "torch-fidelity"), 10_000, 10_000))
    if args.large:
        large(args.rounds)
    if args.curve:
        curve(args.rounds)
    if not (args.memory or args.large or args.curve):
        usual(args.rounds)


if __name__ == "__main__":
    main()
