"""Write the figures of docs/scaling.md from what the benchmarks measured, by the laws of evalkit.costing.

python benchmarks/scaling_table.py            # writes docs/scaling.md
python benchmarks/scaling_table.py --check    # exits 1 where it is stale
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interleaved import RESULTS

from evalkit.costing.laws import Size, moments, pairs
from evalkit.shards import Part, ShardLayout

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
WIDTH, BANK, BLOCKS = 2048, 10_000, 20
BYTES_AN_IMAGE = 4 * (2048 + 1008)
MILLION, MANY = 1_000_000, 50_000
# README.md, "How to read a score": the bundled DDPM in 20 evaluations, two cores.
DDPM_SECONDS = 1 / 17.3
START_SECONDS = 10.0


@dataclass(frozen=True)
class Units:
    """What one thing costs on two cores, in seconds; rates are multiply-adds a second."""

    inception: float
    efficientnet: float
    moments: float
    value: float
    blocks: float
    kernel: float
    neighbours: float


def measured(name: str, work: str) -> tuple[float, float]:
    """Return our median seconds of a comparison of ``results/NAME.json``, and the amount that it did."""
    body = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = next(entry for entry in body["comparisons"] if entry["work"].startswith(work))
    return statistics.median(next(iter(found["seconds"].values()))), found["amount"]


def units() -> Units:
    """Read what was measured."""
    square = Size(n=10_000, m=10_000, d=WIDTH)
    inception, images = measured("extraction", "InceptionV3, 32 images of 299 x 299")
    efficientnet, others = measured("extraction", "EfficientNet-Lite0")
    folded = measured("moments", "mean and covariance of 50000")[0]
    return Units(
        inception=inception / images,
        efficientnet=efficientnet / others,
        moments=moments(Size(n=50_000, m=0, d=WIDTH)) / folded,
        value=measured("frechet", "Fréchet distance from moments")[0],
        blocks=measured("frechet", "20 leave-one-block-out distances in one batch, 2048-d, N = 10000")[0],
        kernel=pairs(square) / measured("kid", "KID, 100 subsets")[0],
        neighbours=pairs(square) / measured("neighbours", "precision, recall")[0],
    )


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table, numbers to the right."""
    marks = (":---", *("---:" for _ in heading[1:]))
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, marks, *rows)) + "\n"


def figures() -> str:
    """Return everything between the marks."""
    unit = units()
    return "\n".join(["", *_units(unit), *_million(unit), *_checkpoints(unit), *_gpus(unit)])


def _units(unit: Units) -> Iterator[str]:
    yield "## Unit costs\n"
    yield "On two cores of a shared virtual machine without a GPU; a command each.\n"
    ddpm, inception, lite = (1 / x for x in (DDPM_SECONDS, unit.inception, unit.efficientnet))
    rate = WIDTH**2 / 2 / unit.moments
    rows = [
        ("one image of the bundled DDPM, 20 evaluations", f"{1000 * DDPM_SECONDS:.0f} ms ({ddpm:.1f}/s)",
         "`evalkit score --model ddpm`, README"),
        ("one image through InceptionV3", f"{1000 * unit.inception:.0f} ms ({inception:.1f}/s)",
         "`python benchmarks/extraction.py`"),
        ("one image through EfficientNet-Lite0", f"{1000 * unit.efficientnet:.1f} ms ({lite:.0f}/s)",
         "the same"),
        ("folding one row of 2048 features into moments", f"{1e6 * rate:.0f} µs",
         "`python benchmarks/moments.py`"),
        ("Fréchet distance from moments; 20 without a block", f"{unit.value:.1f} s; {unit.blocks:.1f} s",
         "`python benchmarks/frechet.py`"),
        ("kernel distance", f"{unit.kernel / 1e9:.0f} G multiply-adds/s", "`python benchmarks/kid.py`"),
        ("precision, recall, density and coverage", f"{unit.neighbours / 1e9:.0f} G multiply-adds/s",
         "`python benchmarks/neighbours.py`"),
        ("starting a process and opening a model", f"about {START_SECONDS:.0f} s",
         "`evalkit plan --model ddpm`"),
    ]  # fmt: skip
    yield table(("work", "costs", "measured by"), rows)


