"""Where ``evalkit gate`` prints and writes. A reader who has left changes no verdict."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import click

from evalkit.atomic import write_atomically
from evalkit.errors import EvalkitError, TemporaryError

if TYPE_CHECKING:
    from evalkit.gate.facts import GateReport

Form = Literal["table", "json", "md"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the report goes besides stdout."""

    junit: Path | None
    summary: Path | None
    json: Path | None

    def write(self, report: GateReport) -> None:
        """Write what was asked for."""
        from evalkit.gate.export import to_json, to_markdown  # noqa: PLC0415 - only where asked for
        from evalkit.gate.junit import to_junit  # noqa: PLC0415

        if self.junit:
            _write(self.junit, to_junit(report))
        if self.json:
            _write(self.json, to_json(report))
        if self.summary:
            _append(self.summary, to_markdown(report))

    def write_refusal(self, error: EvalkitError, candidate: str) -> None:
        """Show in CI why there is no verdict. What cannot be written must not hide that."""
        from evalkit.gate.export import refusal_json, refusal_markdown  # noqa: PLC0415 - only where asked for
        from evalkit.gate.junit import refusal_junit  # noqa: PLC0415

        try:
            if self.junit:
                _write(self.junit, refusal_junit(error, candidate=candidate))
            if self.json:
                _write(self.json, refusal_json(error))
            if self.summary:
                _append(self.summary, refusal_markdown(error))
        except TemporaryError as failure:
            say(f"warning: {failure.message}", aside=True)


def rendered(report: GateReport, form: Form) -> str:
    """Return the report as it goes to stdout."""
    from evalkit.gate.export import to_json, to_markdown  # noqa: PLC0415 - not for --help
    from evalkit.gate.table import gate_table  # noqa: PLC0415
    from evalkit.reporting.formatting import Style, style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH, to_terminal  # noqa: PLC0415

    if form == "json":
        return to_json(report)
    if form == "md":
        return to_markdown(report)
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else DEFAULT_WIDTH
    style = style_for(sys.stdout) if sys.stdout else Style()
    return to_terminal(gate_table(report), style=style, width=width)


def say(text: str, *, newline: bool = True, aside: bool = False) -> None:
    """Print, ``aside`` on stderr.

    Where the reader has closed the pipe (``| head``) nothing more is printed, and the command goes on.

    Raises:
        TemporaryError: the text cannot be written, because the disk is full.
    """
    try:
        click.echo(text, nl=newline, err=aside)
    except BrokenPipeError:
        silence(sys.stderr if aside else sys.stdout)
    except OSError as error:
        silence(sys.stderr if aside else sys.stdout)
        raise TemporaryError(
            f"cannot print the report: {error.strerror or error}", hint="free some space and try again"
        ) from error


def silence(stream: TextIO) -> None:
    """Point a stream that nobody reads at nothing, so that the exit flushes quietly."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(path: Path, text: str) -> None:
    write_atomically(path, text)
    say(f"wrote {path}", aside=True)


def _append(path: Path, text: str) -> None:
    """Add to a file that other steps and gates write too."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space or choose another place"
        ) from error
    say(f"added to {path}", aside=True)
