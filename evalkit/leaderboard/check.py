"""Whether a board is as it was published and built: nothing changed, lost, stale or edited by hand.

for finding in check(Path("leaderboards/cifar10-jpeg")):
    print(finding.path, finding.problem, finding.remedy)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit.leaderboard.board import read_info
from evalkit.leaderboard.build import Content, built_content, expected_figures
from evalkit.leaderboard.figures import file_digest, read_digests
from evalkit.leaderboard.manifest import WINDOWS, broken_files, lost_since
from evalkit.reporting.formatting import Style

_SHOWN = 60  # characters of a differing line
_BEFORE = 20  # of these, before the difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with one file of a board, and the command that mends it."""

    path: str
    problem: str
    remedy: str


def check(folder: Path, *, since: str | None = None) -> tuple[Finding, ...]:
    """Return what is wrong with a board, published files first; with ``since`` also what a git revision had.

    Built files are compared only where all published ones are sound: they would differ for that reason.

    Raises:
        UsageError: no board, settings that are not allowed, or no such revision.
        InvalidInputError: the list of published files, or a sound record, cannot be read.
    """
    read_info(folder)
    published = _published(folder, since)
    return published or tuple(_built(folder))


def _published(folder: Path, since: str | None) -> tuple[Finding, ...]:
    problems = {**(lost_since(folder, since) if since else {}), **broken_files(folder)}
    return tuple(
        Finding(path=path, problem=problem, remedy=_restoring(folder, path, problem, since))
        for path, problem in sorted(problems.items())
    )


def _restoring(folder: Path, path: str, problem: str, since: str | None) -> str:
    if "was not added" in problem:
        run = Path(path).stem
        return f"evalkit leaderboard add {folder / 'records' / run}.json --board {folder}"
    source = f" --source {since}" if since else ""
    return f"git restore{source} {folder / path} {folder / 'records.sha256'}"


def _built(folder: Path) -> Iterator[Finding]:
    content = built_content(folder)
    problems = {**_stale_texts(folder, content), **_stale_figures(folder, content)}
    for path, problem in problems.items():
        yield Finding(path=path, problem=problem, remedy=f"evalkit leaderboard build {folder}")


def _stale_texts(folder: Path, content: Content) -> dict[str, str]:
    problems = {}
    for path, wanted in content.texts.items():
        file = folder / path
        found = file.read_bytes() if file.is_file() else None
        if found != wanted.encode():
            problems[path] = "is missing" if found is None else _difference(found, wanted)
    return problems


def _stale_figures(folder: Path, content: Content) -> dict[str, str]:
    """A board may be built without matplotlib: a figure that is not there is not stale."""
    expected = expected_figures(content.plots)
    problems = {}
    for path, (data, digest) in read_digests(folder).items():
        file = folder / path
        if path not in expected:
            problems[path] = "is of a group that the board no longer has"
        elif not file.is_file():
            problems[path] = "was built and is missing"
        elif data != expected[path]:
            problems[path] = "shows other numbers than the records"
        elif file_digest(file.read_bytes()) != digest:
            problems[path] = "was changed after it was drawn"
    return problems


def _difference(found: bytes, wanted: str) -> str:
    """Say where two texts first differ, and how."""
    if found.replace(b"\r\n", b"\n") == wanted.encode():
        return WINDOWS
    here, there = found.decode("utf-8", "replace").split("\n"), wanted.split("\n")
    line = next((i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
    if line is None:
        which = "ends early, at" if len(here) < len(there) else "goes on after"
        return f"{which} line {min(len(here), len(there))}"
    one, other = here[line], there[line]
    at = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    start = max(0, (min(len(one), len(other)) if at is None else at) - _BEFORE)
    return f"line {line + 1} is {_excerpt(one, start)}, should be {_excerpt(other, start)}"


def _excerpt(text: str, start: int) -> str:
    part = text[start : start + _SHOWN]
    before, after = "…" if start else "", "…" if start + _SHOWN < len(text) else ""
    return f"'{before}{Style().plain(part)}{after}'"
