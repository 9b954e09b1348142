"""One model of a leaderboard's tidy CSV (a row a metric) as the numbers of a baseline.

Accepted trade-offs: a row has no blocks, so its error bar is never paired, and its degrees of freedom are
read back from the width of its interval (see :func:`evalkit.gate.quantities.degrees_of`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.gate.facts import Quantity
from evalkit.gate.quantities import SPEEDS, degrees_of
from evalkit.gate.subjects import Identity
from evalkit.registry import did_you_mean
from evalkit.spec import Better, Interval

_LEVEL = 0.95  # of every interval on a leaderboard
_NEEDED = ("model_id", "metric", "direction", "value", "fingerprint", "run_id", "date_utc")
_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """What a leaderboard says of one run."""

    model: str
    run_id: str
    fingerprint: str
    seeds: str
    quantities: tuple[Quantity, ...]
    identity: Identity | None
    notes: tuple[str, ...]


def read_board_row(path: Path, model: str, fingerprint: str) -> BoardRow:
    """Return the newest run of ``model`` with ``fingerprint``, or its newest run where none has it.

    Raises:
        NothingMeasuredError: no row of that model.
        UsageError: no model is named, or it is no tidy leaderboard.
        InvalidInputError: not UTF-8, a row of another length, or a value that is not a finite number.
    """
    rows = _read(path)
    models = sorted({row["model_id"] for row in rows})
    if not model:
        raise UsageError(f"{path} holds many models", hint=f"name one after #; {did_you_mean('', models)}")
    own = [row for row in rows if row["model_id"] == model]
    if not own:
        raise NothingMeasuredError(f"{path} has no model {model!r}", hint=did_you_mean(model, models))
    comparable = [row for row in own if row["fingerprint"] == fingerprint] or own
    newest = max(comparable, key=lambda row: (row["date_utc"], row["run_id"]))
    chosen = [row for row in comparable if row["run_id"] == newest["run_id"]]
    runs = len({row["run_id"] for row in comparable})
    notes = (
        [f"{path} has {runs} runs of {model}; the baseline is the newest: {newest['run_id']}"]
        if runs > 1
        else []
    )
    first, last = newest.get("seed_first", ""), newest.get("seed_last", "")
    return BoardRow(
        model=model,
        run_id=newest["run_id"],
        fingerprint=newest["fingerprint"],
        seeds=f"{first}..{last}" if first and last else "",
        quantities=tuple(_quantities(chosen, path)),
        identity=_identity(newest, path),
        notes=tuple(notes),
    )


def _read(path: Path) -> Sequence[_Row]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        names = reader.fieldnames or ()
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            hint = "a baseline is a row of scores.csv, which evalkit leaderboard build writes"
            raise UsageError(f"{path} has no column {missing[0]!r}", hint=hint)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} is not CSV in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InvalidInputError(f"{path}, row {number}: not as many cells as columns")
    if not rows:
        raise NothingMeasuredError(f"{path} has no rows", hint="add a record: evalkit leaderboard add")
    return rows


def _quantities(rows: Sequence[_Row], path: Path) -> Iterable[Quantity]:
    seen = set()
    for row in rows:
        quantity = _quantity(row, path)
        seen.add(quantity.metric)
        yield quantity
    for name in ("nfe", "n_params"):
        value = _number(rows[0], name, path)
        if value is not None and name not in seen:
            yield Quantity(metric=name, variant="", unit="", direction="lower", value=value)


def _quantity(row: _Row, path: Path) -> Quantity:
    value, se = _number(row, "value", path), _number(row, "se", path)
    if value is None or row["direction"] not in {"lower", "higher"}:
        raise InvalidInputError(f"{path}: {row['metric']} of {row['run_id']} has no value or no direction")
    if se is not None and se < 0:
        raise InvalidInputError(f"{path}: {row['metric']} of {row['run_id']} has an error bar below 0")
    low, high = _number(row, "ci_low", path), _number(row, "ci_high", path)
    ci = None
    if low is not None and high is not None:
        ci = Interval(low, high, _LEVEL, row.get("ci_method") or "jackknife-t")
    speed = row["metric"] in SPEEDS
    return Quantity(
        metric=row["metric"],
        variant="" if speed else row.get("variant", ""),
        unit=row.get("unit", ""),
        direction=cast(Better, row["direction"]),
        value=value,
        se=se,
        degrees=degrees_of(se, ci),
        n=0 if speed else int(_number(row, "n_gen", path) or 0),
        conditions=_conditions(row) if speed else (),
    )


def _conditions(row: _Row) -> tuple[tuple[str, str], ...]:
    """A row says on what a speed was measured, and by its variant how; the batch size it does not say."""
    named = (("device", "device"), ("dtype", "dtype"), ("scenario", "variant"))
    return tuple((name, row[column]) for name, column in named if row.get(column))


def _identity(row: _Row, path: Path) -> Identity | None:
    digest, first, last = (row.get(name, "") for name in ("model_sha256", "seed_first", "seed_last"))
    if not (digest and first and last):
        return None
    try:
        seeds = int(first), int(last)
    except ValueError as error:
        raise InvalidInputError(f"{path}: a seed of {row['run_id']} is not a whole number") from error
    nfe, guidance = _number(row, "nfe", path), _number(row, "guidance_scale", path)
    return digest, row.get("sampler", ""), nfe, guidance, *seeds


def _number(row: _Row, name: str, path: Path) -> float | None:
    text = row.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"{path}: {name} of {row['run_id']} is {text[:40]!r}, not a finite number")
    return number
