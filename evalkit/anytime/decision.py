"""From a request to a decision: the run under its watch, and the report of what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from evalkit.anytime.watch import BlockWatch
from evalkit.console import Console
from evalkit.errors import UsageError
from evalkit.evaluate import run
from evalkit.gate.facts import GateReport, GateSpec
from evalkit.gate.rules import checked_spec, rule_text
from evalkit.gate.table import gate_table
from evalkit.record import RunRecord
from evalkit.reporting.rendering import Table
from evalkit.request import ScoreRequest

_VALUES = "values are of all images of the baseline and of those drawn so far, worse by is of the same images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a run found.

    Attributes:
        report: as a gate's; differences, errors and bounds are those of the last look at each rule.
        record: of the run: ``partial`` and without scores where it stopped early.
        drawn: images that the verdict needed, of ``planned``.
    """

    report: GateReport
    record: RunRecord
    drawn: int
    planned: int

    @property
    def summary(self) -> str:
        """How many images were drawn and saved, in one sentence."""
        saved = self.planned - self.drawn
        if self.record.status == "complete" or not saved:
            return f"drew all {self.planned:,} images"
        return (
            f"decided after {self.drawn:,} of {self.planned:,} images: "
            f"{saved:,} saved ({saved / self.planned:.0%})"
        )


def score_until_decided(
    request: ScoreRequest,
    *,
    baseline: str,
    spec: GateSpec,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
) -> Decision:
    """Sample ``request.model`` block by block until every rule passes or one is broken, or to the end.

    Args:
        request: one model; its protocol, seeds and number of images must be the baseline's.
        baseline: as :func:`evalkit.gate.baselines.find_baseline` takes it; it must name records.
        spec: rules of mode ``stat``; without any, the baseline's headline metric within 5 %.
        console: told of progress.
        stop: returns the number of a signal that arrived, or 0.

    Raises:
        UsageError: not one model, a rule of another mode, or a metric that depends on the number of images.
        NotComparableError: the baseline has another protocol, other seeds or other blocks.
        NothingMeasuredError: no complete baseline, or it lacks a metric.
        EvalkitError: as :func:`evalkit.evaluate.run`.
    """
    check_request(request, spec)
    watch = BlockWatch(request, baseline, spec)
    record = run(request, console=console, stop=stop, watch=watch)
    return Decision(report=watch.report(), record=record, drawn=watch.drawn, planned=sum(watch.sizes))


def check_request(request: ScoreRequest, spec: GateSpec) -> None:
    """Refuse what cannot be decided before anything is loaded.

    Raises:
        UsageError: images or a translation instead of a model, or a rule of another mode than ``stat``.
    """
    if request.model is None or request.images is not None:
        raise UsageError(
            "--until-decided samples a --model: it saves drawing images",
            hint="images that are there already: evalkit score --images …, then evalkit gate",
        )
    request.check()
    for rule in checked_spec(spec).rules:
        if rule.mode not in {None, "stat"}:
            raise UsageError(
                f"--until-decided judges error bars, not rule {rule_text(rule)!r}",
                hint="write it without its mode, or score to the end and use evalkit gate",
            )


def decision_table(decision: Decision) -> Table:
    """Return the gate's table, with what was drawn and what the bounds are."""
    table, report = gate_table(decision.report), decision.report
    rules = f", alpha / {len(report.outcomes)} for a regression" if len(report.outcomes) > 1 else ""
    features, *_, burden = table.legend.split("; ")
    parts = (
        features if features.startswith("features") else "",
        "worse by: positive is worse, whichever the metric's direction",
        f"bounds hold at every look at once, one-sided at alpha {report.spec.alpha:g}{rules}",
        burden,
        _VALUES if 0 < decision.drawn < decision.planned else "",
    )
    legend = "; ".join(filter(None, parts))
    return replace(table, legend=legend, facts=(f"{decision.summary.capitalize()}.", *table.facts))
