"""``evalkit score`` as one task of a cluster: what a suite sends, runs elsewhere, and gets back."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

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
    """

    arguments: tuple[str, ...]
    command: tuple[str, ...]
    out: str
    paths: Mapping[str, SentPath]


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

    An interruption reaches it as SIGINT: it keeps its whole shards, which
    Ray may no longer hand back.
    """
    try:
        places = places_of(tuple(order.paths.values()), contents, fetch)
    except Lacking as lacking:
        return Lacks(paths=(lacking.path,))
    moved = {text: str(places[sent.path]) for text, sent in order.paths.items()}
    words = [_moved(word, moved) for word in order.arguments]
    output, log = io.StringIO(), io.StringIO()
    before = sys.argv
    with tempfile.TemporaryDirectory(prefix="evalkit-worker-") as folder:
        out = Path(folder) / _RECORDS
        try:
            sys.argv = list(order.command)
            with redirect_stdout(output), redirect_stderr(log):
                code = run([*words, "--out", str(out), "--format", "json"])
        finally:
            sys.argv = before
        files = {path.relative_to(out).as_posix(): path.read_bytes() for path in _left(out)}
    text = log.getvalue().replace(str(out), order.out)
    return CellEnded(exit_code=code, output=output.getvalue().encode(), log=text.encode(), files=files)


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
