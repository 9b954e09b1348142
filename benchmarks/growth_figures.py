"""Draw how seconds grow with N, dimension, image size and batch, from the CSV files of ``--curve``.

    python benchmarks/growth_figures.py --out docs/figures/growth.png

Reads every ``benchmarks/*_curve.csv`` (benchmarks/curves.py): one panel for each work, one line for each
contender, both axes logarithmic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

# Okabe & Ito 2008: eight colours that colour-blind readers tell apart; ours is the first.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#F0E442")
MARKERS = "os^Dv<>P"
ACROSS = 3


def panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw one work: a line for each contender, evalkit's first and thick."""
    names = sorted(rows["contender"].unique(), key=lambda name: (not name.startswith("evalkit"), name))
    for number, name in enumerate(names):
        line = rows[rows["contender"] == name].sort_values("at")
        axes.loglog(
            line["at"], line["seconds"], label=name, color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)], linewidth=2.2 if number == 0 else 1.2, markersize=4,
        )  # fmt: skip
    axes.set_title(str(rows["work"].iloc[0]), fontsize=9)
    axes.set_xlabel(str(rows["variable"].iloc[0]), fontsize=8)
    axes.set_ylabel("seconds", fontsize=8)
    axes.tick_params(labelsize=7)
    sizes = sorted(rows["at"].unique())
    axes.set_xticks(sizes, [f"{size:,}".replace(",", " ") for size in sizes], rotation=40, minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # powers of ten leave panels without a scale
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", linewidth=0.3)
    axes.legend(fontsize=7, frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path of the figure")
    arguments = parser.parse_args()
    files = sorted(Path(__file__).parent.glob("*_curve.csv"))
    rows = pd.concat([pd.read_csv(path) for path in files])
    works = [part for _, part in rows.groupby(["work", "variable"], sort=False)]
    down = -(-len(works) // ACROSS)
    figure, grid = plt.subplots(down, ACROSS, figsize=(4 * ACROSS, 3.1 * down), squeeze=False)
    for axes, part in zip(grid.flat, works, strict=False):
        panel(axes, part)
    for axes in list(grid.flat)[len(works) :]:
        axes.set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
