"""From the parts of a run to its record: their shards are brought together, checked and scored.

No image is drawn or read, and neither the model nor the networks are opened: what the record says of them is
in the manifests of the parts. The reference must be where the parts found it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evalkit.console import Console
from evalkit.distribution.environments import common_environment
from evalkit.distribution.gathering import Run, bring, check_whole, gather, named
from evalkit.distribution.identity import RunIdentity
from evalkit.distribution.manifest import PartManifest
from evalkit.distribution.merged import note_merged, record_of
from evalkit.distribution.stored import open_stored
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.evaluate import score
from evalkit.extraction import MissingShards
from evalkit.measurement import Materials
from evalkit.mirror import NO_MIRROR, Mirror
from evalkit.observation import observed_by_all
from evalkit.opening import Opened
from evalkit.plan import Plan
from evalkit.provenance import environment
from evalkit.record import RunRecord
from evalkit.subjects import Subject

_SHOWN = 5
# Every shard of the parts was seen to be there.
_REFERENCE = (
    "these are of the reference: name the file that `evalkit reference build` makes, or run a part again"
)


def merge(
    folders: Sequence[Path],
    out: Path,
    *,
    console: Console,
    device: str = "auto",
    mirror: Mirror = NO_MIRROR,
    stop: Callable[[], int] = lambda: 0,
    before: Callable[[Run], RunRecord | None] | None = None,
    written: Callable[[RunRecord], None] = lambda _record: None,
) -> list[RunRecord]:
    """Score every run whose parts lie below ``folders``; records and all shards are written below ``out``.

    Args:
        folders: what ``evalkit score --shard i/n --out`` wrote; ``out`` may be one of them.
        out: folder of the records.
        console: told how it goes.
        device: that scores are computed on.
        mirror: keeps ``out`` equal to a folder elsewhere.
        stop: returns the number of a signal that arrived, or 0.
        before: returns the record that was made of the very same parts, which are left alone then, or None;
            by default records below ``out`` are looked for.
        written: called with each record that was made now.

    Raises:
        NothingMeasuredError: there are no parts, or shards are missing; says which, and who owes them.
        InvalidInputError: parts of different runs, or two that say different things about one shard.
        EvalkitError: as :func:`evalkit.evaluate.run`.
    """
    records = []
    for found, kept in _looked_at(folders, before or partial(record_of, read=partial(_text, out))):
        record = kept or score_parts(found, out, console=console, device=device, mirror=mirror, stop=stop)
        if kept is None:
            note_merged(found, record, out)
            written(record)
        else:
            console.note(
                f"{named(found)} is merged already, as {record.run_id}: left alone (--again scores it anew)"
            )
        records.append(record)
    return records


def _looked_at(
    folders: Sequence[Path], before: Callable[[Run], RunRecord | None]
) -> list[tuple[Run, RunRecord | None]]:
    """Return each run, and its record where it has one; the others are seen to be whole."""
    runs = [(found, before(found)) for found in gather(folders)]
    for found, kept in runs:
        if kept is None:
            check_whole(found)
    return runs


def score_parts(
    found: Run,
    out: Path,
    *,
    console: Console,
    device: str = "auto",
    mirror: Mirror = NO_MIRROR,
    stop: Callable[[], int] = lambda: 0,
) -> RunRecord:
    """Score one run from its parts, as :func:`merge` does.

    Raises:
        EvalkitError: as :func:`merge`.
    """
    started = time.monotonic()
    bring(found, out)
    manifest = found[0].manifest
    asked = manifest.request
    request = replace(
        asked, out=out, mirror=mirror, fresh=False, device=device, command=_whole_command(asked.command)
    )
    observed = observed_by_all(part.manifest.observed for part in found)
    env, warnings = common_environment([part.manifest.env for part in found], environment())
    opened = open_stored(
        manifest,
        request,
        observed=replace(observed, warnings=(*warnings, *observed.warnings)),
        env=env,
        console=console,
        stop=stop,
    )
    opened = replace(opened, watch=_SameRun(opened, manifest))
    try:
        return score(opened, started=started)
    except MissingShards as error:
        hint = f"{error.hint}: run its part again" if error.hint else _REFERENCE
        raise NothingMeasuredError(error.message, hint=hint) from error


def _text(out: Path, name: str) -> str | None:
    path = out / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


@dataclass(frozen=True, slots=True, eq=False)
class _SameRun:
    """Sees to it that what is scored is what the parts were computed for."""

    opened: Opened
    manifest: PartManifest

    def begin(self, record: RunRecord, subject: Subject, plan: Plan, materials: Materials) -> None:  # noqa: ARG002
        """Compare the references that were found here, and what they allow.

        Raises:
            InvalidInputError: they are others.
        """
        here = RunIdentity.of(self.opened, plan, materials)
        if differences := self.manifest.identity.differences(here):
            raise InvalidInputError(
                f"what is here is not what the parts were computed with: {'; '.join(differences[:_SHOWN])}",
                hint="merge where the reference is the one that the parts found",
            )

    def look(self, materials: Materials) -> None:
        """See nothing: no image comes."""


def _whole_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that writes the same record alone: without ``--shard``."""
    return tuple(_without_shard(iter(command)))


def _without_shard(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        if word == "--shard":
            next(words, None)
        elif not word.startswith("--shard="):
            yield word
