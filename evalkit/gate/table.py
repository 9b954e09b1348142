"""A gate's report as a table for people: the verdict first, a row a rule, and below what to do about it.

print(to_terminal(gate_table(report)))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalkit.gate.facts import GateReport, Quantity, RuleOutcome, Status
from evalkit.gate.sentences import ACCEPT, differing_lines, error_lines, rule_labels, side_lines, verdict
from evalkit.reporting.formatting import (
    ARROWS,
    MISSING,
    Tone,
    human_bytes,
    human_rate,
    interval,
    measured,
    rounded_like,
    significant,
)
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.spec import Scalar

_WORDS: Mapping[Status, str] = {
    "pass": "pass",
    "regression": "regression",
    "inconclusive": "undecided",
    "not-comparable": "not comparable",
    "missing": "missing",
}
_TONES: Mapping[Status, Tone] = {
    "pass": "good",
    "regression": "bad",
    "inconclusive": "warning",
    "not-comparable": "bad",
    "missing": "bad",
}


def gate_table(report: GateReport) -> Table:
    """Return one row a rule; ``facts`` say what did not pass and what to do, ``data`` has every number."""
    labels = rule_labels(report.outcomes)
    shared = _shared_features(report.outcomes)
    bounds = f"{100 * (1 - report.spec.alpha):g} % bounds"
    return Table(
        title=verdict(report),
        columns=(
            Column("rule", "left"),
            Column("verdict", "left"),
            Column("baseline"),
            Column("candidate"),
            Column("worse by"),
            Column(bounds),
            Column("margin"),
        ),
        rows=tuple(
            _row(outcome, label.replace(f":{shared}", "") if shared else label, report)
            for outcome, label in zip(report.outcomes, labels, strict=True)
        ),
        legend=_legend(report, shared),
        facts=tuple(_facts(report, labels)),
        data=tuple(_data(outcome, label) for outcome, label in zip(report.outcomes, labels, strict=True)),
    )


def _shared_features(outcomes: Sequence[RuleOutcome]) -> str:
    """Return the extractor that every metric names: the rows need not repeat it."""
    found = [outcome.candidate or outcome.baseline for outcome in outcomes]
    names = {quantity.metric.partition(":")[2] for quantity in found if quantity and quantity.n}
    return names.pop() if len(names) == 1 else ""


def _row(outcome: RuleOutcome, label: str, report: GateReport) -> tuple[Cell, ...]:
    found = outcome.candidate or outcome.baseline
    return (
        Cell(f"{label} {ARROWS[found.direction]}" if found else label),
        _verdict_cell(outcome, report),
        Cell(_value(outcome.baseline)),
        Cell(_value(outcome.candidate)),
        Cell(_difference(outcome)),
        Cell(_bounds(outcome)),
        Cell(_margin(outcome)),
    )


def _verdict_cell(outcome: RuleOutcome, report: GateReport) -> Cell:
    if outcome.status == "pass" and outcome.improved:
        return Cell("better", tone="good")
    blocking = outcome.status == "inconclusive" and report.spec.burden == "candidate"
    return Cell(_WORDS[outcome.status], tone="bad" if blocking else _TONES[outcome.status])


def _value(quantity: Quantity | None) -> str:
    if quantity is None:
        return MISSING
    if not quantity.n and quantity.se is None:
        return _speed(quantity.value, quantity.unit)
    return f"{measured(quantity.value, quantity.se)} {quantity.unit}".rstrip()


def _speed(value: float, unit: str) -> str:
    """Quantities of speed have no error bar to round them by, and bytes are read in GiB."""
    return human_bytes(value) if unit == "B" else f"{human_rate(value)} {unit}".rstrip()


def _difference(outcome: RuleOutcome) -> str:
    value = outcome.difference
    if value is None:
        return MISSING
    text = _of_difference(value, outcome)
    return text if text == "0" or value < 0 else f"+{text}"


def _of_difference(value: float, outcome: RuleOutcome) -> str:
    found = outcome.candidate or outcome.baseline
    if outcome.se:
        return rounded_like(value, value=outcome.difference or value, error=outcome.se)
    if found and found.unit == "B":
        return human_bytes(value)
    return significant(value, 3)


def _bounds(outcome: RuleOutcome) -> str:
    if outcome.low is None or outcome.high is None:
        return MISSING
    middle = outcome.difference if outcome.difference is not None else outcome.low
    return interval(outcome.low, outcome.high, value=middle, error=outcome.se)


def _margin(outcome: RuleOutcome) -> str:
    if outcome.mode == "band" and outcome.rule.band:
        low, high = outcome.rule.band
        return f"{low:g} to {high:g}"
    if outcome.difference is None and not outcome.margin:
        return MISSING
    found = outcome.candidate or outcome.baseline
    text = human_bytes(outcome.margin) if found and found.unit == "B" else significant(outcome.margin, 2)
    relative = outcome.rule.relative
    rules = (
        relative and outcome.baseline and outcome.margin <= relative * abs(outcome.baseline.value) * 1.000001
    )
    return f"{text} ({100 * relative:g} %)" if rules else text


def _legend(report: GateReport, shared: str) -> str:
    if all(outcome.status == "not-comparable" for outcome in report.outcomes):
        return "scores of different protocols do not compare"
    features = f"features {shared}; " if shared else ""
    burden = (
        "what is not shown to be as good does not pass (release)"
        if report.spec.burden == "candidate"
        else "what is not shown to be worse passes (pull request)"
    )
    holm = ", Holm over the rules" if len(report.outcomes) > 1 else ""
    return (
        f"{features}worse by: positive is worse, whichever the metric's direction; "
        f"bounds one-sided at alpha {report.spec.alpha:g}{holm}; {burden}"
    )


def _facts(report: GateReport, labels: Sequence[str]) -> Iterator[str]:
    for label, outcome in zip(labels, report.outcomes, strict=True):
        # Of a protocol that differs every rule would say the same, and a warning may have said it.
        told = outcome.status == "not-comparable" or any(outcome.reason in text for text in report.warnings)
        if (outcome.status != "pass" or outcome.improved) and not told:
            yield f"{label}: {outcome.reason}"
    yield from differing_lines(report)
    if report.remedy:
        yield f"Remedy: {report.remedy}."
    for warning in report.warnings:
        yield f"Warning: {warning}"
    yield from side_lines(report)
    yield from error_lines(report)
    if report.improved:
        yield f"Better beyond the margin: {ACCEPT}."


def _data(outcome: RuleOutcome, label: str) -> dict[str, Scalar]:
    found = outcome.candidate or outcome.baseline
    return {
        "metric": label,
        "variant": found.variant if found else outcome.rule.variant or "",
        "unit": found.unit if found else "",
        "mode": outcome.mode,
        "status": outcome.status,
        "baseline": outcome.baseline.value if outcome.baseline else None,
        "baseline_se": outcome.baseline.se if outcome.baseline else None,
        "candidate": outcome.candidate.value if outcome.candidate else None,
        "candidate_se": outcome.candidate.se if outcome.candidate else None,
        "difference": outcome.difference,
        "se": outcome.se,
        "errors": outcome.errors,
        "low": outcome.low,
        "high": outcome.high,
        "p_value": outcome.p_value,
        "adjusted": outcome.adjusted,
        "margin": outcome.margin,
        "images_to_decide": outcome.images_to_decide,
        "improved": outcome.improved,
        "reason": outcome.reason,
    }
