"""A board in the forms that other tools read: spreadsheets, programs, papers and model cards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.leaderboard.board import board_of, read_info
from evalkit.leaderboard.facts import Board, Entry
from evalkit.leaderboard.latex import to_latex
from evalkit.leaderboard.model_index import model_card_yaml
from evalkit.leaderboard.storage import read_stored
from evalkit.leaderboard.tidy import scores_csv
from evalkit.leaderboard.wide import group_table, table_csv, table_md
from evalkit.registry import did_you_mean

_BOM = "\ufeff"
_CARD: Final = "model-card"
_NAMING = "a row's name, or a model's id; evalkit leaderboard show DIR lists them"


def export(folder: Path, form: str, *, model: str | None = None, bom: bool = False) -> str:
    """Return a board in one of :data:`FORMS`.

    Args:
        folder: of the board.
        form: name of the form.
        model: row that a model card is about: its name or its model's id; a card needs one.
        bom: begin CSV with a byte order mark, without which Excel takes UTF-8 for another encoding.

    Raises:
        UsageError: no board, no such form, or flags that do not belong to it.
        NothingMeasuredError: the board has no run, or none of that model.
        InvalidInputError: a record or an entry cannot be read.
    """
    if form not in FORMS:
        raise UsageError(f"no format {form!r}", hint=did_you_mean(form, FORMS))
    if bom and form not in {"csv", "scores-csv"}:
        raise UsageError(f"--bom belongs to CSV, not to {form}", hint="leave it out")
    if (model is None) == (form == _CARD):
        wrong, hint = (
            ("needs --model NAME", _NAMING) if model is None else ("takes no --model", "leave it out")
        )
        raise UsageError(f"--format {form} {wrong}", hint=hint)
    if form == "scores-csv":
        return _begun(scores_csv(read_info(folder).name, read_stored(folder)), bom=bom)
    board = board_of(read_info(folder), read_stored(folder))
    if not board.groups:
        raise NothingMeasuredError(
            f"{folder} holds no runs", hint="evalkit leaderboard add RECORD --board DIR"
        )
    if model is not None:
        return model_card_yaml(entries_of(board, model))
    return _begun(_WRITERS[form](board), bom=bom)


def entries_of(board: Board, model: str) -> Sequence[Entry]:
    """Return the rows with that name, else those of the model with that id.

    Raises:
        NothingMeasuredError: there is none.
    """
    entries = [entry for group in board.groups for entry in group.entries]
    named = [entry for entry in entries if entry.name == model]
    found = named or [entry for entry in entries if entry.record.model.id == model]
    if not found:
        raise NothingMeasuredError(
            f"the board has no model {model!r}", hint=did_you_mean(model, [entry.name for entry in entries])
        )
    return found


def _json(board: Board) -> str:
    groups = [
        {
            "fingerprint": group.fingerprint,
            "headline": group.headline,
            "rows": [dict(row) for row in group_table(group).data],
        }
        for group in board.groups
    ]
    content = {"board": board.info.name, "title": board.info.title, "groups": groups}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _latex(board: Board) -> str:
    return "\n".join(to_latex(group_table(group)) for group in board.groups)


def _begun(text: str, *, bom: bool) -> str:
    return f"{_BOM}{text}" if bom else text


_WRITERS: Mapping[str, Callable[[Board], str]] = {
    "csv": table_csv,
    "md": table_md,
    "json": _json,
    "latex": _latex,
}
FORMS: Final = ("csv", "scores-csv", "md", "json", "latex", _CARD)
"""``csv`` is a row a model, ``scores-csv`` a row a number; ``json`` holds the rows of ``csv``."""