def _steps(unit: Units, n: int) -> dict[str, float]:
    size = Size(n=n, m=BANK, d=WIDTH, blocks=BLOCKS)
    return {
        "sampling": n * DDPM_SECONDS,
        "InceptionV3": n * unit.inception,
        "moments and Fréchet distance": moments(size) / unit.moments + unit.value + unit.blocks,
        "kernel distance": pairs(size) / unit.kernel,
        "neighbours": pairs(size) / unit.neighbours,
    }


def _wall(steps: dict[str, float], workers: int, n: int, *, quadratic: bool) -> float:
    layout = ShardLayout(n)
    share = len(layout.shards_of(Part(0, workers))) / layout.shards
    shared = (steps["sampling"] + steps["InceptionV3"]) * share
    own = steps["moments and Fréchet distance"]
    own += steps["kernel distance"] + steps["neighbours"] if quadratic else 0.0
    return START_SECONDS + shared + own


def _million(unit: Units) -> Iterator[str]:
    steps, layout = _steps(unit, MILLION), ShardLayout(MILLION)
    yield "## A million images\n"
    yield f"One model, `standard` protocol, N = {MILLION:,}, {BANK:,} reference features.\n"
    yield table(
        ("step", "one machine of two cores", "divided among workers"),
        [(name, duration(seconds), "yes" if name in {"sampling", "InceptionV3"} else "no")
         for name, seconds in steps.items()],
    )  # fmt: skip
    workers = (1, 10, 100)

    def show(quadratic: bool) -> list[str]:
        return [duration(_wall(steps, k, MILLION, quadratic=quadratic)) for k in workers]

    yield table(
        ("wall clock", *(f"{k} workers" if k > 1 else "1 worker" for k in workers)),
        [("all of `standard`", *show(True)), ("`--metrics fd,is`", *show(False))],
    )
    features, held = MILLION * BYTES_AN_IMAGE, 4 * MILLION * WIDTH
    pair_bytes = 8 * (MILLION + BANK) * WIDTH
    busiest = len(layout.shards_of(Part(0, 100)))
    yield (
        f"Disk: {features / 1e9:.1f} GB in {layout.shards:,} shards of {layout.shard_size} images; of 100 "
        f"workers the busiest\nhas {busiest}, so that {layout.shards / 100 / busiest:.0%} of their time is "
        f"used. Memory of the process that scores: about 1 GiB\nand 0.3 kB an image for `fd,is`, which read "
        f"the features from their files; for kernels and neighbours {held / 2**30:.0f} GiB\nfor the features "
        f"and {pair_bytes / 2**30:.0f} GiB more. The accumulator of moments itself needs 0.1 GiB for any "
        f"number of images\n(`python benchmarks/scale.py`).\n"
    )


def _checkpoints(unit: Units) -> Iterator[str]:
    yield "## A thousand checkpoints\n"
    large = _steps(unit, MANY)
    small = {"sampling": 1024 * DDPM_SECONDS, "network": 1024 * unit.efficientnet, "numerics": 5.0}
    each = {
        f"`standard`, {MANY:,} images": sum(large.values()),
        "`embedded`, 1,024 images": sum(small.values()),
    }
    rows = [
        (name, duration(seconds + START_SECONDS), duration(1000 * (seconds + START_SECONDS)),
         duration(10 * (seconds + START_SECONDS)))
        for name, seconds in each.items()
    ]  # fmt: skip
    yield table(("protocol", "one checkpoint", "a thousand, one machine", "a thousand, 100 machines"), rows)


def _gpus(unit: Units) -> Iterator[str]:
    yield "## A hundred GPUs\n"
    steps = _steps(unit, MILLION)
    serial = steps["moments and Fréchet distance"]
    quadratic = steps["kernel distance"] + steps["neighbours"]
    rows = []
    for rate in (10, 100, 1000):
        wall = MILLION / (100 * rate)
        rows.append(
            (f"{rate:,} images/s", duration(wall), f"{100 * rate * BYTES_AN_IMAGE / 1e6:,.0f} MB/s",
             f"{100 * rate / 512:,.1f}", f"{wall / (wall + serial + START_SECONDS):.0%}",
             f"{wall / (wall + serial + quadratic + START_SECONDS):.1%}")
        )  # fmt: skip
    yield table(
        ("a GPU makes and measures", "a million images take", "features written", "shards/s",
         "GPUs busy, `fd,is`", "GPUs busy, all of `standard`"), rows,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is stale")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    fresh = f"{before}{BEGIN}\n{figures()}\n{END}{after}"
    if arguments.check:
        sys.exit(0 if fresh == text else 1)
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
