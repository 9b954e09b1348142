"""A manifest: the list of pairs, with masks and prompts, as CSV, JSON lines or parquet. Pure: opens no file.

    generated,reference,mask,prompt
    out/0001.png,truth/0001.png,masks/0001.png,"a cat, sleeping"

Columns: ``generated`` (or ``edited``), ``reference`` (or ``target``), and optionally ``source``, ``mask``,
``prompt`` and ``source_prompt``. Paths are relative to the manifest's folder. Nothing is ignored: an unknown
column, an empty cell that must not be, or a row of another length is an error that names its line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import InvalidInputError
from evalkit.registry import did_you_mean

Side = Literal["generated", "reference", "source", "mask"]

SIDES: tuple[Side, ...] = ("generated", "reference", "source", "mask")
_TARGETS = ("reference", "source")
_SYNONYMS = {"edited": "generated", "target": "reference"}
_PARQUET_MAGIC = b"PAR1"
_MAX_BYTES = 2**30
_MAX_ROWS = 10_000_000
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One pair: paths as the manifest writes them, and its prompts.

    Attributes:
        line: where it stands in the manifest (row number of a parquet table), from 1.
        generated: the image that is judged (of an edit: the edited one).
        reference: the image that it should look like; None in a list of edits without such images.
        source: the image that an edit started from.
        mask: white where the edit or the hole is.
        prompt: what the generated image should show; ``source_prompt`` what the source shows.
    """

    line: int
    generated: str
    reference: str | None = None
    source: str | None = None
    mask: str | None = None
    prompt: str | None = None
    source_prompt: str | None = None

    def path(self, side: Side) -> str | None:
        """Return the path in one of the columns of images."""
        value: str | None = getattr(self, side)
        return value


@dataclass(frozen=True, slots=True)
class PairManifest:
    """The rows of a manifest in file order."""

    rows: tuple[PairRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Iterable[int]) -> PairManifest:
        """Return the manifest of the rows at ``positions``."""
        return PairManifest(tuple(self.rows[position] for position in positions))

    def lines_without(self, column: str) -> tuple[int, ...]:
        """Return the lines whose ``column`` is empty."""
        return tuple(row.line for row in self.rows if getattr(row, column) is None)


_COLUMNS = tuple(field.name for field in fields(PairRow) if field.name != "line")
_KNOWN = (*_COLUMNS, *_SYNONYMS)


def parse_manifest(data: bytes, *, allow_outside: bool = False) -> PairManifest:
    """Return the manifest in ``data``; parquet and JSON lines are told by their first bytes, else it is CSV.

    Args:
        data: the bytes of the file.
        allow_outside: accept absolute paths and ``..``, which may leave the manifest's folder.

    Raises:
        InvalidInputError: anything else than a manifest; names the line.
    """
    if len(data) > _MAX_BYTES:
        raise InvalidInputError(f"the manifest has {len(data)} bytes, more than {_MAX_BYTES}")
    if data.startswith(_PARQUET_MAGIC):
        found = _parquet_rows(data)
    else:
        text = _decoded(data)
        found = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    rows = []
    for line, values in found:
        rows.append(_row(line, values, allow_outside=allow_outside))
        if len(rows) > _MAX_ROWS:
            raise InvalidInputError(f"the manifest has more than {_MAX_ROWS} rows")
    if not rows:
        raise InvalidInputError("the manifest lists no pair")
    return PairManifest(tuple(rows))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInputError(
            f"line {line}: not UTF-8 text", hint="save the manifest as UTF-8 CSV, JSON lines or parquet"
        ) from error


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not cells:
                pass  # a blank line
            elif names is None:
                names = [cell.strip() for cell in cells]
                _check_columns(names, where=f"line {line}")
            elif len(cells) != len(names):
                raise InvalidInputError(
                    f"line {line}: {len(cells)} cells under {len(names)} columns",
                    hint='put a text that holds a comma in double quotes: "a cat, asleep"',
                )
            else:
                yield line, {name: cell or None for name, cell in zip(names, cells, strict=True)}
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInputError(f"line {max(reader.line_num, 1)}: not CSV: {error}") from error


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            pairs: object = json.loads(content, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"line {line}: not JSON: {error}", hint="JSON lines: one whole object a line"
            ) from error
        # An object is a list of (key, value) pairs here, so that a repeated key is seen.
        if not content.lstrip().startswith("{") or not isinstance(pairs, list):
            raise InvalidInputError(f"line {line}: not a JSON object")
        _check_columns([key for key, _ in pairs], where=f"line {line}")
        yield line, dict(pairs)


def _parquet_rows(data: bytes) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as table:
            _check_columns(table.schema_arrow.names, where="schema")
            first = 1
            for batch in table.iter_batches(4096):
                yield from enumerate(batch.to_pylist(), start=first)
                first += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInputError(f"the manifest is not a readable parquet file: {error}") from error


def _check_columns(names: Sequence[str], *, where: str) -> None:
    for name in names:
        if name not in _KNOWN:
            raise InvalidInputError(
                f"{where}: unknown column {name[:80]!r}", hint=did_you_mean(name[:80], _KNOWN)
            )
    meanings = [_SYNONYMS.get(name, name) for name in names]
    for name in _COLUMNS:
        if meanings.count(name) > 1:
            given = ", ".join(n for n in names if _SYNONYMS.get(n, n) == name)
            raise InvalidInputError(f"{where}: one meaning in several columns: {given}")
    missing = [] if "generated" in meanings else ["generated"]
    missing += [] if set(_TARGETS) & set(meanings) else ["reference"]
    if missing:
        raise InvalidInputError(
            f"{where}: there is no column {missing[0]!r}", hint=f"columns: {', '.join(_KNOWN)}"
        )


def _row(line: int, values: Mapping[str, object], *, allow_outside: bool) -> PairRow:
    texts: dict[str, str | None] = {}
    for given, value in values.items():
        name = _SYNONYMS.get(given, given)
        texts[name] = _text(value, where=f"line {line}: {given}")
        if texts[name] is not None and name in SIDES:
            _check_path(texts[name] or "", where=f"line {line}: {given}", allow_outside=allow_outside)
    for name in ("generated", "reference" if "reference" in texts else "source"):
        if texts.get(name) is None:
            raise InvalidInputError(f"line {line}: {name} is empty", hint="every pair needs both images")
    return PairRow(line=line, **texts)  # type: ignore[arg-type]  # the required ones were checked


def _text(value: object, *, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{where} is not text but {str(value)[:40]!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{where} holds half a character") from error
    return value


def _check_path(path: str, *, where: str, allow_outside: bool) -> None:
    if "\0" in path:
        raise InvalidInputError(f"{where} holds a NUL byte")
    outside = _ABSOLUTE.match(path) or ".." in re.split(r"[/\\]", path)
    if outside and not allow_outside:
        raise InvalidInputError(
            f"{where}: {path[:120]!r} may lie outside the manifest's folder",
            hint="write paths relative to the manifest, or add --allow-outside",
        )
