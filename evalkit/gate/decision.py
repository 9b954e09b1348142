"""The gate: every rule against a candidate and its baseline, and one report.

    candidate = find_candidate(Path("evalkit-runs"))
    spec = GateSpec(rules=(parse_rule("kd rel=5%"),))
    report = gate(candidate, find_baseline("baseline.json", candidate), spec)
    sys.exit(report.exit_code)

Accepted trade-offs: a report has one protocol. Where the fingerprints differ nothing is compared, the speed
neither, though it does not depend on a metric: a speed of another image size or number of images is another
speed, and a report half of which may be believed would be read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from evalkit.errors import NothingMeasuredError
from evalkit.gate.baselines import Baseline, side_of
from evalkit.gate.bounds import Verdict, images_to_decide, judge
from evalkit.gate.cautions import cautions
from evalkit.gate.comparisons import Comparison, Sides, compare, not_comparable, other_conditions
from evalkit.gate.facts import GateReport, GateSpec, RuleOutcome
from evalkit.gate.reasons import stat_reason
from evalkit.gate.rules import checked_spec, default_rules, rule_text
from evalkit.record import RunRecord
from evalkit.reporting.comparability import differing_fields, remedy, short

_SPEED_REMEDY = "measure the speed of both on one device, at one dtype and batch size"


def gate(
    candidate: Sequence[RunRecord], baseline: Baseline, spec: GateSpec, *, source: str = ""
) -> GateReport:
    """Judge ``candidate`` (its first record; further ones are replicates) against ``baseline``.

    A spec without rules is judged by :func:`evalkit.gate.rules.default_rules`: the headline metric of the
    candidate alone. The report warns of it.

    Args:
        candidate: as :func:`evalkit.gate.baselines.find_candidate` returns it.
        baseline: as :func:`evalkit.gate.baselines.find_baseline` returns it.
        spec: rules, level and burden of proof.
        source: where the candidate was read, for the report.

    Raises:
        UsageError: a rule fits several quantities, asks for statistics where there is no error bar, or has
            neither an error bar nor a margin.
        NothingMeasuredError: no candidate, or no rule and no score in the candidate.
        InvalidInputError: the sides have opposite directions, or other units.
    """
    if not candidate:
        raise NothingMeasuredError("there is no candidate to judge", hint="evalkit score writes a record")
    notes = []
    if not spec.rules:
        spec = replace(spec, rules=default_rules(candidate[0]))
        notes.append(f"no rule was given: only {rule_text(spec.rules[0])} is judged")
    sides, spec = Sides.of(candidate, baseline), checked_spec(spec)
    differing, advice = _protocols(candidate[0], baseline)
    outcomes = _of_other_protocols(sides, spec, differing) if differing else _judged(sides, spec)
    if not differing and (differing := _conditions(outcomes)):
        advice = _SPEED_REMEDY
    return GateReport(
        candidate=side_of(candidate[0], source),
        baseline=baseline.side,
        spec=spec,
        outcomes=outcomes,
        differing=differing,
        remedy=advice,
        warnings=(*notes, *cautions(candidate, baseline, outcomes, spec)),
    )


def _of_other_protocols(sides: Sides, spec: GateSpec, differing: Iterable[str]) -> tuple[RuleOutcome, ...]:
    reason = f"measured under another protocol: {', '.join(differing)}"
    return tuple(not_comparable(rule, sides, reason) for rule in spec.rules)


def _judged(sides: Sides, spec: GateSpec) -> tuple[RuleOutcome, ...]:
    """Return the outcomes in the order of the rules; Holm's correction needs all of them at once."""
    found = [compare(rule, sides) for rule in spec.rules]
    pending = [each for each in found if isinstance(each, Comparison)]
    verdicts = judge(
        [each.difference for each in pending], [each.margin for each in pending], alpha=spec.alpha
    )
    decided = iter(
        [_decided(each, v, spec.alpha, len(pending)) for each, v in zip(pending, verdicts, strict=True)]
    )
    return tuple(next(decided) if isinstance(each, Comparison) else each for each in found)


def _decided(found: Comparison, verdict: Verdict, alpha: float, rules: int) -> RuleOutcome:
    images = None
    if verdict.status == "inconclusive" and found.difference.errors != "replicates":
        images = images_to_decide(
            found.difference, found.margin, images=found.candidate.n, alpha=alpha, rules=rules
        )
    reason = stat_reason(
        found.difference, verdict, margin=found.margin, alpha=alpha, rules=rules, images=images
    )
    return replace(
        found.outcome(verdict.status, reason),
        mode="stat",
        se=found.difference.se,
        errors=found.difference.errors,
        low=verdict.low,
        high=verdict.high,
        p_value=verdict.p_value,
        adjusted=verdict.adjusted,
        images_to_decide=images,
        improved=verdict.improved,
    )


def _protocols(candidate: RunRecord, baseline: Baseline) -> tuple[dict[str, tuple[str, str]], str]:
    """Return what differs between the protocols, and what would make them equal; nothing where they are."""
    ours, theirs = candidate.protocol.fingerprint, baseline.side.fingerprint
    if ours == theirs:
        return {}, ""
    prints = {"fingerprint": (short(ours), short(theirs))}
    if not baseline.records:
        return prints, (
            "a row of a leaderboard has only the fingerprint: to see which choices differ, "
            f"name the record of its run {baseline.side.run_id}"
        )
    target = baseline.records[0]
    differing = differing_fields(candidate.protocol.fields, target.protocol.fields)
    who = f"to compare {candidate.model.id} with {target.model.id} ({target.run_id})"
    return differing or prints, f"{who}, {remedy(differing, target)}"


def _conditions(outcomes: Sequence[RuleOutcome]) -> dict[str, tuple[str, str]]:
    """Return the conditions of speed that differ."""
    return {
        f"speed.{name}": values
        for outcome in outcomes
        if outcome.candidate and outcome.baseline and outcome.status == "not-comparable"
        for name, values in other_conditions(outcome.candidate, outcome.baseline).items()
    }
