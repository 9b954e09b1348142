"""``evalkit score`` as one task of a cluster: what a suite sends, runs elsewhere, and gets back."""

from __future__ import annotations

import io
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.executors.orders import Contents, Fetch, Lacks
from evalkit.executors.shipping import Lacking, SentPath
from evalkit.executors.worker import places_of

_RECORDS = "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOrder:
    """One command.

    Attributes:
        arguments: what follows ``evalkit``, without its output.
        command: the whole command as it is recorded.
        out: its output as it is shown.
        paths: files and folders among the arguments, by the text that stands there.
        shards: what the engine keeps the shards under that it left when it ran before, by path below its
            output; it goes on from them.
    """

    arguments: tuple[str, ...]
    command: tuple[str, ...]
    out: str
    paths: Mapping[str, SentPath]
    shards: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnded:
    """What a command left: its exit code, what it printed, and its files by path below its output."""

    exit_code: int
    output: bytes
    log: bytes
    files: Mapping[str, bytes]


def score_cell(
    order: CellOrder, contents: Contents, fetch: Fetch, run: Callable[[list[str]], int]
) -> CellEnded | Lacks:
    """Run one command in a worker that does nothing else afterwards; ``run`` is the command line.

    An interruption reaches it as SIGINT: its whole shards go back with exit code 130, as they do after an
    error. Of a worker that dies nothing goes back.
    """
    try:
        places = places_of(tuple(order.paths.values()), contents, fetch)
    except Lacking as lacking:
        return Lacks(paths=(lacking.path,))
    moved = {text: str(places[sent.path]) for text, sent in order.paths.items()}
    words = [_moved(word, moved) for word in order.arguments]
    with tempfile.TemporaryDirectory(prefix="evalkit-worker-") as folder:
        out = Path(folder) / _RECORDS
        for name, kept in order.shards.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(fetch(kept))
        code, output, log = _told([*words, "--out", str(out), "--format", "json"], order.command, run)
        with _uninterrupted():
            files = {path.relative_to(out).as_posix(): path.read_bytes() for path in _left(out)}
    text = log.replace(str(out), order.out)
    return CellEnded(exit_code=code, output=output.encode(), log=text.encode(), files=files)


def _told(
    words: list[str], command: tuple[str, ...], run: Callable[[list[str]], int]
) -> tuple[int, str, str]:
    """Run a command that is recorded as ``command``; return its exit code and what it printed."""
    output, log = io.StringIO(), io.StringIO()
    before = sys.argv
    try:
        sys.argv = list(command)
        with redirect_stdout(output), redirect_stderr(log):
            code = run(words)
    finally:
        sys.argv = before
    return code, output.getvalue(), log.getvalue()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hear no interruption: the command has ended, and would be lost."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _moved(word: str, moved: Mapping[str, str]) -> str:
    """Return a word with the path in it replaced; ``NAME=`` may stand before it and ``@…`` after it."""
    for text in sorted(moved, key=len, reverse=True):
        name, equals, rest = word.rpartition(text)
        if equals and (not name or name.endswith("=")) and (not rest or rest.startswith("@")):
            return f"{name}{moved[text]}{rest}"
    return word


def _left(out: Path) -> list[Path]:
    """Return records and whole shards; locks and temporary files are nobody's."""
    found = [*out.glob("*.json"), *out.glob("state/*/*.safetensors"), *out.glob("progress/*.json")]
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())
