"""``evalkit merge``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.executor import FolderOrUrl
from evalkit.cli.options import device_option, format_option, trackers_option
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.reporting.rendering import Format


@click.command(context_settings={"show_default": True})
@click.argument("folders", nargs=-1, required=True, type=FolderOrUrl(), metavar="DIR|URL…")
@click.option(
    "--out",
    type=FolderOrUrl(),
    metavar="DIR|URL",
    help="Folder of the records and of all shards; a single DIR itself by default.",
)
@device_option
@trackers_option
@format_option
def merge(
    folders: tuple[Path | str, ...],
    out: Path | str | None,
    device: str,
    trackers: tuple[str, ...],
    output_format: Format,
) -> int:
    """Score a run from the parts that `evalkit score --shard I/N` computed in one folder or in several.

    \b
    evalkit score --model ddpm --shard 1/3 --out part-1      on three machines: 1/3, 2/3, 3/3
    evalkit merge part-1 part-2 part-3 --out runs
    evalkit merge shared                                     where all parts wrote to one folder

    No image is drawn and no model is loaded. The record is the one that a single process writes.
    """
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.cli.event_log import take_event_log  # noqa: PLC0415
    from evalkit.cli.record_output import rendered  # noqa: PLC0415
    from evalkit.distribution.merging import merge as merged  # noqa: PLC0415
    from evalkit.object_stores import opened  # noqa: PLC0415
    from evalkit.tracking import log_record, parse_trackers  # noqa: PLC0415

    if out is None and len(folders) > 1:
        raise UsageError("several folders need --out", hint="--out FOLDER")
    log, texts = take_event_log(trackers)
    parsed = parse_trackers(texts)
    with (
        signals(silent=log is not None and log.on_stderr) as stop,
        StderrConsole(log) as console,
        ExitStack() as stack,
    ):
        places = [stack.enter_context(opened(folder, notify=console.note)).fetch() for folder in folders]
        target = stack.enter_context(opened(out or folders[0], notify=console.note))
        records = merged(places, target.path, mirror=target.mirror, console=console, device=device, stop=stop)
        for record in records:
            name = f"{record.run_id}.json"
            console.note(f"record: {target.place(name)}")
            log_record(record, parsed, path=target.path / name, notify=console.note)
    click.echo(rendered(records, output_format), nl=False)
    return 0
