"""What a report shows, as plain frozen facts: sections, each with blocks that stand alone or once a model.

    Report(
        title="cgan", subtitle="cifar10-jpeg/train", names=("cgan",),
        sections=(Section(anchor="samples", title="Samples", sides=((Paragraph(text="…"),),)),),
    )

Every text is plain text, and untrusted: the page escapes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from evalkit.errors import InvalidInputError
from evalkit.reporting.rendering import Table

_PICTURE = re.compile(r"data:image/(?:webp|png);base64,[A-Za-z0-9+/]+=*")
_ANCHOR = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image of the page.

    Attributes:
        data: the file as a ``data:`` URI, WebP or PNG.
        width: of the file in pixels; ``height`` likewise.
        alt: what it is, in words.
        caption: below it; may be empty.
    """

    data: str
    width: int
    height: int
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not _PICTURE.fullmatch(self.data):
            raise InvalidInputError("a picture of a report is a data: URI of a WebP or PNG file")
        if min(self.width, self.height) < 1 or not self.alt:
            raise InvalidInputError("a picture of a report has a size and a text that stands for it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A sentence or a few; ``tone`` is ``warning`` for what a reader must not miss, ``dim`` for an aside."""

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures side by side that wrap; a ``strip`` keeps them in one row, edge to edge.

    ``title`` stands above them; ``label`` is for screen readers, where there is no title.
    """

    kind: ClassVar[str] = "pictures"
    pictures: tuple[Picture, ...]
    title: str = ""
    label: str = ""
    strip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Groups of pictures, several of them beside each other where there is room."""

    kind: ClassVar[str] = "gallery"
    groups: tuple[Pictures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A sample, and the real images nearest to it, nearest first; ``note`` says what is special about it."""

    sample: Picture
    real: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Samples with their nearest real images."""

    kind: ClassVar[str] = "matches"
    title: str
    rows: tuple[Match, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBlock:
    """A table of numbers; ``folded`` keeps it closed until it is asked for."""

    kind: ClassVar[str] = "table"
    table: Table
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values, as in a record; ``folded`` keeps them closed until they are asked for."""

    kind: ClassVar[str] = "facts"
    title: str
    pairs: tuple[tuple[str, str], ...]
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, to be copied."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A value at ``x`` with the ends of its error bar."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of one line."""

    label: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over one logarithmic x axis; the numbers are also shown as a table."""

    kind: ClassVar[str] = "chart"
    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One interval: ``value``, and its ends where known; ``side`` is the model's place from the left."""

    name: str
    value: float
    side: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRow:
    """The intervals of all models in one metric; every row has its own scale."""

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Intervals row by row, as in a forest plot."""

    kind: ClassVar[str] = "intervals"
    title: str
    rows: tuple[IntervalRow, ...]
    note: str = ""


Block = Paragraph | Pictures | Gallery | Matches | TableBlock | Facts | Command | Chart | Intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page: ``common`` blocks, then those of each model side by side (empty: none)."""

    anchor: str
    title: str
    common: tuple[Block, ...] = ()
    sides: tuple[tuple[Block, ...], ...] = ()

    def __post_init__(self) -> None:
        if not _ANCHOR.fullmatch(self.anchor):
            raise InvalidInputError(f"{self.anchor!r} is no anchor of a section")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report about one model or two, whose ``names`` stand above their columns."""

    title: str
    subtitle: str
    names: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str = ""

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInputError("a report has one model at least")
        wrong = [section.title for section in self.sections if len(section.sides) not in {0, len(self.names)}]
        if wrong:
            raise InvalidInputError(f"section {wrong[0]!r} has not one column for each of {self.names}")
