"""Trials on a real model: pairs of runs on disjoint seeds, which differ by chance alone.

Runs 0 and 1 are the first pair, 2 and 3 the second, and so on: no image is in two trials, so alarms are
counted over independent pairs. Each rule is judged by itself, which is how its own error bar shows whether
it is honest; the gate of all rules together and the gate that names none are judged beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalkit.calibration.rates import Rate, highest_rate
from evalkit.calibration.synthetic import MARGIN, SHIFT, judged
from evalkit.errors import NothingMeasuredError
from evalkit.gate.facts import GateReport, Rule
from evalkit.gate.quantities import full_name, pick, quantities
from evalkit.gate.rules import rule_text
from evalkit.record import Blocks, MetricResult, RunRecord

TOGETHER = "all rules at once"
"""Name of the gate of all rules together."""
DEFAULT = "the default gate"
"""Name of the gate that names no rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealTrials:
    """How one gate did on pairs of equals.

    Attributes:
        name: the rule, or :data:`TOGETHER` or :data:`DEFAULT`.
        alpha: level of the gate.
        alarms: regressions found where there are none; ``improvements`` likewise to the better.
        spread: standard deviation of the differences, from that of all runs; ``stderr`` the root mean square
            of their error bars, which should equal it. None where a gate has several rules or no error bar.
        caught: of the same pairs with one side made worse by two margins of five standard deviations each;
            None where nothing varies.
        errors: which error bar was used: paired, unpaired …
    """

    name: str
    alpha: float
    alarms: Rate
    improvements: Rate
    spread: float | None = None
    stderr: float | None = None
    caught: Rate | None = None
    errors: str = ""

    @property
    def allowed(self) -> float:
        """The highest false-alarm rate that chance explains."""
        return highest_rate(self.alpha, self.alarms.trials)

    @property
    def holds(self) -> bool:
        """Whether false alarms are as rare as promised."""
        return self.alarms.share <= self.allowed

    @property
    def ratio(self) -> float | None:
        """Error bar over spread: 1 is honest, below 1 too short, above 1 cautious."""
        return self.stderr / self.spread if self.stderr is not None and self.spread else None


def real_trials(
    records: Sequence[RunRecord], rules: Sequence[Rule], *, alpha: float
) -> tuple[RealTrials, ...]:
    """Judge the pairs of ``records`` by each rule, by all of them, and by no rule.

    Args:
        records: of one model and protocol on disjoint seeds; an even number of two or more.
        rules: what to judge by; every score with an error bar at margin 0 where empty.
        alpha: level of the gates.

    Raises:
        NothingMeasuredError: a rule names what no record holds, or no score has an error bar.
    """
    pairs = list(zip(records[::2], records[1::2], strict=True))
    chosen = tuple(rules) or rules_of_all(records[0])
    require_known(chosen, records[0])
    found = [_of_rule(rule, pairs, alpha) for rule in chosen]
    if len(chosen) > 1:
        found.append(_of_gate(TOGETHER, chosen, pairs, alpha))
    if not rules:
        found.append(_of_gate(DEFAULT, (), pairs, alpha))
    return tuple(found)


def rules_of_all(record: RunRecord) -> tuple[Rule, ...]:
    """Return one statistical rule of margin 0 for each score that has an error bar.

    Raises:
        NothingMeasuredError: none has.
    """
    rules = tuple(
        Rule(metric=result.metric, variant=result.variant or None, mode="stat")
        for result in record.results
        if result.se is not None
    )
    if not rules:
        raise NothingMeasuredError(
            "no score has an error bar to judge by", hint="raise --num-samples, or choose other --metrics"
        )
    return rules


