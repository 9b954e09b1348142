"""``evalkit log``: records to experiment trackers. Reads JSON only; starts without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from evalkit.errors import NothingMeasuredError, TemporaryError, UsageError
from evalkit.record import RunRecord
from evalkit.tracking import TRACKERS, log_record, parse_trackers

_FORMS = ", ".join(kind.form for kind in TRACKERS.values())


@click.command()
@click.argument("records", nargs=-1, type=click.Path(path_type=Path), metavar="RECORD...")
@click.option("--to", "texts", multiple=True, metavar="TRACKER", help=f"One of {_FORMS}; repeatable.")
@click.option(
    "--step",
    type=click.IntRange(min=0),
    metavar="N",
    help="Step of the training run whose checkpoint was judged: the records of a run become a curve.",
)
def log(records: Sequence[Path], texts: Sequence[str], step: int | None) -> None:
    """Send finished records to experiment trackers.

    \b
    evalkit log evalkit-runs/ --to jsonl:runs.jsonl
    evalkit log record.json --to mlflow:http://localhost:5000 --to wandb:my-project
    evalkit log record.json --to tensorboard:logs --step 20000

    RECORD is a record or a folder of records. Records that a tracker holds already are not doubled. Exit code
    75 where a tracker did not take one: the same command tries again.
    """
    if not texts:
        raise UsageError("where to?", hint=f"--to {_FORMS}")
    trackers = parse_trackers(texts)
    found = _complete(records)
    failures = [
        failure
        for record, path in found
        for failure in log_record(record, trackers, path=path, notify=_note, step=step)
    ]
    if failures:
        names = ", ".join(dict.fromkeys(failure.tracker for failure in failures))
        raise TemporaryError(
            f"{len(failures)} of {len(found) * len(trackers)} were not logged: {names}",
            hint="the lines above say why; the same command tries again",
        )


def _note(text: str) -> None:
    click.echo(f"evalkit: {text}", err=True)


def _complete(paths: Iterable[Path]) -> list[tuple[RunRecord, Path]]:
    """Read the complete records named, oldest first and each run once; say which others were left out."""
    found: dict[str, tuple[RunRecord, Path]] = {}
    for path in (file for given in paths for file in _files(given)):
        record = RunRecord.read(path)
        if record.status == "complete":
            found.setdefault(record.run_id, (record, path))
        else:
            _note(f"{path} is {record.status}, not complete; skipped")
    if not found:
        raise NothingMeasuredError(
            "no complete record to log", hint="name records or their folder: evalkit log evalkit-runs/ --to …"
        )
    return sorted(found.values(), key=lambda pair: (pair[0].created_utc, pair[0].run_id))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in sorted(path.rglob("*.json")) if file.is_file() and _claims(file)]
    if not path.is_file():
        raise NothingMeasuredError(
            f"no record or folder at {path}", hint="evalkit score writes records below --out"
        )
    return [path]


def _claims(file: Path) -> bool:
    """Whether a JSON file in a folder says that it is a record; others may lie beside it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # RecursionError: nested deeper than any record
        _note(f"{file} is not JSON; skipped")
        return False
    except OSError as error:
        raise TemporaryError(f"cannot read {file}: {error.strerror}") from error
    return isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/")
