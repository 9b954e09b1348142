r"""Draw the report of the ladders: does each metric put the rungs in their known order?

    python benchmarks/metric_ladders_figure.py benchmarks/metric_ladders.csv \
        --out docs/figures/metric_ladders.png

A cell is Kendall's rank correlation between a metric and the known order, +1 where every rung is right,
with the sign of the metric's direction taken into account. Framed cells are what the metric claims (its laws
``ranks_fidelity`` and ``ranks_diversity``).
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.stats import kendalltau

from evalkit.metrics import METRICS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

LADDERS = {
    "noise": "ranks_fidelity",
    "blur": "ranks_fidelity",
    "jpeg": "ranks_fidelity",
    "classes": "ranks_diversity",
    "imbalance": "ranks_diversity",
    "training": "both",
}


def correlations(path: Path) -> dict[tuple[str, str], float]:
    """Return (metric, ladder) -> Kendall's tau with the known order, +1 for right."""
    points: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    direction = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points[row["metric"], row["ladder"]].append((int(row["position"]), float(row["value"])))
            direction[row["metric"]] = 1 if row["better"] == "lower" else -1
    found = {}
    for (metric, ladder), pairs in points.items():
        positions, values = zip(*sorted(pairs), strict=True)
        if len(set(values)) == 1 or len(values) < 2:
            continue
        tau = kendalltau(positions, values).statistic * direction[metric]
        found[metric, ladder] = float(np.nan_to_num(tau))
    return found


def claims(metric: str, ladder: str) -> bool:
    """Whether the metric declares that it ranks the ladder."""
    wanted = {"ranks_fidelity", "ranks_diversity"} if LADDERS[ladder] == "both" else {LADDERS[ladder]}
    laws = METRICS[metric].laws if metric in METRICS else frozenset()
    return wanted <= laws or (ladder == "noise" and "ranks_noise" in laws)


def main() -> None:
    """Draw the table of correlations and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = correlations(options.csv)
    ladders = [ladder for ladder in LADDERS if any(key[1] == ladder for key in found)]
    metrics = sorted({metric for metric, _ in found}, key=lambda m: (-sum(claims(m, x) for x in ladders), m))
    table = np.array([[found.get((m, ladder), np.nan) for ladder in ladders] for m in metrics])
    figure, axes = plt.subplots(figsize=(1.0 * len(ladders) + 2.2, 0.36 * len(metrics) + 1.6))
    axes.imshow(table, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for row, metric in enumerate(metrics):
        for column, ladder in enumerate(ladders):
            value = table[row, column]
            axes.text(column, row, "n/a" if np.isnan(value) else f"{value:+.2f}", ha="center", va="center",
                      fontsize=8, color="white" if abs(value) > 0.75 else "black")  # fmt: skip
            if claims(metric, ladder):
                axes.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, fill=False, lw=1.4))
    axes.set_xticks(range(len(ladders)), ladders)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.tick_params(length=0, labelsize=9, top=True, labeltop=True, bottom=False, labelbottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("Kendall's tau with the known order; framed: claimed by the metric", fontsize=8)
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=150)
    for row, metric in enumerate(metrics):
        print(f"{metric:12s}", " ".join(f"{ladder}={table[row, c]:+.2f}" for c, ladder in enumerate(ladders)))


if __name__ == "__main__":
    main()
