"""A board's settings and its rows: one a model and way of sampling, in groups that compare, best first.

board = read_board(Path("leaderboards/cifar10-jpeg"))
for entry in board.groups[0].entries:
    print(entry.ranks, entry.name)
"""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalkit.atomic import write_atomically
from evalkit.errors import UsageError
from evalkit.leaderboard.entries import check_line
from evalkit.leaderboard.facts import Board, BoardInfo, Entry, Group
from evalkit.leaderboard.naming import row_names, subject
from evalkit.leaderboard.ranking import (
    Estimate,
    Place,
    estimate_of,
    headline_of,
    pareto_marks,
    rank_ranges,
    result_of,
    variant_of,
)
from evalkit.leaderboard.storage import LOCK, Stored, read_stored
from evalkit.record import check_identifier
from evalkit.registry import did_you_mean
from evalkit.reporting.costs import fastest
from evalkit.spec import Better

SETTINGS = "board.toml"
_KEYS = ("name", "title", "description", "headline")
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 200, 5000


def create_board(folder: Path, info: BoardInfo) -> None:
    """Write the settings of a new board.

    Raises:
        UsageError: there is a board already, or a setting is not allowed.
        TemporaryError: the folder cannot be written to.
    """
    path = folder / SETTINGS
    if path.exists():
        raise UsageError(f"{folder} is a board already", hint=f"edit {path}, then evalkit leaderboard build")
    _check(info, str(path))
    settings = {key: getattr(info, key) for key in _KEYS}
    # JSON writes a text as TOML does, but for the one control character that no setting may hold.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items() if value]
    # A temporary file is left behind only where a writer was killed.
    _ensure_lines(folder / ".gitignore", (LOCK, ".*.tmp"))
    # The digests of published files are of their bytes: git must not change the ends of their lines.
    _ensure_lines(folder / ".gitattributes", ("* -text",))
    write_atomically(path, "".join(lines))


def read_info(folder: Path) -> BoardInfo:
    """Read ``board.toml``; a board without a name is called as its folder.

    Raises:
        UsageError: no board, not TOML, an unknown key, or a value that is not allowed.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise UsageError(
            f"{folder} is no leaderboard: it has no {SETTINGS}",
            hint=f"make one: evalkit leaderboard new {folder} --title TITLE",
        )
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", hint='for example title = "My models"') from error
    for key, value in settings.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: unknown key {key!r}", hint=did_you_mean(key, _KEYS))
        if not isinstance(value, str):
            raise UsageError(f"{path}: {key} must be text, not {value!r}", hint=f'{key} = "…"')
    name = settings.get("name") or folder.resolve().name
    info = BoardInfo(**{"name": name, "title": name} | settings)
    _check(info, str(path))
    return info


def read_board(folder: Path) -> Board:
    """Return the board of a folder: of several runs with one subject only the newest has a row.

    Raises:
        UsageError: no board, a setting that is not allowed, or a headline that no record holds.
        InvalidInputError: a record or an entry cannot be read.
    """
    return board_of(read_info(folder), read_stored(folder))


def board_of(info: BoardInfo, stored: Iterable[Stored]) -> Board:
    """Return the board of published runs.

    Raises:
        UsageError: no record holds the headline metric.
    """
    rows = _newest(stored)
    _require_headline(info, rows)
    names = row_names(rows)
    alike: defaultdict[str, list[Stored]] = defaultdict(list)
    for row in rows:
        alike[row.record.protocol.fingerprint].append(row)
    groups = [_group(group, names, info.headline) for group in alike.values()]
    groups.sort(key=lambda group: (-len(group.entries), not group.headline, group.fingerprint))
    return Board(info=info, groups=tuple(groups))


def _ensure_lines(path: Path, wanted: Sequence[str]) -> None:
    """Append the lines that a file does not have yet; what others wrote in it stays."""
    before = path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""
    missing = [line for line in wanted if line not in before.splitlines()]
    if missing:
        gap = "\n" if before and not before.endswith("\n") else ""
        after = before + gap + "".join(f"{line}\n" for line in missing)
        write_atomically(path, after.encode("utf-8", "surrogateescape"))


def _check(info: BoardInfo, where: str) -> None:
    try:
        check_identifier(info.name, what="name of a board")
        check_line(info.title, what="title", longest=_LONGEST_TITLE)
        check_line(info.description.replace("\n", ""), what="description", longest=_LONGEST_DESCRIPTION)
        if info.headline is not None:
            check_identifier(info.headline, what="headline")
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error


def _newest(stored: Iterable[Stored]) -> list[Stored]:
    """Return the newest run of each subject, by run id."""
    found: dict[tuple[object, ...], Stored] = {}
    for run in sorted(stored, key=lambda run: (run.record.created_utc, run.record.run_id)):
        found[subject(run)] = run
    return sorted(found.values(), key=lambda run: run.record.run_id)


def _require_headline(info: BoardInfo, rows: Sequence[Stored]) -> None:
    labels = {result.metric for row in rows for result in row.record.results}
    if info.headline and labels and info.headline not in labels:
        raise UsageError(
            f"{SETTINGS}: no record holds the headline {info.headline!r}",
            hint=did_you_mean(info.headline, labels),
        )


def _group(rows: Sequence[Stored], names: dict[str, str], wanted: str | None) -> Group:
    records = [row.record for row in rows]
    headline = headline_of(records, wanted)
    variant = variant_of(records, headline)
    results = {r.run_id: found for r in records if (found := result_of(r, headline, variant))}
    better: Better = next((result.direction for result in results.values()), "lower")
    estimates = {run_id: estimate_of(result) for run_id, result in results.items()}
    ranks = dict(zip(estimates, rank_ranges(list(estimates.values()), better), strict=True))
    front = _front(rows, estimates, better)
    entries = [
        Entry(
            record=row.record,
            name=names[row.record.run_id],
            trust=row.entry.trust,
            source_url=row.entry.source_url,
            notes=row.entry.notes,
            ranks=ranks.get(row.record.run_id),
            pareto=row.record.run_id in front,
            grid=row.grid,
        )
        for row in rows
    ]
    sign = 1.0 if better == "lower" else -1.0

    def order(entry: Entry) -> tuple[bool, float, str]:
        known = estimates.get(entry.record.run_id)
        return known is None, sign * known.value if known else 0.0, entry.name

    fingerprint = rows[0].record.protocol.fingerprint
    ordered = tuple(sorted(entries, key=order))
    return Group(fingerprint=fingerprint, headline=headline, variant=variant, entries=ordered)


def _front(rows: Sequence[Stored], estimates: dict[str, Estimate], better: Better) -> set[str]:
    places = {
        row.record.run_id: Place(estimates[row.record.run_id].value, speed.throughput, speed.device)
        for row in rows
        if row.record.run_id in estimates and (speed := fastest(row.record)) and speed.throughput > 0
    }
    marks = pareto_marks(list(places.values()), better)
    return {run_id for run_id, mark in zip(places, marks, strict=True) if mark}
