"""Runs of one model from many base seeds, kept below one folder so that a second call measures none again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from evalkit import strict_json
from evalkit.console import Console
from evalkit.errors import InvalidInputError, UsageError
from evalkit.evaluate import run
from evalkit.events import Event
from evalkit.extraction import Progress, interruption
from evalkit.gate.subjects import subject
from evalkit.generators.containers import checkpoint_digest
from evalkit.numerics import NUMERICS_VERSION
from evalkit.record import RunRecord
from evalkit.reporting.comparability import require_comparable
from evalkit.request import ScoreRequest
from evalkit.spec import sha256_of

Runner = Callable[..., RunRecord]
_KEY = 12


def folder_of(request: ScoreRequest, kind: str = "runs", **how: int) -> Path:
    """Return the folder of all runs that differ from ``request`` in their base seed alone.

    ``how`` names what must not move a score (batch size, threads) where that is what is tried.
    """
    ckpt = request.ckpt
    asked = {
        "model": request.model,
        "checkpoint": checkpoint_digest(ckpt) if ckpt is not None and ckpt.exists() else str(ckpt),
        "preset": request.preset,
        "checkpoint_weights": request.checkpoint_weights,
        "reference": request.reference,
        "protocol": request.protocol,
        "metrics": list(request.metrics),
        "num_samples": request.num_samples,
        "sampling": {name: str(value) for name, value in asdict(request.sampling).items()},
        "versions": [version("evalkit"), NUMERICS_VERSION],
    }
    name = "".join(f"-{key}-{value}" for key, value in how.items())
    return request.out / f"{kind}{name}-{sha256_of(asked)[:_KEY]}"


def measured(
    request: ScoreRequest,
    seeds: Sequence[int],
    *,
    folder: Path,
    title: str,
    console: Console,
    stop: Callable[[], int],
    runner: Runner = run,
) -> tuple[RunRecord, ...]:
    """Return the record of each base seed; those that lie in ``folder`` are not measured again.

    Args:
        request: what is run, ``num_samples`` named.
        seeds: base seeds.
        folder: where records and state are kept.
        title: of the one progress bar.
        console: told of progress.
        stop: number of a signal that arrived, or 0.
        runner: scores one request; tests replace it.

    Raises:
        Interrupted: ``stop`` said so; what was measured is kept.
        NotComparableError: the records in the folder were measured differently.
        UsageError: they are of several models.
        EvalkitError: a run failed.
    """
    images = request.num_samples or 0
    found = {seed: record for seed, record in _complete(folder).items() if seed in seeds}
    console.note(f"{title}, {images} images each: {len(found)} of {len(seeds)} are in {folder}")
    with console.progress(title, len(seeds) * images) as advance:
        advance(len(found) * images)
        for seed in seeds:
            if number := stop():
                raise interruption(number)
            if seed not in found:
                shown = _OneBar(console, images, advance)
                found[seed] = runner(replace(request, seed=seed, out=folder), console=shown, stop=stop)
                shown.finish()
    records = tuple(found[seed] for seed in seeds)
    _require_alike(records, folder)
    return records


def _require_alike(records: Sequence[RunRecord], folder: Path) -> None:
    require_comparable(records)
    if len({subject(record) for record in records}) > 1:
        raise UsageError(
            f"the runs in {folder} are of several models", hint="name an empty folder with --out"
        )


def _complete(folder: Path) -> dict[int, RunRecord]:
    """Return the newest complete record of each base seed; a file that is no record is passed over."""
    found: dict[int, RunRecord] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = RunRecord.from_json(strict_json.loads(path.read_text(encoding="utf-8")))
        except (InvalidInputError, UnicodeDecodeError):
            continue  # cut short by a full disk, say: the run is done again
        if record.status == "complete" and record.sampling is not None:
            found[record.sampling.seeds.base] = record
    return found


@dataclass(slots=True)
class _OneBar:
    """Passes on what a run tells, its own images to the bar of all runs."""

    console: Console
    images: int
    advance: Progress
    done: int = 0

    def note(self, text: str) -> None:
        """Show a sentence."""
        self.console.note(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """Advance the bar of all runs, or show another where a reference is read."""
        if total != self.images:
            with self.console.progress(title, total) as advance:
                yield advance
            return
        yield self._count

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        self.console.tell(event)

    def finish(self) -> None:
        """Count what the run did not tell of."""
        self._count(self.images)

    def _count(self, images: int) -> None:
        fresh = min(images, self.images - self.done)
        self.done += fresh
        self.advance(fresh)


def values_of(record: RunRecord) -> Mapping[tuple[str, str], float]:
    """Return the value of each metric and variant."""
    return {(result.metric, result.variant): result.value for result in record.results}
