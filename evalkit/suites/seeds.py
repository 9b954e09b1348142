"""Scores over seeds: what drawing other samples from the same weights does to them. No torch.

Over k seeds the value is the mean of the runs, its error s / sqrt(k) with s² = Σ (x - mean)² / (k - 1). The
error bar of one run estimates s from within; where both exist, they can be compared.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.footnotes import Footnotes, has_small_sample, is_frechet, is_kernel
from evalkit.reporting.formatting import ARROWS, MISSING, measured
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.spec import Better, Scalar

_Metric = tuple[str, str]
_LEGEND = "↓ lower is better, ↑ higher is better; ± standard error between seeds (s / √seeds)"
_FACT = "Seeds draw other samples of the same weights: this is the spread of sampling, not of training."


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean of one metric over ``count`` seeds, and the deviation between them (None for one seed)."""

    mean: float
    deviation: float | None
    count: int

    @property
    def error(self) -> float | None:
        """Standard error of the mean, deviation / sqrt(count)."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.count)

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of some values, or None of none."""
        if not values:
            return None
        return cls(
            statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
        )


@dataclass(frozen=True, slots=True)
class _Column:
    """One metric over all rows."""

    metric: _Metric
    label: str
    direction: Better
    spreads: Mapping[str, Spread | None]
    warnings: Mapping[str, tuple[str, ...]]

    @property
    def best(self) -> float | None:
        """The best mean, where there is something to choose from."""
        means = {spread.mean for spread in self.spreads.values() if spread is not None}
        if len(means) < 2:
            return None
        return min(means) if self.direction == "lower" else max(means)

    def rank(self, row: str) -> tuple[float, str]:
        """Best first, what was not measured last."""
        spread = self.spreads[row]
        if spread is None:
            return math.inf, row
        return (spread.mean if self.direction == "lower" else -spread.mean), row

    def cell(self, row: str, footnotes: Footnotes) -> Cell:
        spread = self.spreads[row]
        if spread is None:
            return Cell(MISSING)
        marks = footnotes.add(self.warnings[row], small_sample=is_frechet(self.metric[0]))
        return Cell(measured(spread.mean, spread.error), best=spread.mean == self.best, marks=marks)

    def data(self, row: str) -> dict[str, Scalar]:
        spread = self.spreads[row]
        return {
            self.label: spread.mean if spread else None,
            f"{self.label}_se": spread.error if spread else None,
            f"{self.label}_sd": spread.deviation if spread else None,
        }


def seeds_table(runs: Iterable[tuple[str, RunRecord]], *, title: str) -> Table:
    """Return one row a model: each metric's mean over its seeds, with the standard error between seeds.

    Args:
        runs: name of the row, and record; all of one protocol fingerprint.
        title: of the table.
    """
    rows: dict[str, list[RunRecord]] = {}
    for name, record in runs:
        rows.setdefault(name, []).append(record)
    columns, footnotes = _columns(rows), Footnotes()
    names = sorted(rows, key=columns[0].rank) if columns else list(rows)
    # Column by column, so that footnotes are numbered as in the comparison of models.
    cells = [[column.cell(name, footnotes) for name in names] for column in columns]
    return Table(
        title=title,
        columns=(Column("model", "left"), Column("seeds"), *_headings(columns)),
        rows=tuple(
            (Cell(name), Cell(str(len(rows[name]))), *(column[i] for column in cells))
            for i, name in enumerate(names)
        ),
        legend=_LEGEND,
        facts=(_FACT,),
        notes=footnotes.notes(),
        data=tuple(_data(name, rows[name], columns) for name in names),
    )


def _columns(rows: Mapping[str, Sequence[RunRecord]]) -> list[_Column]:
    """Return the metrics in order of first appearance, kernel distances first where a sample is small."""
    results = [result for records in rows.values() for record in records for result in record.results]
    directions = {_metric(result): result.direction for result in results}
    metrics = list(directions)
    if any(map(has_small_sample, results)):
        metrics.sort(key=lambda metric: not is_kernel(metric[0]))
    counts = Counter(name for name, _ in metrics)
    found = {metric: {name: _of(records, metric) for name, records in rows.items()} for metric in metrics}
    return [
        _Column(
            metric,
            "/".join(metric) if counts[metric[0]] > 1 and metric[1] else metric[0],
            directions[metric],
            {name: Spread.of([r.value for r in those]) for name, those in found[metric].items()},
            {name: tuple(w for r in those for w in r.warnings) for name, those in found[metric].items()},
        )
        for metric in metrics
    ]


def _metric(result: MetricResult) -> _Metric:
    return result.metric, result.variant


def _of(records: Sequence[RunRecord], metric: _Metric) -> list[MetricResult]:
    return [result for record in records for result in record.results if _metric(result) == metric]


def _headings(columns: Sequence[_Column]) -> list[Column]:
    """A terminal has no room to repeat the one extractor that all labels name; the title does."""
    extractors = {column.label.partition(":")[2] for column in columns}
    shared = extractors.pop() if len(extractors) == 1 else ""
    return [
        Column(
            f"{column.label} {ARROWS[column.direction]}",
            short=f"{column.label.removesuffix(f':{shared}') if shared else column.label} "
            f"{ARROWS[column.direction]}",
        )
        for column in columns
    ]


def _data(name: str, records: Sequence[RunRecord], columns: Sequence[_Column]) -> dict[str, Scalar]:
    row: dict[str, Scalar] = {"model": name, "family": records[0].model.family, "seeds": len(records)}
    for column in columns:
        row |= column.data(name)
    return row | {
        "protocol": records[0].protocol.name,
        "fingerprint": records[0].protocol.fingerprint,
        "run_ids": " ".join(record.run_id for record in records),
    }
