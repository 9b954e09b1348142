"""How far the scores of the very same images move with what must not matter: batch size and threads.

A float32 network sums in another order in another batch, so features differ in their last bits. Below the
largest difference found here no margin means anything; the gate's numeric floor lies above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from evalkit.calibration.runs import Runner, folder_of, measured, values_of
from evalkit.console import Console
from evalkit.evaluate import run
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest


@dataclass(frozen=True, slots=True)
class Rounding:
    """Largest relative difference of one score, ``|again - first| / |first|``, and what was changed there.

    A score of 0 that stays 0 differs by 0; one that moves away from 0 by its own size, 1.
    """

    metric: str
    variant: str
    relative: float
    how: str

    @property
    def name(self) -> str:
        """``metric``, with its variant where there is one."""
        return f"{self.metric}/{self.variant}" if self.variant else self.metric


def variations() -> tuple[dict[str, int], ...]:
    """Return the batch sizes and numbers of threads that are tried beside the run's own."""
    threads = torch.get_num_threads()
    other = 1 if threads > 1 else 2
    return (
        {"batch": 1, "threads": threads},
        {"batch": 7, "threads": threads},
        {"batch": 7, "threads": other},
    )


def rounding(
    records: Sequence[RunRecord],
    request: ScoreRequest,
    *,
    console: Console,
    stop: Callable[[], int],
    runner: Runner = run,
) -> tuple[Rounding, ...]:
    """Score the seeds of ``records`` again under :func:`variations`; return one row a score.

    Raises:
        EvalkitError: a run failed.
    """
    largest: dict[tuple[str, str], Rounding] = {}
    for how in variations():
        again = replace(request, batch_size=how["batch"], strict=False)
        with _threads(how["threads"]):
            others = measured(
                again,
                [record.sampling.seeds.base for record in records if record.sampling],
                folder=folder_of(request, "rounding", **how),
                title=f"batches of {how['batch']}, {_count(how['threads'], 'thread')}",
                console=console,
                stop=stop,
                runner=runner,
            )
        for first, other in zip(records, others, strict=True):
            for found in _differences(first, other, how):
                key = (found.metric, found.variant)
                if key not in largest or found.relative > largest[key].relative:
                    largest[key] = found
    return tuple(largest.values())


def _differences(first: RunRecord, other: RunRecord, how: dict[str, int]) -> Iterator[Rounding]:
    again = values_of(other)
    where = f"batches of {how['batch']}, {_count(how['threads'], 'thread')}"
    for (metric, variant), value in values_of(first).items():
        moved = abs(again[metric, variant] - value)
        scale = abs(value) or abs(again[metric, variant])
        relative = moved / scale if scale else 0.0
        yield Rounding(metric, variant, relative, where if relative else "")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
