"""Do the deterministic samplers of a diffusion model converge to one another as their steps grow?

DDIM, DPM-Solver++ and Heun integrate the same equation from the same noise. On the bundled DDPM, without
guidance, this measures the root mean square difference of their images (float, in [-1, 1], the same seeds and
labels) from DPM-Solver++ at 160 steps and from each other at equal steps. One grey level of 255 is 0.0078.

    python benchmarks/sampler_convergence.py measure --images 64 --out benchmarks/sampler_convergence.csv
    python benchmarks/sampler_convergence.py draw benchmarks/sampler_convergence.csv \
        --out docs/figures/sampler_convergence.png
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.diffusion.generator import DiffusionGenerator
from evalkit.seeding import balanced_labels, image_seeds

SAMPLERS = ("ddim", "dpm-solver++", "heun")
STEPS = (5, 10, 20, 40, 80)
REFERENCE = ("dpm-solver++", 160)
BATCH = 16
FIELDS = ("sampler", "steps", "evaluations", "from_sampler", "from_steps", "images", "rms")


def paint(sampler: str, steps: int, *, images: int, device: str) -> tuple[Tensor, int]:
    """Return float images ``[n, 3, 32, 32]`` in [-1, 1] and the network evaluations for each."""
    options = SamplingOptions(sampler=sampler, steps=steps, device=device)
    generator = cast("DiffusionGenerator", load_generator("ddpm", options=options))
    index = np.arange(images)
    seeds = image_seeds(0, index)
    labels = torch.from_numpy(balanced_labels(0, index, generator.num_classes)).to(device)
    with torch.inference_mode():
        parts = [
            generator._sample(seeds[at : at + BATCH], labels[at : at + BATCH]).cpu()  # noqa: SLF001 - unquantised
            for at in range(0, images, BATCH)
        ]
    return torch.cat(parts), generator.evaluations_per_image


def measure(*, images: int, device: str) -> Iterator[dict[str, object]]:
    """Yield a row for each sampler and number of steps against the reference and against its peers."""
    reference, _ = paint(*REFERENCE, images=images, device=device)
    for steps in STEPS:
        painted = {}
        for sampler in SAMPLERS:
            painted[sampler], evaluations = paint(sampler, steps, images=images, device=device)
            print(f"{sampler} {steps}: {evaluations} evaluations", file=sys.stderr, flush=True)
            yield _row((sampler, steps), evaluations, REFERENCE, painted[sampler] - reference)
        for first, second in combinations(SAMPLERS, 2):
            yield _row((first, steps), 0, (second, steps), painted[first] - painted[second])


def _row(
    what: tuple[str, int], evaluations: int, other: tuple[str, int], difference: Tensor
) -> dict[str, object]:
    rms = float(difference.double().square().mean().sqrt())
    values = (*what, evaluations or "", *other, len(difference), f"{rms:.3e}")
    return dict(zip(FIELDS, values, strict=True))


COLOURS = {"ddim": "#0072b2", "dpm-solver++": "#d55e00", "heun": "#009e73"}  # Okabe & Ito 2008
MARKERS = {"ddim": "o", "dpm-solver++": "s", "heun": "^"}
PAIRS = {
    ("ddim", "dpm-solver++"): ("#cc79a7", "o"),
    ("ddim", "heun"): ("#56b4e9", "s"),
    ("dpm-solver++", "heun"): ("#000000", "^"),
}


def draw(path: Path, out: Path) -> None:
    """Draw the differences from the reference over evaluations, and from each other over steps."""
    import matplotlib as mpl  # noqa: PLC0415 - needed by this command only

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout="constrained")
    for sampler in SAMPLERS:
        own = [r for r in rows if r["sampler"] == sampler and r["evaluations"]]
        x, y = [int(r["evaluations"]) for r in own], [float(r["rms"]) for r in own]
        left.loglog(x, y, color=COLOURS[sampler], marker=MARKERS[sampler], label=sampler)
    for (first, second), (colour, marker) in PAIRS.items():
        own = [
            r for r in rows if (r["sampler"], r["from_sampler"]) == (first, second) and not r["evaluations"]
        ]
        x, y = [int(r["steps"]) for r in own], [float(r["rms"]) for r in own]
        right.loglog(x, y, color=colour, marker=marker, label=f"{first} - {second}")
    left.set(
        xlabel="network evaluations for each image",
        ylabel="RMS difference, images in [-1, 1]",
        title=f"from {REFERENCE[0]} at {REFERENCE[1]} steps",
    )
    right.set(xlabel="steps", title="from each other at equal steps")
    for axes in (left, right):
        axes.axhline(2 / 255, color="0.5", linestyle=":", linewidth=1)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(frameon=False)
        ticks = [5, 10, 20, 40, 80, 160][: 6 if axes is left else 5]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
    left.annotate("one grey level", (5, 2 / 255), xytext=(0, 3), textcoords="offset points", color="0.4")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("measure")
    first.add_argument("--images", type=int, default=64)
    first.add_argument("--device", default="cpu")
    first.add_argument("--out", type=Path, required=True)
    second = commands.add_parser("draw")
    second.add_argument("csv", type=Path)
    second.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "draw":
        draw(arguments.csv, arguments.out)
        return
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in measure(images=arguments.images, device=arguments.device):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