def require_known(rules: Sequence[Rule], record: RunRecord) -> None:
    """Refuse a rule of what ``record`` does not hold.

    Raises:
        NothingMeasuredError: there is one.
    """
    known = quantities(record)
    for rule in rules:
        if pick(known, rule) is None:
            names = ", ".join(full_name(quantity) for quantity in known)
            raise NothingMeasuredError(
                f"nothing measured is called {rule.metric!r}", hint=f"there is: {names}"
            )


def _of_rule(rule: Rule, pairs: Sequence[tuple[RunRecord, RunRecord]], alpha: float) -> RealTrials:
    reports = [judged(candidate, baseline, (rule,), alpha) for baseline, candidate in pairs]
    outcomes = [report.outcomes[0] for report in reports]
    # All runs are independent: their own spread is known twice as well as that of the pairs' differences.
    found = [pick(quantities(record), rule) for pair in pairs for record in pair]
    values = [quantity.value for quantity in found if quantity is not None]
    errors = [quantity.se for quantity in found if quantity is not None and quantity.se is not None]
    spread = math.sqrt(2) * float(np.std(values, ddof=1))
    uses_errors = errors and any(outcome.se is not None for outcome in outcomes)
    return RealTrials(
        name=_shown(rule),
        alpha=alpha,
        alarms=_rate(reports, "regression"),
        improvements=Rate(sum(outcome.improved for outcome in outcomes), len(outcomes)),
        spread=spread,
        stderr=math.sqrt(2 * float(np.square(errors).mean())) if uses_errors else None,
        caught=_caught(rule, pairs, alpha, spread) if spread and rule.band is None else None,
        errors=", ".join(sorted({outcome.errors for outcome in outcomes})),
    )


def _of_gate(
    name: str, rules: Sequence[Rule], pairs: Sequence[tuple[RunRecord, RunRecord]], alpha: float
) -> RealTrials:
    reports = [judged(candidate, baseline, rules, alpha) for baseline, candidate in pairs]
    improved = Rate(sum(report.improved for report in reports), len(reports))
    return RealTrials(name=name, alpha=alpha, alarms=_rate(reports, "regression"), improvements=improved)


def _rate(reports: Sequence[GateReport], status: str) -> Rate:
    return Rate(sum(report.status == status for report in reports), len(reports))


def _caught(
    rule: Rule, pairs: Sequence[tuple[RunRecord, RunRecord]], alpha: float, spread: float
) -> Rate | None:
    """Count the shifts of two margins that the rule catches, at a margin of five standard deviations."""
    margin = MARGIN * spread
    wide = replace(rule, absolute=margin, relative=0.0)
    worse = [(baseline, _worse(candidate, rule, SHIFT * margin)) for baseline, candidate in pairs]
    if any(candidate is None for _, candidate in worse):
        return None
    reports = [judged(candidate, baseline, (wide,), alpha) for baseline, candidate in worse if candidate]
    return _rate(reports, "regression")


def _worse(record: RunRecord, rule: Rule, shift: float) -> RunRecord | None:
    """Return the record with the rule's score worse by ``shift``; None where the rule is not of a score."""
    quantity = pick(quantities(record), rule)
    key = (quantity.metric, quantity.variant) if quantity else None
    results = tuple(_shifted(record.results, key, shift))
    return None if results == record.results else replace(record, results=results)


def _shifted(
    results: Sequence[MetricResult], key: tuple[str, str] | None, shift: float
) -> Iterator[MetricResult]:
    for result in results:
        if (result.metric, result.variant) != key:
            yield result
            continue
        step = shift if result.direction == "lower" else -shift
        blocks = result.blocks
        moved = Blocks(blocks.count, tuple(value + step for value in blocks.loo), blocks.sizes)
        interval = result.ci and replace(result.ci, low=result.ci.low + step, high=result.ci.high + step)
        yield replace(result, value=result.value + step, blocks=moved, ci=interval)


def _shown(rule: Rule) -> str:
    """Return the rule as it is written, without the word that every rule here has."""
    return rule_text(replace(rule, mode=None) if rule.mode == "stat" else rule)
