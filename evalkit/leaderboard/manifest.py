"""``records.sha256``: what was ever put on a board, so that nobody can change or lose it unnoticed.

One line a file, ``DIGEST  records/RUN.json``, sorted; ``sha256sum -c records.sha256`` reads it too. Lines are
only ever added: :func:`lost_since` compares with the list at a git revision.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.atomic import write_atomically
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, UsageError

NAME = "records.sha256"
KINDS: Mapping[str, str] = {"records": ".json", "entries": ".json", "samples": ".webp"}
"""The append-only folders of a board, and the ending of their files."""

WINDOWS = "has the line ends of Windows: git needs the line '* -text' in .gitattributes, then a new checkout"
"""What is wrong with a file that is the published or built one but for its line ends."""

_LINE = re.compile(r"([0-9a-f]{64})  ((?:records|entries|samples)/[A-Za-z0-9][A-Za-z0-9._+@-]*)")
_SECONDS = 30


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the digest of every published file by its path on the board; empty where there is no list.

    Raises:
        InvalidInputError: a line is no digest and path, or a path stands twice.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}: not UTF-8 text") from error


def extend_manifest(folder: Path, files: Mapping[str, str]) -> None:
    """Add digests by path on the board; those that are listed stay as they are.

    Raises:
        InvalidInputError: the list cannot be read.
        TemporaryError: it could not be written.
    """
    listed = read_manifest(folder)
    extended = {**files, **listed}
    if extended != listed:
        lines = [f"{extended[path]}  {path}\n" for path in sorted(extended)]
        write_atomically(folder / NAME, "".join(lines))


def published_files(folder: Path) -> Iterator[str]:
    """Yield the path on the board of every file in its append-only folders, sorted."""
    for kind, suffix in sorted(KINDS.items()):
        for path in sorted((folder / kind).glob(f"[!.]*{suffix}")):
            yield f"{kind}/{path.name}"


def broken_files(folder: Path) -> dict[str, str]:
    """Return what is wrong with each published file that is missing, changed, or not listed.

    Raises:
        InvalidInputError: the list cannot be read.
    """
    listed = read_manifest(folder)
    problems = {}
    for path, digest in listed.items():
        if not (folder / path).is_file():
            problems[path] = "was published and is missing"
        elif file_sha256(folder / path) != digest:
            problems[path] = _change(folder / path, digest)
    for path in published_files(folder):
        if path not in listed:
            problems[path] = "was not added by evalkit leaderboard add"
    return problems


def _change(file: Path, digest: str) -> str:
    content = file.read_bytes()
    before = content.replace(b"\r\n", b"\n")
    same = before != content and hashlib.sha256(before).hexdigest() == digest
    return WINDOWS if same else "was changed after it was published"


def lost_since(folder: Path, revision: str) -> dict[str, str]:
    """Return what happened to each file that was published at a git revision and is not as it was.

    Raises:
        UsageError: no git checkout, or no such revision.
        InvalidInputError: a list cannot be read.
    """
    before = _manifest_at(folder, revision)
    now = read_manifest(folder)
    problems = {}
    for path, digest in before.items():
        if path not in now:
            problems[path] = f"was published at {revision} and is no longer listed"
        elif now[path] != digest:
            problems[path] = f"is not the file that was published at {revision}"
    return problems


def _manifest_at(folder: Path, revision: str) -> dict[str, str]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/@{}~^-]*", revision):
        raise UsageError(f"{revision[:80]!r} is not a git revision", hint="for example origin/main")
    _git(
        folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", what=f"no revision {revision!r}"
    )
    inside = _git(folder, "ls-tree", "--name-only", revision, "--", NAME, what=f"cannot list {revision!r}")
    if not inside.strip():
        return {}  # the board is younger
    text = _git(folder, "show", f"{revision}:./{NAME}", what=f"cannot read {NAME} at {revision!r}")
    return _parsed(text, f"{revision}:{NAME}")


def _git(folder: Path, *arguments: str, what: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - the revision was checked, and no shell reads it
            command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        hint = "run it in a git checkout that holds this revision (in CI: fetch-depth 0)"
        # A checkout that git does not trust, for one, says so here and nowhere else.
        told = (getattr(error, "stderr", None) or "").strip().splitlines()
        said = f": {told[0]}" if told else ""
        raise UsageError(f"{what} at {folder}{said}", hint=hint) from error
    return done.stdout


def _parsed(text: str, where: str) -> dict[str, str]:
    listed: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in listed:
            problem = "stands twice" if match else "is no digest and path"
            raise InvalidInputError(
                f"{where}, line {number} {problem}", hint="restore the file: git restore records.sha256"
            )
        listed[match[2]] = match[1]
    return listed
