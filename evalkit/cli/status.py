"""``evalkit status``: how far the runs below a folder are. Reads JSON and names of files; no torch."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from evalkit import strict_json
from evalkit.cli.columns import aligned
from evalkit.run_status import Report, RunStatus, status_of

_CLEAR = "\x1b[H\x1b[2J"
_STILL = 120.0
"""Seconds without a new image after which a living run is pointed out."""
_LONGEST = 100


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN_FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.option("--watch", is_flag=True, help="Print it again until nothing runs any more.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=2.0, metavar="S", help="Seconds, of --watch."
)
def status(folder: Path, as_json: bool, watch: bool, interval: float) -> int:
    """Say how far the runs below a folder are, and what is missing of them.

    \b
    evalkit status evalkit-runs/
    evalkit status evalkit-runs/ --watch
    evalkit status evalkit-runs/ --json

    A run is stalled where its process is gone or its heartbeat is older than a minute: run its command again,
    and it continues. Exit code: 0 where all is complete, 75 where the rest still runs, 5 where something is
    stalled, partial, failed or missing, or there is no run.
    """
    report = _look(folder)
    while watch and any(run.state == "running" for run in report.runs):
        if sys.stdout.isatty():
            click.echo(_CLEAR, nl=False)
        _print(report, as_json=as_json)
        time.sleep(interval)
        report = _look(folder)
    _print(report, as_json=as_json)
    return report.exit_code


def _look(folder: Path) -> Report:
    return status_of(folder, now=datetime.now(UTC), notify=_note)


def _note(text: str) -> None:
    click.echo(f"evalkit: {text}", err=True)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        data = {**strict_json.encode_object(report), "exit_code": report.exit_code}
        click.echo(strict_json.dumps(data), nl=False)
        return
    if report.runs:
        several = len({run.folder for run in report.runs}) > 1
        click.echo(aligned([_row(run, several=several) for run in report.runs]))
    for run in report.runs:
        for line in _remarks(run):
            click.echo(line)
        if run.unmerged:
            where = shlex.quote(str(Path(report.folder) / run.folder))
            click.echo(f"{run.subject}: all parts are complete: evalkit merge {where}")
    for suite in report.suites:
        ended = f"{suite.done} done, {suite.failed} failed, {suite.interrupted} interrupted"
        click.echo(f"suite {suite.name} in {suite.folder}: {ended}")


def _row(run: RunStatus, *, several: bool) -> dict[str, str]:
    return {
        "subject": run.subject,
        "protocol": run.protocol,
        **({"folder": run.folder} if several else {}),
        "part": f"{run.part + 1} of {run.parts}" if run.parts > 1 else "-",
        "state": run.state,
        "phase": run.phase or "-",
        "images": f"{run.images_done:,} of {run.images_total:,}" if run.images_total else "-",
        "images/s": "-" if run.rate is None else f"{run.rate:.1f}",
        "left": "-" if run.eta_seconds is None else duration(run.eta_seconds),
        "heartbeat": "-" if run.silent_seconds is None else f"{duration(run.silent_seconds)} ago",
    }


def _remarks(run: RunStatus) -> list[str]:
    name = run.subject if run.parts == 1 else f"{run.subject}, part {run.part + 1} of {run.parts}"
    remarks = []
    if run.missing and run.state != "running":
        remarks.append(f"missing shards: {_cut(run.missing)}")
    if run.state == "stalled" and run.pid is not None:
        remarks.append(f"process {run.pid} on {run.host} is silent; the same command continues")
    if run.state == "running" and (run.still_seconds or 0.0) > _STILL:
        remarks.append(f"no progress for {duration(run.still_seconds or 0.0)}")
    if run.state == "missing":
        remarks.append("this part never began")
    if run.error and run.state in {"failed", "partial"}:
        remarks.append(_cut(run.error))
    if run.warning:
        remarks.append(_cut(run.warning))
    return [f"{name}: {remark}" for remark in remarks]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``8 s``, ``3 min``, ``2 h 05 min``, ``4 d 03 h``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"
