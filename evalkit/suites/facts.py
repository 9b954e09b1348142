"""A suite as plain frozen facts: its rows, the cells they expand to, and how each cell ended. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["one", "list", "repeated", "switch"]
Place = Literal["none", "path", "name-or-path", "pair"]
Ending = Literal["done", "failed", "interrupted"]

MANIFEST_SCHEMA = "evalkit.suite/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of ``evalkit score`` that a suite may set.

    Attributes:
        key: its name in the file; ``option`` on the command line.
        kind: one value, a list that is joined by commas, an option that is repeated, or a switch.
        place: whether a value is a path, a listed name or a path, or ``NAME=FILE``.
    """

    key: str
    option: str
    kind: Kind = "one"
    place: Place = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One flag with its values as text: ``written`` in the file, and ``values`` as the command gets them.

    They differ where a path is relative to the file of the suite.
    """

    flag: Flag
    written: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One ``[[model]]`` of the file, the defaults of the suite included.

    Attributes:
        name: of its row in tables, unique in the suite.
        settings: in the order of the flags of ``evalkit score``.
        place: where it stands in the file, for messages.
    """

    name: str
    model: str | None
    settings: tuple[Setting, ...]
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A whole file."""

    name: str
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of ``evalkit score``: a row under one protocol with one seed.

    Attributes:
        arguments: after ``evalkit score``, without the device and the output.
        key: digest of everything that can move its numbers; a cell of the same key is the same cell.
        files: paths among the arguments, or in them after ``NAME=``: what another machine must have.
    """

    row: str
    protocol: str
    seed: int
    arguments: tuple[str, ...]
    key: str
    place: str
    files: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How people read it."""
        return f"{self.row} · {self.protocol} · seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """How a cell ended the last time it ran.

    Attributes:
        exit_code: of ``evalkit score``, in the terms of :mod:`evalkit.errors`.
        seconds: wall clock of its process.
        run_id: of its record, where there is one.
    """

    row: str
    protocol: str
    seed: int
    status: Ending
    exit_code: int
    seconds: float
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``suite.json``: what has run below a folder, by the key of the cell."""

    schema: Literal["evalkit.suite/1"] = "evalkit.suite/1"
    suite: str
    cells: Mapping[str, CellState] = field(default_factory=dict)
