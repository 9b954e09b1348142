"""``scores.csv``: every number of every run on a board, a row each. Older runs of a model stay in it.

    pandas.read_csv("scores.csv", dtype={"seed_first": "UInt64", "seed_last": "UInt64"})

``variant`` is what a score read, or the scenario of a speed. Speeds are those that ``evalkit compare`` and
the gate show: the fastest offline measurement, and for latencies one image at a time where that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from evalkit.leaderboard.delimited import csv_text
from evalkit.leaderboard.storage import Stored
from evalkit.record import MetricResult, Performance, RunRecord
from evalkit.reporting.costs import fastest, timed
from evalkit.spec import Better, Scalar

SCHEMA_VERSION = 1
COLUMNS = (
    "schema_version",
    "board",
    "dataset",
    "split",
    "resolution_px",
    "protocol",
    "fingerprint",
    "model_id",
    "model_revision",
    "model_sha256",
    "family",
    "n_params",
    "metric",
    "variant",
    "direction",
    "value",
    "unit",
    "se",
    "ci_low",
    "ci_high",
    "ci_method",
    "value_bias_corrected",
    "n_gen",
    "n_ref",
    "seed_first",
    "seed_last",
    "sampler",
    "nfe",
    "guidance_scale",
    "run_id",
    "date_utc",
    "evalkit_version",
    "torch_version",
    "device",
    "dtype",
    "trust",
    "source_url",
    "notes",
)
"""Columns of the file, in order; a change of meaning raises :data:`SCHEMA_VERSION`."""

_Row = dict[str, Scalar]
# Metric, field of a measurement, unit, better direction.
_OFFLINE: tuple[tuple[str, str, str, Better], ...] = (
    ("throughput", "throughput", "img/s", "higher"),
    ("peak_memory", "peak_memory_bytes", "B", "lower"),
    ("energy", "energy_per_image_joule", "J/img", "lower"),
)
_TIMED: tuple[tuple[str, str, str, Better], ...] = (
    ("latency_p50", "latency_p50_ms", "ms", "lower"),
    ("latency_p90", "latency_p90_ms", "ms", "lower"),
    ("latency_p99", "latency_p99_ms", "ms", "lower"),
)


def scores_csv(board: str, stored: Iterable[Stored]) -> str:
    """Return the tidy CSV of published runs, sorted by data, protocol, model, run, metric and variant."""
    rows = [row for run in stored for row in rows_of(run, board)]
    rows.sort(key=lambda row: tuple(str(row[column] or "") for column in _ORDER))
    return csv_text(COLUMNS, rows)


_ORDER = ("dataset", "split", "fingerprint", "model_id", "run_id", "metric", "variant")


def rows_of(run: Stored, board: str) -> Iterator[_Row]:
    """Yield the rows of one run, every one with all of :data:`COLUMNS`."""
    record = run.record
    shared = _shared(run, board)
    quality: dict[str, Scalar] = {"device": _device(record), "dtype": record.model.dtype}
    for result in record.results:
        yield shared | quality | _score(result)
    for measured, table in ((fastest(record), _OFFLINE), (timed(record), _TIMED)):
        if measured is not None:
            yield from (shared | row for row in _speeds(measured, table))
    first = record.performance[0] if record.performance else None
    if first and first.flops_per_image is not None:
        yield shared | quality | _number("flops", first.flops_per_image, "FLOP/img", "lower")


def _shared(run: Stored, board: str) -> dict[str, Scalar]:
    record, entry = run.record, run.entry
    sampling, first = record.sampling, record.performance[0] if record.performance else None
    nfe, parameters = (first.nfe, first.parameters) if first else (None, None)
    return dict.fromkeys(COLUMNS) | {
        "schema_version": SCHEMA_VERSION,
        "board": board,
        "dataset": record.data.dataset,
        "split": record.data.split,
        "resolution_px": record.data.resolution,
        "protocol": record.protocol.name,
        "fingerprint": record.protocol.fingerprint,
        "model_id": record.model.id,
        "model_revision": record.model.revision,
        "model_sha256": record.model.sha256,
        "family": record.model.family,
        "n_params": record.model.n_params if record.model.n_params is not None else parameters,
        "seed_first": sampling.seeds.first if sampling else None,
        "seed_last": sampling.seeds.last if sampling else None,
        "sampler": sampling.sampler if sampling else None,
        "nfe": sampling.nfe if sampling and sampling.nfe is not None else nfe,
        "guidance_scale": sampling.guidance if sampling else None,
        "run_id": record.run_id,
        "date_utc": record.created_utc,
        "evalkit_version": record.env.get("evalkit"),
        "torch_version": record.env.get("torch"),
        "trust": entry.trust,
        "source_url": entry.source_url,
        "notes": entry.notes,
    }


def _score(result: MetricResult) -> dict[str, Scalar]:
    ci = result.ci
    return _number(result.metric, result.value, result.unit, result.direction) | {
        "variant": result.variant,
        "se": result.se,
        "ci_low": ci.low if ci else None,
        "ci_high": ci.high if ci else None,
        "ci_method": ci.method if ci else None,
        "value_bias_corrected": result.bias_corrected,
        "n_gen": result.n_gen,
        "n_ref": result.n_ref,
    }


def _speeds(measured: Performance, table: Iterable[tuple[str, str, str, Better]]) -> Iterator[_Row]:
    how: dict[str, Scalar] = {
        "variant": measured.scenario,
        "n_gen": measured.images,
        "device": measured.device,
        "dtype": measured.dtype,
    }
    for name, field, unit, better in table:
        if (value := getattr(measured, field)) is not None:
            yield how | _number(name, value, unit, better)


def _number(name: str, value: float, unit: str, better: Better) -> dict[str, Scalar]:
    return {"metric": name, "value": value, "unit": unit, "direction": better}


def _device(record: RunRecord) -> str | None:
    """Where the samples were drawn; a record of images alone knows only its machine's accelerator."""
    if record.performance:
        return record.performance[0].device
    accelerator = record.env.get("accelerator")
    return str(accelerator) if accelerator and accelerator != "none" else None
