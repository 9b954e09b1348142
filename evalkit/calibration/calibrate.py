"""The whole calibration: synthetic trials, then real ones, then rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from evalkit.calibration.real import RealTrials, real_trials, require_known
from evalkit.calibration.rounding import Rounding, rounding
from evalkit.calibration.runs import Runner, folder_of, measured
from evalkit.calibration.synthetic import CASES, SyntheticTrials, synthetic_trials
from evalkit.console import Console
from evalkit.errors import UsageError
from evalkit.evaluate import run
from evalkit.extraction import interruption
from evalkit.gate.facts import GateSpec, Rule
from evalkit.gate.rules import checked_spec
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest

FEWEST_IMAGES = 32
"""With fewer images a jackknife has too few blocks for an error bar worth calibrating."""
ROUNDING_RUNS = 2
"""Runs that are scored again in other batches and on other threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """What ``evalkit gate calibrate`` was asked for.

    Attributes:
        score: the model, how it is sampled and measured; its seed is the first base seed, its ``out`` the
            folder of the runs.
        trials: pairs of real runs; 0 leaves them out, and the rounding with them.
        synthetic: trials of each synthetic case; 0 leaves them out.
        rules: what the real pairs are judged by; every score at margin 0 where empty.
        alpha: level of the gate.
    """

    score: ScoreRequest
    trials: int = 30
    synthetic: int = 200
    rules: tuple[Rule, ...] = ()
    alpha: float = 0.05

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: no model, nothing to do, or a number or a rule out of range.
        """
        checked_spec(GateSpec(rules=self.rules, alpha=self.alpha))
        if self.trials < 0 or self.synthetic < 0:
            raise UsageError("--trials and --synthetic must not be negative")
        if self.trials == self.synthetic == 0:
            raise UsageError("nothing to calibrate", hint="give --trials or --synthetic at least 1")
        self.score.check()
        if self.score.model is None:
            raise UsageError("calibrate draws from a model: files have no seeds to change")
        if self.score.num_samples is None or self.score.num_samples < FEWEST_IMAGES:
            raise UsageError(f"--num-samples must be at least {FEWEST_IMAGES}, for error bars to exist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was found; ``records`` are the real runs in the order of their seeds."""

    request: CalibrationRequest
    synthetic: tuple[SyntheticTrials, ...] = ()
    real: tuple[RealTrials, ...] = ()
    rounding: tuple[Rounding, ...] = ()
    records: tuple[RunRecord, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """What does not hold, one sentence each."""
        return (
            *(
                f"{trials.case.name}: {trials.alarms.text} false alarms, {trials.caught.text} shifts caught"
                for trials in self.synthetic
                if not trials.holds
            ),
            *(
                f"{trials.name}: {trials.alarms.text} false alarms, where {trials.allowed:.1%} are allowed"
                for trials in self.real
                if not trials.holds
            ),
        )

    @property
    def calibrated(self) -> bool:
        """Whether every rate is what the level promises."""
        return not self.faults


def calibrate(
    request: CalibrationRequest,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    runner: Runner = run,
) -> Calibration:
    """Run everything that ``request`` asks for; a second call goes on where the first was stopped.

    Args:
        request: what to do.
        console: told of progress.
        stop: number of a signal that arrived, or 0.
        runner: scores one request; tests replace it.

    Raises:
        Interrupted: ``stop`` said so; every whole run is kept.
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request.check()
    # Runs of a model first: what is wrong with it is told at once, and they are kept.
    found = _real(request, console, stop, runner) if request.trials else Calibration(request=request)
    return replace(found, synthetic=_synthetic(request, console, stop))


def _real(
    request: CalibrationRequest, console: Console, stop: Callable[[], int], runner: Runner
) -> Calibration:
    def checked(score: ScoreRequest, *, console: Console, stop: Callable[[], int]) -> RunRecord:
        """Score one request, and refuse rules that no run will ever answer after the first of them."""
        record = runner(score, console=console, stop=stop)
        require_known(request.rules, record)
        return record

    score = request.score
    seeds = range(score.seed, score.seed + 2 * request.trials)
    records = measured(
        score,
        seeds,
        folder=folder_of(score),
        title=f"{len(seeds)} runs of {score.model}",
        console=console,
        stop=stop,
        runner=checked,
    )
    real = real_trials(records, request.rules, alpha=request.alpha)
    moved = rounding(records[:ROUNDING_RUNS], score, console=console, stop=stop, runner=runner)
    return Calibration(request=request, real=real, rounding=moved, records=records)


def _synthetic(
    request: CalibrationRequest, console: Console, stop: Callable[[], int]
) -> tuple[SyntheticTrials, ...]:
    if not request.synthetic:
        return ()
    console.note(f"{request.synthetic} synthetic trials of each of {len(CASES)} kinds")
    found = []
    for case in CASES:
        if number := stop():
            raise interruption(number)
        found.append(
            synthetic_trials(
                case,
                trials=request.synthetic,
                images=request.score.num_samples or FEWEST_IMAGES,
                alpha=request.alpha,
                seed=request.score.seed,
            )
        )
    return tuple(found)
