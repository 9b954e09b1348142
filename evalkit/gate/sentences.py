"""What a gate's report says in words, the same in every output. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evalkit.gate.facts import GateReport, RuleOutcome, Side, Status

ACCEPT = 'to make it the baseline, run the same command with --accept --why "…"'
"""What the report says where a better candidate could become the baseline."""

# Rules that the verdict names before it says how many more there are.
_NAMED = 6
_ERRORS: Mapping[str, str] = {
    "paired": "paired by block (the seeds agree)",
    "unpaired": "unpaired",
    "replicates": "from replicated runs",
}


def verdict(report: GateReport) -> str:
    """Return the verdict as one sentence that begins with it in capitals."""
    ours, theirs = report.candidate.model, _baseline_name(report)
    concerned = _named(report, report.status)
    protocols = "were measured under different protocols"
    if any(outcome.status != "not-comparable" for outcome in report.outcomes):
        protocols = f"were not measured alike in {concerned}"
    if report.status == "pass":
        return _passing(report, ours, theirs)
    sentences: Mapping[Status, str] = {
        "not-comparable": f"NOT COMPARABLE: {ours} and {theirs} {protocols}",
        "regression": f"REGRESSION: {ours} is worse than {theirs} in {concerned}",
        "inconclusive": f"INCONCLUSIVE: {ours} is not shown to be as good as {theirs} in {concerned}",
        "missing": f"MISSING: {ours} and {theirs} cannot be compared in {concerned}",
    }
    return sentences[report.status]


def _passing(report: GateReport, ours: str, theirs: str) -> str:
    if undecided := _named(report, "inconclusive"):
        return f"PASS: {ours} is not shown to be worse than {theirs}; undecided: {undecided}"
    if report.improved:
        return f"PASS: {ours} is better than {theirs} in {_named(report, 'pass', improved=True)}"
    return f"PASS: {ours} is not worse than {theirs}"


def differing_lines(report: GateReport) -> list[str]:
    """Return one line for each field of the protocol that differs."""
    return [f"{name}: candidate {here}, baseline {there}" for name, (here, there) in report.differing.items()]


def side_lines(report: GateReport) -> list[str]:
    """Return one line on the candidate and one on the baseline: model, run, seeds, where it was read."""
    return [_side("candidate", report.candidate), _side("baseline", report.baseline)]


def label_of(outcome: RuleOutcome) -> str:
    """Return what a rule is about: the label of the quantity found, else what the rule named."""
    found = outcome.candidate or outcome.baseline
    if found is None:
        return "/".join(filter(None, [outcome.rule.metric, outcome.rule.variant]))
    return "/".join(filter(None, [found.metric, outcome.rule.variant and found.variant]))


def rule_labels(outcomes: Sequence[RuleOutcome]) -> list[str]:
    """Return :func:`label_of` each outcome, with the variant where two rules share a label."""
    plain = [label_of(outcome) for outcome in outcomes]
    counts = Counter(plain)
    full = []
    for label, outcome in zip(plain, outcomes, strict=True):
        found = outcome.candidate or outcome.baseline
        several = counts[label] > 1 and found is not None and found.variant and "/" not in label
        full.append(f"{label}/{found.variant}" if several and found else label)
    return full


def error_lines(report: GateReport) -> Iterator[str]:
    """Say how the errors of the differences were got, naming the rules only where they are not all alike."""
    found: dict[str, list[str]] = {}
    for label, outcome in zip(rule_labels(report.outcomes), report.outcomes, strict=True):
        if outcome.errors != "none":
            found.setdefault(outcome.errors, []).append(label)
    parts = [f"{_ERRORS[kind]} ({', '.join(names)})" for kind, names in found.items()]
    if len(found) == 1:
        parts = [_ERRORS[kind] for kind in found]
    if parts:
        yield f"Errors of the differences: {'; '.join(parts)}."


def _side(role: str, side: Side) -> str:
    parts = [
        f"run {side.run_id}" if side.run_id else "",
        f"seeds {side.seeds}" if side.seeds else "",
        side.source,
    ]
    return f"{role} {side.model}: {', '.join(filter(None, parts))}"


def _baseline_name(report: GateReport) -> str:
    """Name the run too where both sides are one model."""
    side = report.baseline
    if side.model != report.candidate.model or not side.run_id:
        return side.model
    return f"its baseline ({side.run_id})"


def _named(report: GateReport, status: Status, *, improved: bool = False) -> str:
    """List the rules of a status, of those only the improved ones where asked."""
    labels = zip(rule_labels(report.outcomes), report.outcomes, strict=True)
    found = [(label, o) for label, o in labels if o.status == status and o.improved >= improved]
    names = [
        f"{label} (outside its band)" if o.mode == "band" and status == "regression" else label
        for label, o in found
    ]
    more = len(names) - _NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_NAMED])} and {more} more"
