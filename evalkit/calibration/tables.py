"""What a calibration found, as tables for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.calibration.calibrate import Calibration
from evalkit.calibration.rates import Rate
from evalkit.calibration.real import RealTrials
from evalkit.calibration.synthetic import CAUGHT, MARGIN, SHIFT, SyntheticTrials
from evalkit.gate.differences import NUMERIC_FLOOR
from evalkit.reporting.formatting import MISSING
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.spec import Scalar

_SEEN = Column(f"shifts of {SHIFT:g} margins caught", short="shifts\ncaught")
_RATES = (Column("false alarms"), Column("rate [95 %]"), Column("allowed"))
_REAL_COLUMNS = (
    Column("rule", "left"),
    *_RATES,
    Column("error bar / spread", short="error bar\n/ spread"),
    _SEEN,
    Column("verdict", "left"),
)
_SYNTHETIC_COLUMNS = (Column("influence of an image", "left"), *_RATES, _SEEN, Column("verdict", "left"))
_HOLDS, _FAILS = Cell("holds", tone="good"), Cell("FAILS", tone="bad")


def tables(calibration: Calibration) -> tuple[Table, ...]:
    """Return a table for each part that was run: synthetic trials, real trials, rounding."""
    made = (
        _synthetic_table(calibration) if calibration.synthetic else None,
        _real_table(calibration) if calibration.real else None,
        _rounding_table(calibration) if calibration.rounding else None,
    )
    return tuple(table for table in made if table is not None)


def to_data(calibration: Calibration) -> dict[str, Any]:
    """Return everything as JSON data: rates as shares, with the counts they come from."""
    return {
        "calibrated": calibration.calibrated,
        "alpha": calibration.request.alpha,
        "faults": list(calibration.faults),
        "synthetic": [_synthetic_row(trials) for trials in calibration.synthetic],
        "real": [_real_row(trials) for trials in calibration.real],
        "numeric_floor": NUMERIC_FLOOR,
        "rounding": [
            {"metric": found.metric, "variant": found.variant, "relative": found.relative, "how": found.how}
            for found in calibration.rounding
        ],
        "runs": [record.run_id for record in calibration.records],
    }


def verdict(calibration: Calibration) -> str:
    """Return the sentence that ends the report."""
    request = calibration.request
    if calibration.calibrated:
        return (
            f"Calibrated: at level {request.alpha:g} false alarms are as rare as they should be, "
            "as far as so many trials can tell."
        )
    return f"Not calibrated: {'; '.join(calibration.faults)}."


def _synthetic_table(calibration: Calibration) -> Table:
    first = calibration.synthetic[0]
    return Table(
        title=f"Synthetic trials · {first.alarms.trials} of each · {first.images:,} images a side · "
        f"level {first.alpha:g}",
        columns=_SYNTHETIC_COLUMNS,
        rows=tuple(
            (
                Cell(trials.case.name),
                Cell(trials.alarms.text),
                Cell(_share(trials.alarms)),
                Cell(f"{trials.allowed:.1%}"),
                Cell(f"{trials.caught.share:.1%}"),
                _HOLDS if trials.holds else _FAILS,
            )
            for trials in calibration.synthetic
        ),
        legend="a false alarm is a regression between two sides that differ by chance alone, at margin 0; "
        "allowed is the level plus three standard errors of the rate",
        facts=(
            f"A shift is {SHIFT:g} margins of {MARGIN:g} standard errors each; {CAUGHT:.0%} must be caught.",
        ),
        data=tuple(map(_synthetic_row, calibration.synthetic)),
    )


def _real_table(calibration: Calibration) -> Table:
    score, first = calibration.request.score, calibration.records[0]
    shown = calibration.real
    shared = _shared_network(shown)
    trials, last = shown[0].alarms.trials, score.seed + len(calibration.records) - 1
    origin = f"base seeds {score.seed} to {last}; fingerprint {first.protocol.fingerprint[:16]}."
    return Table(
        title=f"Real trials · {trials} pairs of {first.model.id} · {first.inputs.used:,} images a run · "
        f"protocol {first.protocol.name}",
        columns=_REAL_COLUMNS,
        rows=tuple(_real_cells(trials, shared) for trials in shown),
        legend="a false alarm is a regression between two runs of one model, whose seeds are disjoint; error "
        "bar / spread is 1 where error bars are honest, below 1 where they are too short",
        facts=(
            f"A shift adds {SHIFT:g} margins to one run, each {MARGIN:g} spreads of the differences.",
            f"Features {shared}; {origin}" if shared else origin.capitalize(),
        ),
        data=tuple(map(_real_row, shown)),
    )


def _real_cells(trials: RealTrials, network: str) -> tuple[Cell, ...]:
    return (
        Cell(trials.name.replace(f":{network}", "") if network else trials.name),
        Cell(trials.alarms.text),
        Cell(_share(trials.alarms)),
        Cell(f"{trials.allowed:.1%}"),
        Cell(MISSING if trials.ratio is None else f"{trials.ratio:.2f}"),
        Cell(MISSING if trials.caught is None else f"{trials.caught.share:.1%}"),
        _HOLDS if trials.holds else _FAILS,
    )


def _rounding_table(calibration: Calibration) -> Table:
    worst = max(found.relative for found in calibration.rounding)
    below = (
        "lies above all of them"
        if worst < NUMERIC_FLOOR
        else "is smaller than the largest: give such a rule a margin"
    )
    return Table(
        title="Rounding · the same seeds again in other batches and on other threads",
        columns=(
            Column("score", "left"),
            Column("largest relative difference", short="largest relative\ndifference"),
            Column("found with", "left"),
        ),
        rows=tuple(
            (
                Cell(found.name),
                Cell(f"{found.relative:.1e}" if found.relative else "0"),
                Cell(found.how or "no difference"),
            )
            for found in calibration.rounding
        ),
        legend=f"the gate's numeric floor, {NUMERIC_FLOOR:.0e} of the baseline, {below}",
        data=tuple(
            {"score": found.name, "relative": found.relative, "how": found.how}
            for found in calibration.rounding
        ),
    )


def _share(rate: Rate) -> str:
    low, high = rate.interval()
    return f"{rate.share:.1%} [{low:.1%}, {high:.1%}]"


def _shared_network(shown: tuple[RealTrials, ...]) -> str:
    """Return the extractor that all labels name; the title says it once then."""
    named = {
        trials.name.split()[0].partition("/")[0].partition(":")[2] for trials in shown if ":" in trials.name
    }
    return named.pop() if len(named) == 1 else ""


def _synthetic_row(trials: SyntheticTrials) -> Mapping[str, Scalar]:
    return {
        "law": trials.case.law,
        "paired": trials.case.paired,
        "rules": trials.case.metrics,
        "images": trials.images,
        **_alarms(trials.alarms),
        "allowed": trials.allowed,
        "caught": trials.caught.share,
        "holds": trials.holds,
    }


def _real_row(trials: RealTrials) -> Mapping[str, Scalar]:
    return {
        "rule": trials.name,
        "errors": trials.errors,
        **_alarms(trials.alarms),
        "allowed": trials.allowed,
        "improvements": trials.improvements.count,
        "spread": trials.spread,
        "error_bar": trials.stderr,
        "caught": None if trials.caught is None else trials.caught.share,
        "holds": trials.holds,
    }


def _alarms(rate: Rate) -> dict[str, Scalar]:
    low, high = rate.interval()
    return {
        "alarms": rate.count,
        "trials": rate.trials,
        "rate": rate.share,
        "rate_low": low,
        "rate_high": high,
    }
