"""Everything on a board that is built: tables, page and figures, from its settings and published runs alone.

    report = build(Path("leaderboards/cifar10-jpeg"))

The same records give the same bytes, in whatever order they were added; current files stay untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.atomic import write_atomically
from evalkit.leaderboard.board import board_of, read_info
from evalkit.leaderboard.figures import (
    DIGESTS,
    SUFFIXES,
    Plot,
    can_draw,
    digests_json,
    draw,
    file_digest,
    plots_of,
    read_digests,
)
from evalkit.leaderboard.storage import read_stored
from evalkit.leaderboard.tidy import scores_csv
from evalkit.leaderboard.wide import table_csv, table_md

SCORES = "scores.csv"
PAGE = "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a board's built files must hold: whole texts by path, and the figures, whose bytes may differ."""

    texts: Mapping[str, str]
    plots: tuple[Plot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """Paths on the board that were written or removed, and whether figures were left out."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    undrawn: bool


def built_content(folder: Path) -> Content:
    """Return what the built files of a board must hold; nothing is written.

    Raises:
        UsageError: no board, or its settings are not allowed.
        InvalidInputError: a record or an entry cannot be read.
    """
    from evalkit.leaderboard.page import board_page  # noqa: PLC0415 - a table alone needs no templates

    stored = read_stored(folder)
    board = board_of(read_info(folder), stored)
    texts = {
        SCORES: scores_csv(board.info.name, stored),
        "table.csv": table_csv(board),
        "table.md": table_md(board),
        PAGE: board_page(board, csv_href=SCORES),
    }
    return Content(texts=texts, plots=plots_of(board))


def build(folder: Path) -> BuildReport:
    """Write what changed, and remove the figures that evalkit drew and the board no longer has.

    Without matplotlib figures that are current stay, and those that are not are removed.

    Raises:
        EvalkitError: see :func:`built_content`.
        TemporaryError: a file cannot be written.
    """
    content = built_content(folder)
    written = [path for path, text in content.texts.items() if _write(folder / path, text.encode())]
    before = read_digests(folder)
    expected = expected_figures(content.plots)
    current = {path for path, digest in expected.items() if _is_current(folder, path, digest, before)}
    drawing = can_draw()
    drawn = {path: pair for path, pair in before.items() if path in current}
    for plot in content.plots if drawing else ():
        if not current.issuperset(paths_of(plot)):
            for path, picture in draw(plot).items():
                drawn[path] = plot.digest(), file_digest(picture)
                written += [path] if _write(folder / path, picture) else []
    removed = [path for path in before if path not in drawn and _remove(folder, path, before[path][1])]
    if drawn:
        _write(folder / DIGESTS, digests_json(drawn).encode())
    else:
        (folder / DIGESTS).unlink(missing_ok=True)
    undrawn = not drawing and any(not current.issuperset(paths_of(plot)) for plot in content.plots)
    return BuildReport(written=tuple(written), removed=tuple(removed), undrawn=undrawn)


def paths_of(plot: Plot) -> tuple[str, ...]:
    """Return the files of a figure by path on the board."""
    return tuple(f"figures/{plot.stem}{suffix}" for suffix in SUFFIXES)


def expected_figures(plots: tuple[Plot, ...]) -> dict[str, str]:
    """Return the digest of the numbers in each figure that a board should have, by path."""
    return {path: plot.digest() for plot in plots for path in paths_of(plot)}


def _is_current(folder: Path, path: str, digest: str, drawn: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a figure is as evalkit drew it, of the numbers with that digest."""
    data, file = drawn.get(path, ("", ""))
    return data == digest and (folder / path).is_file() and file_digest((folder / path).read_bytes()) == file


def _write(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True


def _remove(folder: Path, path: str, digest: str) -> bool:
    """Remove a figure of a group that is gone, unless somebody has put another picture in its place."""
    file = folder / path
    if not file.is_file() or file_digest(file.read_bytes()) != digest:
        return False
    file.unlink()
    return True
