"""A leaderboard as plain frozen facts: what its folder holds, and what its tables and pages are made of.

- ``board.toml``: name, title, what it is about; written by hand.
- ``records/RUN.json``: run records, append-only.
- ``entries/RUN.json``: what a record cannot know (trust, source, notes), append-only.
- ``samples/RUN.webp``: a grid of a run's samples, append-only.
- ``scores.csv``, ``table.csv``, ``table.md``, ``index.html``, ``figures/``: built; never edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalkit.record import RunRecord

Trust = Literal["measured", "reproduced", "reported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardInfo:
    """``board.toml``. ``headline``: label of the metric that ranks; None for the first of the records."""

    name: str
    title: str
    description: str = ""
    headline: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run on the board.

    Attributes:
        record: what was measured.
        name: of its row, unique on the board.
        ranks: best and worst rank among the rows of its fingerprint that its interval allows; None where the
            headline metric is missing.
        pareto: no other row of its fingerprint is both better in the headline metric and faster.
        grid: WebP bytes of a grid of its samples.
    """

    record: RunRecord
    name: str
    trust: Trust = "measured"
    source_url: str = ""
    notes: str = ""
    ranks: tuple[int, int] | None = None
    pareto: bool = False
    grid: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Entries of one protocol fingerprint, best first: only these rank together.

    ``variant`` is that of the headline metric which ranks; None for the first that a record has.
    """

    fingerprint: str
    headline: str
    entries: tuple[Entry, ...]
    variant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A whole board; the group with most entries first."""

    info: BoardInfo
    groups: tuple[Group, ...]
