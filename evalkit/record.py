"""One immutable JSON file a run, schema ``evalkit.run/1``: what was judged, how, and what came out. No torch.

    record = RunRecord.read(Path("runs/ddpm/record.json"))
    fid = next(result for result in record.results if result.metric == "fid")
    print(fid.value, fid.se)

``status`` is ``started`` when a run begins; :meth:`RunRecord.write` replaces the file atomically when it
ends. Everything needed to compare two runs (blocks, sizes, fingerprint) is inside; nothing is ever NaN.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import InvalidInputError
from evalkit.record_parts import (
    Blocks,
    DataInfo,
    Inputs,
    MetricResult,
    ModelInfo,
    Performance,
    ProtocolInfo,
    SamplingInfo,
    Seeds,
    check_identifier,
    refuse_negative,
    require,
)
from evalkit.redaction import redact_command
from evalkit.spec import Scalar

__all__ = [
    "SCHEMA",
    "Blocks",
    "DataInfo",
    "Inputs",
    "MetricResult",
    "ModelInfo",
    "Performance",
    "ProtocolInfo",
    "RunRecord",
    "SamplingInfo",
    "Seeds",
    "Status",
    "check_identifier",
    "new_run_id",
    "redact_command",
    "schema",
    "utc_now",
]

SCHEMA = "evalkit.run/1"
Status = Literal["started", "complete", "partial", "error"]

_UTC = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,6})?Z")


def new_run_id() -> str:
    """Return a new run id; ids sort in the order of their UTC time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"


def utc_now() -> str:
    """Return the time now as a record writes it, for example ``2026-01-31T12:00:00Z``."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of one run. ``command`` must have gone through :func:`redact_command`."""

    schema: Literal["evalkit.run/1"] = "evalkit.run/1"
    run_id: str = field(default_factory=new_run_id)
    status: Status
    created_utc: str = field(default_factory=utc_now)
    duration_seconds: float = 0.0
    model: ModelInfo
    data: DataInfo
    sampling: SamplingInfo | None = None
    protocol: ProtocolInfo
    results: tuple[MetricResult, ...] = ()
    performance: tuple[Performance, ...] = field(default=(), metadata={"key": "perf"})
    inputs: Inputs
    env: Mapping[str, Scalar] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    notes: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_identifier(self.run_id, what="run id")
        refuse_negative(self)
        _require_utc(self.created_utc)
        names = [(result.metric, result.variant) for result in self.results]
        require(len(set(names)) == len(names), "a metric appears twice in results")

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON data, keys in a fixed order."""
        return strict_json.encode_object(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Rebuild a record from JSON data.

        Raises:
            InvalidInputError: another schema, an unknown or missing key, or a value that is not allowed.
        """
        found = data.get("schema") if isinstance(data, Mapping) else None
        if found != SCHEMA:
            hint = "written by another release of evalkit?" if found else "this is not a record of evalkit"
            raise InvalidInputError(f"schema is {found!r}, not {SCHEMA!r}", hint=hint)
        return strict_json.decode(data, cls)

    def write(self, path: Path) -> None:
        """Write the record to ``path`` atomically: readers see the old file or the new one, never half."""
        write_atomically(path, strict_json.dumps(self.to_json()))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record; an error names the file."""
        try:
            return cls.from_json(strict_json.loads(path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path}: not UTF-8 text") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error.message}", hint=error.hint) from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record."""
    file = importlib.resources.files("evalkit").joinpath("schemas", "run-1.schema.json")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def _require_utc(value: str) -> None:
    try:
        valid = _UTC.fullmatch(value) is not None and datetime.fromisoformat(value) is not None
    except ValueError:
        valid = False
    require(valid, f"created_utc {value!r} is not a UTC time such as 2026-01-31T12:00:00Z")
