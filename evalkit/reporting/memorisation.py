"""The memorisation report: a table of every sample with its nearest training image, and a summary."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit.atomic import write_atomically
from evalkit.errors import UsageError
from evalkit.numerics.memorisation import MemorisationTable
from evalkit.numerics.shares import Proportion
from evalkit.reporting.formatting import significant
from evalkit.spec import Spec
from evalkit.spreadsheets import inert_text, utf8_text

SUFFIXES = (".csv", ".parquet")
_MEANINGS = {
    "exact": "features equal to a training image's, bit for bit",
    "near": "nearer to a training image than its closest pairs are to each other",
    "authentic": "farther from its training image than that one's own neighbour",
}


@dataclass(frozen=True, slots=True, eq=False)
class MemorisationReport:
    """What was found.

    Attributes:
        table: the numbers, sample by sample.
        generated_names: name of each sample.
        training_names: name of the nearest training image of each sample.
        identical: bool ``[n]`` whether all pixels are equal; None where training images are not at hand.
        subject: what was searched; ``training``: what it was searched for in.
        training_count: training images that there are; more than ``table.training_rows`` where some features
            only were kept.
        extractor: the network; ``head``: the features that distances are taken in.
        near_quantile: the quantile behind the threshold of near duplicates.
    """

    table: MemorisationTable
    generated_names: tuple[str, ...]
    training_names: tuple[str, ...]
    identical: NDArray[np.bool_] | None
    subject: str
    training: str
    training_count: int
    extractor: Spec
    head: str
    near_quantile: float

    def frame(self) -> pd.DataFrame:
        """One row for each sample, in index order."""
        table = self.table
        columns: dict[str, Any] = {
            "index": np.arange(len(table.distance), dtype=np.int64),
            "generated": pd.Series(self.generated_names, dtype="str"),
            "training_index": table.nearest,
            "training": pd.Series(self.training_names, dtype="str"),
            "distance": table.distance,
            "second_distance": table.second_distance,
            "training_neighbour_distance": table.own_distance,
            "ratio_to_second": table.ratio_to_second,
            "ratio_to_neighbour": table.ratio_to_own,
            "exact": table.exact,
            "near": table.near,
            "authentic": table.authentic,
        }
        if self.identical is not None:
            columns["identical_pixels"] = self.identical
        return pd.DataFrame(columns)

    def to_json(self, *, count: int) -> dict[str, Any]:
        """Return the summary and the ``count`` samples most like a training image as JSON data."""
        table = self.table
        return {
            "subject": self.subject,
            "training": self.training,
            "n": len(table.distance),
            "training_searched": table.training_rows,
            "training_count": self.training_count,
            "extractor": self.extractor.to_json(),
            "head": self.head,
            "near_quantile": self.near_quantile,
            "near_threshold": table.threshold,
            "identical_pixels": None if self.identical is None else int(self.identical.sum()),
            "distinct_training_images": len(np.unique(table.nearest[table.exact | table.near])),
            "summary": {name: _interval(part) for name, part in table.summary().items()},
            "most_alike": [self._pair(int(row)) for row in table.most_alike(count)],
        }

    def _pair(self, row: int) -> dict[str, Any]:
        ratio = float(self.table.ratio_to_own[row])
        return {
            "index": row,
            "generated": self.generated_names[row],
            "training_index": int(self.table.nearest[row]),
            "training": self.training_names[row],
            "distance": float(self.table.distance[row]),
            "ratio_to_neighbour": ratio if math.isfinite(ratio) else None,
            "kind": self.kind(row),
        }

    def kind(self, row: int) -> str:
        """Return ``identical``, ``exact``, ``near`` or ``new``."""
        if self.identical is not None and self.identical[row]:
            return "identical"
        return "exact" if self.table.exact[row] else "near" if self.table.near[row] else "new"


def check_table_path(path: Path) -> None:
    """Check that a table can be written there.

    Raises:
        UsageError: the suffix is none of a known format.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name!r} is no kind of table", hint=f"end it with {' or '.join(SUFFIXES)}")


def write_table(path: Path, report: MemorisationReport) -> None:
    """Write the table as CSV or parquet, told by the suffix; the whole file or none.

    In CSV a name that a spreadsheet would take for a formula begins with an apostrophe.

    Raises:
        UsageError: another suffix.
        TemporaryError: the disk is full or read-only.
    """
    check_table_path(path)
    frame = report.frame()
    csv = path.suffix.lower() == ".csv"
    for column in ("generated", "training"):
        frame[column] = [inert_text(name) if csv else utf8_text(name) for name in frame[column]]
    if csv:
        write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))
        return
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    write_atomically(path, buffer.getvalue())


def summary_text(report: MemorisationReport, *, count: int) -> str:
    """Return the report as lines for people: counts with 95 % intervals, and the ``count`` closest pairs."""
    table = report.table
    network = f"{report.extractor.name} {report.head}"
    lines = [
        f"Memorisation of {report.training} by {report.subject}",
        f"{len(table.distance)} samples against {table.training_rows} training images, {network}",
        "",
    ]
    for name, part in table.summary().items():
        share = f"{100 * part.share:.2f} % [{100 * part.low:.2f}, {100 * part.high:.2f}]"
        lines.append(f"{name:>9}  {part.count:>6}  {share:<24}  {_MEANINGS[name]}")
    if report.identical is not None:
        lines.append(f"identical  {int(report.identical.sum()):>5}  all pixels equal")
    if table.threshold is not None:
        far, expected = significant(table.threshold, 4), 100 * report.near_quantile
        lines.append(f"near: at most {far} away; about {expected:g} % of new images are so by chance")
    lines += ["", "closest pairs (distance; over the training image's own neighbour distance)"]
    for row in table.most_alike(count):
        ratio = table.ratio_to_own[row]
        lines.append(
            f"  {_plain(report.generated_names[row])} - {_plain(report.training_names[row])}  "
            f"{significant(float(table.distance[row]), 4)}  "
            f"{significant(float(ratio), 3) if np.isfinite(ratio) else 'inf'}  {report.kind(int(row))}"
        )
    return "\n".join(lines) + "\n"


def _interval(part: Proportion) -> Mapping[str, float | int]:
    return {"count": part.count, "share": part.share, "low": part.low, "high": part.high}


def _plain(name: str) -> str:
    """Return a name that cannot move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in name)
