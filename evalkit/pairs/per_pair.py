"""Every value of every pair as a table, for a spreadsheet or for pandas."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit.atomic import write_atomically
from evalkit.errors import UsageError
from evalkit.extraction import Extracted
from evalkit.pairs.readings import Reading
from evalkit.pairs.sources import PairSource
from evalkit.registry import did_you_mean
from evalkit.spec import Better
from evalkit.spreadsheets import inert_text, utf8_text

_PREFERRED = ("lpips", "pd", "ssim", "psnr")


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Values of all pairs in index order.

    Attributes:
        names: of the generated and of the reference image.
        columns: heading (``ssim``, ``lpips:alex/inside``) -> float32 ``[n]``; NaN where a region is empty.
        better: heading -> which direction is an improvement.
    """

    names: tuple[tuple[str, str], ...]
    columns: Mapping[str, NDArray[np.float32]]
    better: Mapping[str, Better]

    @classmethod
    def of(cls, pairs: PairSource, readings: Sequence[Reading], rows: Mapping[str, Extracted]) -> PairTable:
        """Collect the rows of a run, which ``rows`` holds by head."""
        return cls(
            tuple(pairs.names(index) for index in range(len(pairs))),
            {r.heading: r.column(rows[r.head].features(r.head)) for r in readings},
            {r.heading: r.metric.better for r in readings},
        )

    def worst(self, heading: str, count: int) -> list[int]:
        """Return the indices of the ``count`` worst pairs, worst first; equal ones in index order."""
        values = self.columns[heading].astype(np.float64)
        badness = values if self.better[heading] == "lower" else -values
        order = np.argsort(-badness, kind="stable")
        return [int(index) for index in order if not np.isnan(values[index])][:count]


def find_heading(asked: str | None, known: Sequence[str]) -> str:
    """Return the heading that ``asked`` means: itself, ``lpips`` or ``lpips-alex``; None chooses one.

    Raises:
        UsageError: nothing of that name is measured.
    """
    if asked is None:
        names = [name for kind in _PREFERRED for name in known if name.partition(":")[0] == kind]
        return next(iter(names), known[0])
    value, slash, region = asked.partition("/")
    for name in known:
        of, _, where = name.partition("/")
        fits = value in {of, of.partition("@")[0].replace(":", "-"), of.partition(":")[0]}
        if fits and (not slash or region == where or (region == "whole" and not where)):
            return name
    raise UsageError(f"--worst-by {asked!r} is not measured", hint=did_you_mean(asked, known))


def write_per_pair(path: Path, table: PairTable) -> None:
    """Write the table as CSV or parquet, told by the suffix; the whole file or none.

    In CSV a name that a spreadsheet would take for a formula begins with an apostrophe.

    Raises:
        TemporaryError: the disk is full or read-only.
    """
    csv = path.suffix.lower() == ".csv"
    names = [tuple(map(inert_text if csv else utf8_text, pair)) for pair in table.names]
    frame = pd.DataFrame(
        {
            "index": np.arange(len(names), dtype=np.int64),
            "generated": pd.Series([one for one, _ in names], dtype="str"),
            "reference": pd.Series([other for _, other in names], dtype="str"),
            **table.columns,
        }
    )
    if csv:
        write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))
        return
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    write_atomically(path, buffer.getvalue())
