"""What a run record cannot know of itself: how far to trust it, where it came from, remarks. One JSON a run.

entry = EntryFile(run_id=record.run_id, trust="reproduced", source_url="https://example.org/run")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from evalkit import strict_json
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.leaderboard.facts import Trust
from evalkit.record import RunRecord, check_identifier
from evalkit.reporting.formatting import Style
from evalkit.spreadsheets import utf8_text

SCHEMA = "evalkit.entry/1"
LONGEST_NOTES = 500
_LONGEST_URL = 500
# An identifier may hold "/" and ":"; the name of a file may not, on one system or another.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}")
# RFC 3986, section 2: all that may stand in an address; whatever else must be percent-encoded.
_URL = re.compile(r"https://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFile:
    """``entries/RUN.json``, written once.

    Attributes:
        run_id: of the record it belongs to.
        name: of the row, where it is not the model's id.
        trust: ``measured`` by whoever keeps the board, ``reproduced`` by someone else, or ``reported`` only.
        source_url: an https address, or empty.
        notes: one paragraph of at most 500 characters.
    """

    schema: Literal["evalkit.entry/1"] = "evalkit.entry/1"
    run_id: str
    name: str | None = None
    trust: Trust = "measured"
    source_url: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        if self.name is not None:
            check_identifier(self.name, what="name")
        check_url(self.source_url)
        check_line(self.notes, what="notes", longest=LONGEST_NOTES)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON data, keys in a fixed order."""
        return strict_json.encode_object(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an entry.

        Raises:
            InvalidInputError: not JSON, another schema, or a value that is not allowed; names the file.
        """
        try:
            return strict_json.decode(strict_json.loads(path.read_text(encoding="utf-8")), cls)
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path}: not UTF-8 text") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error.message}", hint=error.hint) from error


def check_publishable(record: RunRecord) -> None:
    """Raise unless a record can be put on a board.

    Raises:
        InvalidInputError: its run did not end.
        NothingMeasuredError: it holds neither scores nor speeds.
        UsageError: its run id cannot be the name of a file.
    """
    check_run_id(record.run_id)
    if record.status != "complete":
        raise InvalidInputError(
            f"run {record.run_id} of {record.model.id} is {record.status}, not complete",
            hint="run the same command again: it continues where it was stopped",
        )
    if not record.results and not record.performance:
        raise NothingMeasuredError(
            f"run {record.run_id} of {record.model.id} holds neither scores nor speeds"
        )


def check_run_id(run_id: str) -> None:
    """Raise :class:`UsageError` where a run id could lead out of the folder that it names a file in."""
    if not _FILE_NAME.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id[:80]!r} cannot be the name of a file",
            hint="start with a letter or digit; then letters, digits and . _ + @ - only",
        )


def check_url(url: str) -> None:
    """Raise :class:`UsageError` unless ``url`` is empty or an https address that a page may link to."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        linked = _URL.fullmatch(url) is not None and bool(parts.hostname) and parts.username is None
    except ValueError:
        linked = False
    if not linked:
        raise UsageError(
            f"{url[:80]!r} is not an https address",
            hint="https://host/path, other characters percent-encoded, without a user name",
        )
    if len(url) > _LONGEST_URL:
        raise UsageError(f"an address of {len(url)} characters is too long", hint=f"at most {_LONGEST_URL}")


def check_line(text: str, *, what: str, longest: int) -> None:
    """Raise :class:`UsageError` where ``text`` is too long or holds control characters, or is no UTF-8."""
    if len(text) > longest:
        raise UsageError(f"{what} of {len(text)} characters are too long", hint=f"at most {longest}")
    if utf8_text(Style().plain(text)) != text:
        raise UsageError(
            f"{what} hold a line end, another control character, or bytes that are no UTF-8",
            hint="write them as one line of text",
        )
