r"""Draw the report of the gate's power: regressions found, and images drawn until a verdict.

python benchmarks/gate_power_figure.py benchmarks/gate_power.csv --out docs/figures/gate_power
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

ALPHA = 0.05
COUNTS = (32, 64, 128, 256, 512, 1024, 2048)
# Okabe & Ito's palette, a marker and a line of its own for each; where its words stand.
POWER = {
    "paired": ("same seeds", "#0072B2", "o", "-", (29, 0.86)),
    "anytime": ("same seeds,\nstopping early", "#009E73", "D", "-.", (150, 0.60)),
    "unpaired": ("other seeds", "#D55E00", "s", "--", (600, 0.29)),
    "equal": ("no change", "#555555", "^", ":", (1110, 0.13)),
}
DRAWN = {
    "anytime": ("until worse is certain", "#009E73", "D", "-.", (330, 0.72)),
    "anytime, tolerant": ("until within 8 %\nis certain", "#CC79A7", "v", "--", (95, 0.42)),
}
WORDS = {
    "fontweight": "bold",
    "va": "center",
    "bbox": {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1},
}
FEWEST_TRIALS = 8  # a rate of fewer says nothing, and is not drawn


def draw(options: argparse.Namespace) -> None:
    """Draw how many regressions are found above how many images are drawn."""
    with options.csv.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == options.metric]
    plt.rcParams.update({"font.size": 15, "svg.hashsalt": "gate", "svg.fonttype": "none"})
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.4, 9.0))
    for mode, (label, colour, marker, line, at) in POWER.items():
        found = [row for row in rows if row["mode"] == mode and int(row["disjoint"]) >= FEWEST_TRIALS]
        x, y, low, high = columns(found, "images", "share", "low", "high")
        top.errorbar(x, y, yerr=np.abs([y - low, high - y]), color=colour, marker=marker, linestyle=line,
                     markersize=9, linewidth=2.2, capsize=3, elinewidth=1, clip_on=False)  # fmt: skip
        top.text(*at, label, color=colour, **WORDS)
    for mode, (label, colour, marker, line, at) in DRAWN.items():
        x, y, error = columns([row for row in rows if row["mode"] == mode], "images", "drawn", "drawn_se")
        bottom.errorbar(x, y / x, yerr=error / x, color=colour, marker=marker, linestyle=line, markersize=9,
                        linewidth=2.2, capsize=3, elinewidth=1, clip_on=False)  # fmt: skip
        bottom.text(*at, label, color=colour, **WORDS)
    top.axhline(ALPHA, color="#555555", linewidth=1)
    top.set(ylim=(-0.02, 1.02), ylabel="share found to be worse", title="Finding a small regression")
    bottom.axhline(1, color="#0072B2", linewidth=2.2)
    bottom.text(520, 0.96, "a run of fixed size", color="#0072B2", **{**WORDS, "va": "top"})
    bottom.set(
        xlim=top.get_xlim(),
        ylim=(0, 1.04),
        ylabel="share of them drawn, mean",
        title="Stopping at a verdict, same seeds",
    )
    for axes in (top, bottom):
        axes.set_xscale("log", base=2)
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.set_xlim(27, 2600)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    top.set_xlabel("images a side")
    bottom.set_xlabel("images planned")
    figure.tight_layout(h_pad=2)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out.with_suffix(".png"), dpi=110)
    figure.savefig(options.out.with_suffix(".svg"), metadata={"Date": None})


def columns(rows: Sequence[Mapping[str, str]], *names: str) -> list[np.ndarray]:
    """Return columns as numbers, in the order of the number of images."""
    ordered = sorted(rows, key=lambda row: int(row["images"]))
    return [np.array([float(row[name]) for row in ordered]) for name in names]


def main() -> None:
    """Draw the figure as PNG and SVG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("--metric", default="cmmd")
    parser.add_argument("--out", type=Path, required=True)
    draw(parser.parse_args())


if __name__ == "__main__":
    main()
