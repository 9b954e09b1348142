"""What a report is asked to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import UsageError
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.subjects import ImageOptions

MOST_PICTURES = 400
"""Largest grid of samples."""
STEP_IMAGES = 256
"""Images drawn at each number of steps unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One record, and how its images are made again; ``state`` holds what was extracted of them, or will."""

    record: RunRecord
    score: ScoreRequest
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PortraitRequest:
    """Everything that ``evalkit report`` accepts.

    Attributes:
        runs: one or two, shown left to right.
        real: images among which the nearest to a sample are looked for; None: those of the reference, where
            that is images.
        grid: samples shown.
        sizes: numbers of images of the curve against N; None for N, N/2, N/4 and N/8, empty for no curve.
        steps: numbers of sampler steps to draw ``step_images`` images with again.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    runs: tuple[Run, ...]
    real: Path | None = None
    image_options: ImageOptions = field(default_factory=ImageOptions)
    grid: int = 64
    sizes: tuple[int, ...] | None = None
    steps: tuple[int, ...] = ()
    step_images: int = STEP_IMAGES
    device: str = "auto"

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: no record or more than two, or a number out of range.
        """
        if not 1 <= len(self.runs) <= 2:
            raise UsageError(
                f"a report shows one record or two, not {len(self.runs)}",
                hint="evalkit compare puts any number of records into one table",
            )
        if not 1 <= self.grid <= MOST_PICTURES:
            raise UsageError(f"--grid shows 1 to {MOST_PICTURES} samples, not {self.grid}")
        if any(steps < 1 for steps in self.steps):
            raise UsageError("--nfe takes numbers of steps of at least 1")
        if self.step_images < 16:
            raise UsageError(f"--nfe-images must be at least 16, not {self.step_images}")
        if any(size < 16 for size in self.sizes or ()):
            raise UsageError("--curve-n takes numbers of images of at least 16")
        if self.steps and all(
            run.record.sampling is None or run.record.sampling.steps is None for run in self.runs
        ):
            raise UsageError(
                "--nfe goes with models that sample in steps, and none of the records is of one",
                hint="diffusion models do",
            )
