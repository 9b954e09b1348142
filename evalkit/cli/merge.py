"""``evalkit merge``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.executor import FolderOrUrl
from evalkit.cli.options import device_option, format_option, trackers_option
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.cli.event_log import EventLog
    from evalkit.console import Console
    from evalkit.object_stores import RunFolder
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format


@click.command(context_settings={"show_default": True})
@click.argument("folders", nargs=-1, required=True, type=FolderOrUrl(), metavar="DIR|URL…")
@click.option(
    "--out",
    type=FolderOrUrl(),
    metavar="DIR|URL",
    help="Folder of the records and of all shards; a single DIR itself by default.",
)
@click.option(
    "--again", is_flag=True, help="Score runs anew that were merged before, and whose parts are the same."
)
@device_option
@trackers_option
@format_option
def merge(
    folders: tuple[Path | str, ...],
    out: Path | str | None,
    again: bool,
    device: str,
    trackers: tuple[str, ...],
    output_format: Format,
) -> int:
    """Score a run from the parts that `evalkit score --shard I/N` computed in one folder or in several.

    \b
    evalkit score --model ddpm --shard 1/3 --out part-1      on three machines: 1/3, 2/3, 3/3
    evalkit merge part-1 part-2 part-3 --out runs
    evalkit merge shared                                     where all parts wrote to one folder

    No image is drawn and no model is loaded. The record is the one that a single process writes. A run that
    was merged before is left alone while its parts are the same.
    """
    from evalkit.cli.event_log import take_event_log  # noqa: PLC0415
    from evalkit.cli.record_output import rendered  # noqa: PLC0415
    from evalkit.tracking import log_record, parse_trackers  # noqa: PLC0415

    if out is None and len(folders) > 1:
        raise UsageError("several folders need --out", hint="--out FOLDER")
    log, texts = take_event_log(trackers)
    parsed = parse_trackers(texts)
    with _places(folders, out or folders[0], log) as at:

        def written(record: RunRecord) -> None:
            name = f"{record.run_id}.json"
            at.console.note(f"record: {at.target.place(name)}")
            log_record(record, parsed, path=at.target.path / name, notify=at.console.note)

        records = _merged(at, device=device, again=again, written=written)
    click.echo(rendered(records, output_format), nl=False)
    return 0


@dataclass(frozen=True, slots=True)
class _Places:
    """Folders of parts, on this machine now; where records go; and who is told."""

    parts: tuple[Path, ...]
    target: RunFolder
    console: Console
    stop: Callable[[], int]


@contextmanager
def _places(folders: tuple[Path | str, ...], out: Path | str, log: EventLog | None) -> Iterator[_Places]:
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.object_stores import opened  # noqa: PLC0415

    with (
        signals(silent=log is not None and log.on_stderr) as stop,
        StderrConsole(log) as console,
        ExitStack() as stack,
    ):
        parts = [stack.enter_context(opened(folder, notify=console.note)).fetch() for folder in folders]
        target = stack.enter_context(opened(out, notify=console.note))
        yield _Places(tuple(parts), target, console, stop)


def _merged(
    at: _Places, *, device: str, again: bool, written: Callable[[RunRecord], None]
) -> list[RunRecord]:
    from evalkit.distribution.merged import record_of  # noqa: PLC0415 - loads torch
    from evalkit.distribution.merging import merge as merged  # noqa: PLC0415

    return merged(
        at.parts,
        at.target.path,
        mirror=at.target.mirror,
        console=at.console,
        device=device,
        stop=at.stop,
        before=(lambda _parts: None) if again else partial(record_of, read=at.target.read),
        written=written,
    )
