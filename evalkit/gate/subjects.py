"""Who was measured and from which seeds: what makes two runs replicates, paired, or the very same images."""

from __future__ import annotations

from evalkit.record import RunRecord

Identity = tuple[str, str, float | None, float | None, int, int]
"""SHA-256 of the checkpoint, sampler, NFE, guidance scale, first and last seed."""


def subject(record: RunRecord) -> tuple[object, ...]:
    """Return what a run is about: one model under two samplers is two, and so are other weights."""
    sampling = record.sampling
    sampler = (sampling.sampler, sampling.steps, sampling.guidance, sampling.truncation) if sampling else ()
    return (record.model.id, record.model.sha256, record.model.revision, *sampler)


def identity(record: RunRecord) -> Identity | None:
    """Return what decides a run's images, as far as a leaderboard's row tells it; None where unknown."""
    sampling = record.sampling
    if sampling is None or record.model.sha256 is None:
        return None
    return (
        record.model.sha256,
        sampling.sampler or "",
        None if sampling.nfe is None else float(sampling.nfe),
        sampling.guidance,
        sampling.seeds.first,
        sampling.seeds.last,
    )


def same_seeds(one: RunRecord, other: RunRecord) -> bool:
    """Whether image i of both runs was drawn from the same seed and for the same label.

    Images of a folder have no seeds: never.
    """
    if one.sampling is None or other.sampling is None:
        return False
    a, b = one.sampling, other.sampling
    return (a.seeds, a.n, a.labels) == (b.seeds, b.n, b.labels)


def seeds_text(record: RunRecord) -> str:
    """Return the seeds of a run for a reader; empty for images of a folder."""
    return f"base {record.sampling.seeds.base}, {record.sampling.n} images" if record.sampling else ""


def age(record: RunRecord) -> tuple[str, str]:
    """Return what sorts runs by time, oldest first."""
    return record.created_utc, record.run_id
