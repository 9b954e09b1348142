"""Tables and figure of ``sample_efficient_fd.py``; needs matplotlib (the ``plots`` extra)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

Row = dict[str, str]
ESTIMATES = {
    "raw": "raw distance at N",
    "first_order": "first-order jackknife",
    "spectrum": "spectrum alone",
    "predicted": "spectrum and jackknife",
}
COLOURS = {"raw": "#999999", "first_order": "#d55e00", "spectrum": "#56b4e9", "predicted": "#0072b2"}
LADDER_FROM = 10_000  # repetition numbers from here on belong to the ladder of raw distances


def joined(paths: Sequence[Path], out: Path) -> list[Row]:
    """Write all rows to one CSV file, which may be one of those read, and return them."""
    rows = []
    for path in paths:
        with path.open(newline="") as file:
            rows += list(csv.DictReader(file))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def columns(rows: Sequence[Row], head: str, *, ladder: bool) -> dict[int, dict[str, np.ndarray]]:
    """Return the numeric columns of one head for each N."""
    chosen = [r for r in rows if r["head"] == head and (int(r["repetition"]) >= LADDER_FROM) == ladder]
    found = {}
    for n in sorted({int(r["n"]) for r in chosen}):
        here = [r for r in chosen if int(r["n"]) == n]
        names = [k for k, v in here[0].items() if k != "head" and v]
        found[n] = {k: np.array([float(r[k]) for r in here]) for k in names}
    return found


def errors(columns_at_n: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Relative errors of an estimate, in percent of what is observed with the whole pool."""
    return 100 * (columns_at_n[name] / columns_at_n["observed"] - 1)


def bias(columns_at_n: dict[str, np.ndarray], name: str) -> tuple[float, float]:
    """Mean relative error in percent and its standard error, with the linear sampling noise taken off."""
    clean = errors(columns_at_n, name) - 100 * columns_at_n["influence"] / columns_at_n["observed"]
    return float(clean.mean()), float(clean.std(ddof=1) / np.sqrt(len(clean)))


def coverage(columns_at_n: dict[str, np.ndarray], *, narrowed: bool) -> float:
    """Part of the intervals that hold the observation, in percent."""
    share = columns_at_n["n"] / columns_at_n["pool"]
    reach = (columns_at_n["high"] - columns_at_n["low"]) / 2 * (np.sqrt(1 - share) if narrowed else 1)
    return float(100 * np.mean(np.abs(columns_at_n["predicted"] - columns_at_n["observed"]) <= reach))


def raw_images_for(error: float, ladder: dict[int, dict[str, np.ndarray]]) -> float:
    """Images that the raw distance needs for a root mean square error, by interpolation in log-log."""
    counts = np.array(list(ladder))
    sizes = np.array([np.sqrt(np.mean(errors(c, "raw") ** 2)) for c in ladder.values()])
    order = np.argsort(sizes)
    if error < sizes.min():
        return float("inf")
    return float(np.exp(np.interp(np.log(error), np.log(sizes[order]), np.log(counts[order]))))


def tables(rows: Sequence[Row]) -> str:
    """Return the table of errors, coverage and cost as Markdown."""
    titles = (
        "head", "N/d", "N", "repetitions", "raw", "1st-order jackknife (bias)", "prediction (mean error)",
        "prediction (bias)", "mean abs error", "coverage, not narrowed", "coverage", "raw N for equal error",
        "saved",
    )  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for head in sorted({r["head"] for r in rows}):
        ladder = columns(rows, head, ladder=True)
        for n, c in columns(rows, head, ladder=False).items():
            error = errors(c, "predicted")
            needed = raw_images_for(float(np.sqrt(np.mean(error**2))), ladder)
            clean, doubt = bias(c, "predicted")
            raw, first = errors(c, "raw").mean(), bias(c, "first_order")[0]
            spread = error.std(ddof=1) / np.sqrt(len(error))
            lines.append(
                f"| {head} | {n / c['dimension'][0]:.1f} | {n} | {len(error)} | {raw:+.1f} % "
                f"| {first:+.1f} % "
                f"| {error.mean():+.2f} ± {spread:.2f} % | {clean:+.2f} ± {doubt:.2f} % "
                f"| {np.abs(error).mean():.2f} % | {coverage(c, narrowed=False):.1f} % "
                f"| {coverage(c, narrowed=True):.1f} % | {needed:.0f} | {needed / n:.1f}x |"
            )
    return "\n".join(lines)


def draw(rows: Sequence[Row], figure: Path) -> None:
    """Write the figure as PNG and SVG: bias against N/d, and where single predictions fall."""
    mpl.rcParams.update({"svg.hashsalt": "evalkit", "font.size": 9})
    heads = sorted({r["head"] for r in rows})
    fig, grid = plt.subplots(2, len(heads), figsize=(5 * len(heads), 6.4), squeeze=False)
    for column, head in enumerate(heads):
        draw_bias(grid[0][column], columns(rows, head, ladder=False), head)
        draw_single(grid[1][column], columns(rows, head, ladder=False), columns(rows, head, ladder=True))
    fig.tight_layout()
    figure.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(figure.with_suffix(".png"), dpi=150, metadata={"Software": None})
    fig.savefig(figure.with_suffix(".svg"), metadata={"Date": None})
    plt.close(fig)


def draw_bias(axes: plt.Axes, by_count: dict[int, dict[str, np.ndarray]], head: str) -> None:
    """Bias of every estimate of the distance at the whole pool."""
    first = next(iter(by_count.values()))
    dimension, pool = int(first["dimension"][0]), int(first["pool"][0])
    ratios = np.array(list(by_count)) / dimension
    for name, label in ESTIMATES.items():
        points = np.array([bias(c, name) for c in by_count.values()])
        axes.errorbar(ratios, points[:, 0], 2 * points[:, 1], color=COLOURS[name], label=label, capsize=2)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.axvspan(0, 1.6, color="#eeeeee", zorder=0)
    axes.text(1.58, 42, "refused", ha="right", fontsize=8, color="#666666")
    axes.set(
        title=f"{head}: {dimension}-d, predicted at N = {pool}", xlabel="images per dimension, N / d",
        ylabel="bias, % of the observed distance", ylim=(-50, 50), xlim=(1, 5.2),
    )  # fmt: skip
    axes.legend(fontsize=7, loc="lower right")


def draw_single(
    axes: plt.Axes, by_count: dict[int, dict[str, np.ndarray]], ladder: dict[int, dict[str, np.ndarray]]
) -> None:
    """Raw distances and predictions, one dot a repetition, against N."""
    for name, source in (("raw", ladder), ("predicted", by_count)):
        counts = np.concatenate([c["n"] for c in source.values()])
        values = np.concatenate([c[name] for c in source.values()])
        axes.plot(counts, values, ".", color=COLOURS[name], alpha=0.35, label=ESTIMATES[name])
    axes.axhline(next(iter(by_count.values()))["observed"][0], color="black", linewidth=0.6, label="observed")
    axes.set(xscale="log", xlabel="images N", ylabel="Fréchet distance", ylim=(0, None))
    shown = [min(by_count), *list(ladder)[1::2]]
    axes.set_xticks(shown, [str(n) for n in shown])
    axes.minorticks_off()
    axes.legend(fontsize=7)
