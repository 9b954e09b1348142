"""TensorBoard: an event file for each record, with its metrics as scalars and its parameters as a table.

Written with the package's own protocol buffers, one whole file at once: its writers run in threads and need
TensorFlow or torch.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from evalkit.atomic import write_atomically
from evalkit.errors import UsageError
from evalkit.record import RunRecord
from evalkit.reporting.rendering import Cell, Column, Table, to_markdown
from evalkit.tracking.entry import Entry, entry_of, safe_name

_FILE_VERSION = "brain.Event:2"


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """Writes below ``where``: a run of TensorBoard for each record, with steps one for each model."""

    where: str

    def __post_init__(self) -> None:
        if Path(self.where).is_file():
            raise UsageError(f"{self.where} is a file", hint="tensorboard:FOLDER")

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:  # noqa: ARG002 - no files
        """Write the events of one record; the same record replaces its own file."""
        entry = entry_of(record)
        second = int(datetime.fromisoformat(entry.created_utc).timestamp())
        # TensorBoard reads the files of a run in the order of their names: by time, then by record.
        name = f"events.out.tfevents.{second:010d}.{safe_name(entry.run_id)}"
        run = Path(self.where) / safe_name(entry.name)
        folder = run / safe_name(entry.run_id) if step is None else run
        write_atomically(folder / name, _events(entry, float(second), step or 0))
        return f"wrote {entry.name} to {folder}"


def _events(entry: Entry, when: float, step: int) -> bytes:
    event_type = _proto("event").Event
    summary_type = _proto("summary").Summary
    stream = io.BytesIO()
    writer = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter(stream)
    writer.write(event_type(wall_time=when, file_version=_FILE_VERSION).SerializeToString())
    for value in _values(entry):
        event = event_type(wall_time=when, step=step, summary=summary_type(value=[value]))
        writer.write(event.SerializeToString())
    writer.flush()
    return stream.getvalue()


def _values(entry: Entry) -> Iterator[Any]:
    summary = _proto("summary")
    for name, number in entry.metrics.items():
        yield summary.Summary.Value(tag=name, simple_value=number)
    plugin = summary.SummaryMetadata.PluginData(plugin_name="text")
    text = _proto("tensor").TensorProto(dtype=_proto("types").DT_STRING, string_val=[_table(entry).encode()])
    yield summary.Summary.Value(
        tag="evalkit/parameters", metadata=summary.SummaryMetadata(plugin_data=plugin), tensor=text
    )


def _proto(name: str) -> ModuleType:
    return importlib.import_module(f"tensorboard.compat.proto.{name}_pb2")  # optional


def _table(entry: Entry) -> str:
    """Return parameters and tags as Markdown, which TensorBoard renders; names in it are escaped."""
    rows = {**entry.params, **entry.tags}
    return to_markdown(
        Table(
            title=entry.name,
            columns=(Column("name", "left"), Column("value", "left")),
            rows=tuple((Cell(name), Cell(str(value))) for name, value in rows.items()),
            legend="what was judged, and how",
        )
    )
