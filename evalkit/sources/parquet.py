"""A parquet table with one encoded image a row, as Hugging Face data sets write it.

The image column is binary, or a struct with a binary field ``bytes``; the optional label column holds
integers. Class names come from the schema metadata: ``classes`` (a JSON list) or the features of
``huggingface``.

One row group is read at a time, and the last ones are kept in memory. Random order over many row groups is
slow for that reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import final, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.core import IndexArray
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError
from evalkit.sources.encoded import EncodedImages, Loader
from evalkit.sources.formats import FORMATS, ReadSettings, SourceFormat

_MAGIC = b"PAR1"
_IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png")
_LABEL_COLUMNS = ("label", "labels", "class")
_CACHED_GROUPS = 2
_BATCH_ROWS = 32
_MAX_ROWS = 100_000_000
_MAX_GROUP_BYTES = 4 * 2**30  # a dictionary page can repeat one image a million times in a few bytes
_READING_ERRORS = (pa.ArrowException, OSError, ValueError)


@final
class ParquetTable:
    """Encoded images in the parquet file at ``path``, in row order.

    Raises:
        InvalidInputError: not a readable parquet file, no image column, or unusable labels.
    """

    format = "parquet"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as table:
                self._metadata: pq.FileMetaData = table.metadata
                schema: pa.Schema = table.schema_arrow
                self._column = _image_column(schema, file=path.name)
                self.labels: IndexArray | None = _read_labels(table, schema)
        except _READING_ERRORS as error:
            raise InvalidInputError(f"{path.name!r} is not a readable parquet file: {error}") from error
        self.class_names: tuple[str, ...] | None = _class_names(schema.metadata or {})
        if self._metadata.num_rows > _MAX_ROWS:
            raise InvalidInputError(f"{path.name!r} claims {self._metadata.num_rows} rows")
        sizes = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        counts = {int(self._starts[-1]), *([] if self.labels is None else [len(self.labels)])}
        if min(sizes, default=0) < 0 or len(counts) > 1:
            raise InvalidInputError(f"{path.name!r} claims different numbers of rows: it is corrupt")
        self.names: Sequence[str] = _RowNames(int(self._starts[-1]))
        self._cache: dict[int, list[bytes]] = {}
        self._lock = Lock()

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return a reader for each row; the row groups are read here, each at most once a call."""
        groups = np.searchsorted(self._starts, np.asarray(positions, dtype=np.int64), side="right") - 1
        found: dict[int, bytes] = {}
        with self._lock:
            for group in np.unique(groups).tolist():
                rows = self._read_group(group)
                for position in np.asarray(positions)[groups == group].tolist():
                    found[position] = rows[position - int(self._starts[group])]
        return [partial(bytes, found[position]) for position in positions]

    def sha256(self) -> str:
        """Return the SHA-256 of the parquet file."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return file_sha256(self._path)

    def _read_group(self, group: int) -> list[bytes]:
        """Return the image bytes of a row group (empty for null), from the cache where it is there."""
        if group not in self._cache:
            while len(self._cache) >= _CACHED_GROUPS:
                del self._cache[next(iter(self._cache))]
            self._cache[group] = self._unpack_group(group)
        return self._cache[group]

    def _unpack_group(self, group: int) -> list[bytes]:
        rows: list[bytes] = []
        unpacked = 0
        try:
            with pq.ParquetFile(self._path, metadata=self._metadata) as table:
                for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._column]):
                    values = batch.column(0)
                    if pa.types.is_struct(values.type):
                        values = values.field("bytes")
                    rows += [value or b"" for value in values.to_pylist()]
                    unpacked += sum(map(len, rows[-len(batch) :]))
                    if unpacked > _MAX_GROUP_BYTES:
                        raise InvalidInputError(
                            f"row group {group} unpacks to more than {_MAX_GROUP_BYTES} bytes"
                        )
        except _READING_ERRORS as error:
            raise InvalidInputError(
                f"row group {group} of {self._path.name!r} is corrupt: {error}"
            ) from error
        if len(rows) != self._starts[group + 1] - self._starts[group]:
            raise InvalidInputError(
                f"row group {group} of {self._path.name!r} has not as many rows as it claims"
            )
        return rows


class _RowNames(Sequence[str]):
    """``row 0``, ``row 1``, ... without a string for each."""

    def __init__(self, count: int) -> None:
        self._rows = range(count)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        rows = self._rows[position]
        return [f"row {row}" for row in rows] if isinstance(rows, range) else f"row {rows}"


def _image_column(schema: pa.Schema, *, file: str) -> str:
    """Return the path of the image column as ``ParquetFile`` selects it."""
    found = {field.name: field.type for field in schema if _holds_bytes(field.type)}
    names = [name for name in _IMAGE_COLUMNS if name in found] or list(found)
    if not names or (len(names) > 1 and names[0] not in _IMAGE_COLUMNS):
        raise InvalidInputError(
            f"{file!r} has no column that is clearly the images, among {', '.join(schema.names)}",
            hint="name it 'image': binary, or a struct with a binary field 'bytes'",
        )
    return f"{names[0]}.bytes" if pa.types.is_struct(found[names[0]]) else names[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _read_labels(table: pq.ParquetFile, schema: pa.Schema) -> IndexArray | None:
    name = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
    if name is None or not pa.types.is_integer(schema.field(name).type):
        return None
    column = table.read(columns=[name]).column(0)
    if column.null_count:
        raise InvalidInputError(f"column {name!r} lacks {column.null_count} labels")
    labels: IndexArray = column.to_numpy().astype(np.int64)
    if labels.size and labels.min() < 0:
        raise InvalidInputError(f"column {name!r} contains the negative class {labels.min()}")
    return labels


def _class_names(metadata: Mapping[bytes, bytes]) -> tuple[str, ...] | None:
    """Return the class names in the schema metadata; None where there are none that can be read."""
    try:
        if b"classes" in metadata:
            names = json.loads(metadata[b"classes"])
        else:
            features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
            names = next(features[name]["names"] for name in _LABEL_COLUMNS if name in features)
    except (ValueError, LookupError, TypeError, StopIteration, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _open(path: Path, settings: ReadSettings) -> EncodedImages:
    return EncodedImages(ParquetTable(path), settings)


FORMATS.register("parquet")(
    SourceFormat(
        accepts="a .parquet table with an image column",
        matches=lambda _path, head: head.startswith(_MAGIC),
        open=_open,
    )
)
