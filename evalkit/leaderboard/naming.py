"""Names of rows: the model's id, and what tells rows of one id apart, only where it must.

ddpm (ddim, 10 steps)   ddpm (ddim, 50 steps)   vae
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from evalkit.leaderboard.storage import Stored
from evalkit.record import SamplingInfo
from evalkit.reporting.formatting import Style

_LONGEST = 40
_DIGITS = 8


def subject(stored: Stored) -> tuple[object, ...]:
    """Return what a row is about: of two runs with one subject the newer counts.

    It is a model under a protocol: its weights, how they were sampled, the name it was added with, and how
    far it is to be trusted, so that a number somebody reported never hides one that was measured.
    """
    record, entry, sampling = stored.record, stored.entry, stored.record.sampling
    how = (sampling.sampler, sampling.steps, sampling.guidance, sampling.truncation) if sampling else ()
    model = record.model
    return (
        record.protocol.fingerprint,
        model.id,
        model.sha256,
        model.revision,
        model.dtype,
        *how,
        entry.name,
        entry.trust,
    )


def row_names(rows: Sequence[Stored]) -> dict[str, str]:
    """Return the name of each row by run id; no two are alike."""
    alike: defaultdict[str, list[Stored]] = defaultdict(list)
    for row in rows:
        alike[row.entry.name or row.record.model.id].append(row)
    return {
        run_id: name for base, group in alike.items() for run_id, name in _told_apart(base, group).items()
    }


def _told_apart(base: str, rows: Sequence[Stored]) -> dict[str, str]:
    """Add what differs, most telling first, until every name is unique; a run id always is."""
    parts: dict[str, list[str]] = {row.record.run_id: [] for row in rows}
    for describe in _DIFFERENCES:
        groups: defaultdict[tuple[str, ...], list[Stored]] = defaultdict(list)
        for row in rows:
            groups[tuple(parts[row.record.run_id])].append(row)
        for group in groups.values():
            if len({describe(row) for row in group}) > 1:
                for row in group:
                    parts[row.record.run_id] += filter(None, [describe(row)])
    return {run_id: f"{base} ({', '.join(found)})" if found else base for run_id, found in parts.items()}


def _sampler(row: Stored) -> str:
    sampling = row.record.sampling
    return _short(sampling.sampler or "") if sampling else ""


def _steps(row: Stored) -> str:
    return _of_sampling(row, lambda s: s.steps, "{} steps")


def _guidance(row: Stored) -> str:
    return _of_sampling(row, lambda s: s.guidance, "guidance {:g}")


def _truncation(row: Stored) -> str:
    return _of_sampling(row, lambda s: s.truncation, "truncation {:g}")


def _images(row: Stored) -> str:
    used = max((result.n_gen for result in row.record.results), default=0)
    return f"N = {used:,}" if used else ""


def _of_sampling(row: Stored, read: Callable[[SamplingInfo], float | None], form: str) -> str:
    sampling = row.record.sampling
    value = read(sampling) if sampling else None
    return "" if value is None else form.format(value)


def _short(text: str) -> str:
    return Style().plain(text).strip()[:_LONGEST]


_DIFFERENCES: tuple[Callable[[Stored], str], ...] = (
    _sampler,
    _steps,
    _guidance,
    _truncation,
    lambda row: _short(row.record.model.revision or ""),
    lambda row: f"weights {row.record.model.sha256[:_DIGITS]}" if row.record.model.sha256 else "",
    lambda row: _short(row.record.model.dtype or ""),
    lambda row: row.entry.trust,
    lambda row: row.record.protocol.name,
    _images,
    lambda row: f"protocol {row.record.protocol.fingerprint[:_DIGITS]}",
    lambda row: row.record.run_id[-_DIGITS:],
    lambda row: row.record.run_id,
)
"""What may tell rows apart, each as a few words or none."""
