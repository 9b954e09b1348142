"""``evalkit score`` as a process of its own: its command line, its share of the cores, its output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalkitError, TemporaryError
from evalkit.suites.facts import Cell
from evalkit.suites.manifest import RECORDS
from evalkit.suites.scheduler import Slot

SCORE = (sys.executable, "-m", "evalkit.cli", "score")
"""What a cell runs, before its arguments."""
LOGS = "logs"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LAST_LINES = 3
_LONGEST_LINE = 200
_ASKED_TO_STOP = (130, 143)
_REGRESSION = 1


def command_of(cell: Cell, folder: Path, *, device: str, fresh: bool = False) -> tuple[str, ...]:
    """Return what follows ``evalkit`` for one cell; pasted into a shell it writes the same record."""
    where = () if device == "auto" else ("--device", device)
    again = ("--fresh",) if fresh else ()
    return ("score", *cell.arguments, *where, "--out", str(folder / RECORDS), *again)


def threads_environment(
    jobs: int, *, device: str, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a cell: where several share the CPU, each gets its part of the cores.

    What the user has set stays. A cell is no rank of a launcher that started the suite.
    """
    variables = dict(os.environ if environ is None else environ)
    variables.pop("TORCHELASTIC_RUN_ID", None)
    if jobs > 1 and device in {"cpu", "auto"}:
        share = str(max(1, _cores() // jobs))
        variables = {**dict.fromkeys(_THREADS, share), **variables}
    return variables


def _cores() -> int:
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts cells below ``folder``; ``program`` is what runs instead of ``evalkit score`` in tests.

    ``fresh`` makes each forget the features of earlier runs.
    """

    folder: Path
    jobs: int = 1
    fresh: bool = False
    program: Sequence[str] = SCORE

    def __call__(self, cell: Cell, slot: Slot) -> subprocess.Popen[bytes]:
        """Start one cell: its record goes to stdout and so to a file, all else to the log."""
        output, log = self.output(cell), self.log(cell)
        output.parent.mkdir(parents=True, exist_ok=True)
        command = command_of(cell, self.folder, device=slot.device, fresh=self.fresh)
        arguments = [*self.program, *command[1:], "--format", "json"]
        try:
            with output.open("wb") as stdout, log.open("wb") as stderr:
                return subprocess.Popen(  # noqa: S603 - no shell; the program is evalkit
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=threads_environment(self.jobs, device=slot.device),
                    # Ctrl-C reaches the whole foreground group: a cell would get it twice, which kills it.
                    start_new_session=os.name == "posix",
                )
        except OSError as error:
            raise TemporaryError(f"cannot start {cell.label}: {error}") from error

    def output(self, cell: Cell) -> Path:
        """Where stdout of a cell goes."""
        return self.log(cell).with_suffix(".out")

    def log(self, cell: Cell) -> Path:
        """Where stderr of a cell goes; the key keeps cells apart whose labels look alike as file names."""
        label = _UNSAFE.sub("-", f"{cell.row}-{cell.protocol}-seed{cell.seed}")[:80]
        return self.folder / LOGS / f"{label}-{cell.key}.txt"

    def run_id(self, cell: Cell) -> str | None:
        """Return the run id of the record on a cell's stdout, and remove that file; None without a record."""
        output = self.output(cell)
        try:
            text = output.read_text(encoding="utf-8")
            # The record comes last; a library may have printed before it.
            data = json.loads(text[text.rfind("\n{\n") + 1 :])
        except (OSError, ValueError):
            return None
        output.unlink(missing_ok=True)
        run_id = data.get("run_id") if isinstance(data, dict) else None
        return run_id if isinstance(run_id, str) else None

    def last_words(self, cell: Cell) -> tuple[str, ...]:
        """Return the last lines that a cell wrote to stderr."""
        try:
            lines = self.log(cell).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ()
        return tuple(line.strip()[:_LONGEST_LINE] for line in lines if line.strip())[-_LAST_LINES:]


def exit_code_of(code: int, *, asked: bool) -> int:
    """Return a process's exit code in the terms of :mod:`evalkit.errors`.

    A cell that somebody else stopped or killed (143, SIGKILL: often for want of memory) was preempted: 75.
    One that crashed in native code, or ended with 1 (Python's own; evalkit keeps it for a regression), is an
    internal error: 70.
    """
    if asked:
        return code
    stopped = {-signal.SIGTERM, -signal.SIGINT, -getattr(signal, "SIGKILL", signal.SIGTERM)}
    if code in stopped or code in _ASKED_TO_STOP:
        return TemporaryError.exit_code
    return EvalkitError.exit_code if code < 0 or code == _REGRESSION else code
