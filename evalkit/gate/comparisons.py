"""One rule and both sides' numbers: an outcome at once, or a comparison that the statistics still judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.errors import UsageError
from evalkit.gate.baselines import Baseline
from evalkit.gate.differences import (
    Difference,
    difference,
    difference_of_runs,
    exceeds,
    margin_of,
    with_mean,
    worse_by,
)
from evalkit.gate.facts import Quantity, Rule, RuleOutcome, Status
from evalkit.gate.quantities import full_name, pick, quantities, short_name
from evalkit.gate.reasons import band_reason, plain_reason
from evalkit.gate.rules import rule_text
from evalkit.gate.subjects import identity, same_seeds
from evalkit.record import RunRecord
from evalkit.registry import did_you_mean


@dataclass(frozen=True, slots=True)
class Sides:
    """The candidate's runs, the newest first, with its numbers; and the baseline."""

    candidate: tuple[RunRecord, ...]
    baseline: Baseline
    known: tuple[Quantity, ...]

    @classmethod
    def of(cls, candidate: Sequence[RunRecord], baseline: Baseline) -> Sides:
        """Read the numbers of the candidate's first run."""
        return cls(tuple(candidate), baseline, quantities(candidate[0]))

    def find(self, rule: Rule) -> tuple[Quantity | None, Quantity | None]:
        """Return what ``rule`` means on the candidate's and the baseline's side, the very same quantity.

        Raises:
            UsageError: it fits several.
        """
        ours = pick(self.known, rule)
        if ours is None:
            return None, pick(self.baseline.quantities, rule)
        same = [q for q in self.baseline.quantities if (q.metric, q.variant) == (ours.metric, ours.variant)]
        # A leaderboard may hold one speed under several conditions.
        same.sort(key=lambda quantity: len(other_conditions(ours, quantity)))
        return ours, same[0] if same else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides of one rule with an error bar of their difference."""

    rule: Rule
    candidate: Quantity
    baseline: Quantity
    difference: Difference

    @property
    def margin(self) -> float:
        """What is tolerated, in the metric's unit."""
        return margin_of(self.rule, self.baseline.value)

    def outcome(self, status: Status, reason: str) -> RuleOutcome:
        """Return what was found, but for what the statistics add."""
        return RuleOutcome(
            rule=self.rule,
            status=status,
            reason=reason,
            candidate=self.candidate,
            baseline=self.baseline,
            difference=self.difference.value,
            margin=self.margin,
        )


def compare(rule: Rule, sides: Sides) -> RuleOutcome | Comparison:
    """Return the outcome of a rule that needs no error bar, or the comparison that the error bars judge.

    Raises:
        UsageError: the rule fits several quantities, asks for statistics where there is no error bar, or has
            neither an error bar nor a margin.
        InvalidInputError: the sides have opposite directions, or other units.
    """
    ours, theirs = sides.find(rule)
    if rule.band is not None and ours is not None:
        return _in_band(rule, ours, theirs, rule.band)
    if ours is None or theirs is None:
        return _unmeasured(rule, "missing", _lacking(rule, sides, ours, theirs), ours, theirs)
    if other := other_conditions(ours, theirs):
        told = "; ".join(f"{name} {here} against {there}" for name, (here, there) in other.items())
        return _unmeasured(rule, "not-comparable", f"measured under other conditions: {told}", ours, theirs)
    if rule.mode in {"abs", "rel"}:
        plain = Difference(difference(ours, theirs, same_seeds=False).value)
        return _plainly(Comparison(rule, ours, theirs, plain), why="")
    found = _with_errors(rule, ours, theirs, sides)
    if found.difference.se is None:
        return _plainly(found, why=_why_plainly(rule, ours, theirs))
    return found


def not_comparable(rule: Rule, sides: Sides, reason: str) -> RuleOutcome:
    """Return the outcome of a rule where nothing can be compared, with the numbers that there are."""
    return _unmeasured(rule, "not-comparable", reason, *sides.find(rule))


def other_conditions(ours: Quantity, theirs: Quantity) -> dict[str, tuple[str, str]]:
    """Return the conditions that both sides tell and that differ, with both values."""
    here, there = dict(ours.conditions), dict(theirs.conditions)
    return {name: (here[name], there[name]) for name in here if name in there and here[name] != there[name]}


def _with_errors(rule: Rule, ours: Quantity, theirs: Quantity, sides: Sides) -> Comparison:
    """Return the comparison with the error bars of the blocks, else those of several runs, else none."""
    records, own = sides.baseline.records, identity(sides.candidate[0])
    # Images of a folder have no seeds, and still are the same where the run is.
    same_run = bool(records) and sides.candidate[0].run_id == records[0].run_id
    found = difference(
        ours,
        theirs,
        same_seeds=bool(records) and same_seeds(sides.candidate[0], records[0]),
        # Scores of the same images are equal; their speeds are measured each time.
        same_images=(same_run or (own is not None and own == sides.baseline.identity)) and ours.n > 0,
    )
    if found.se is None:
        here, there = _runs(sides.candidate, ours), _runs(records, theirs)
        if (spread := difference_of_runs(here, there, ours.direction)) is not None:
            return Comparison(rule, with_mean(ours, here), with_mean(theirs, there), spread)
    return Comparison(rule, ours, theirs, found)


def _runs(records: Sequence[RunRecord], quantity: Quantity) -> tuple[float, ...]:
    """Return the values of a quantity from independent runs: of other seeds, or of a speed measured again."""
    values: dict[object, float] = {}
    for number, record in enumerate(records):
        seeds = record.sampling.seeds if record.sampling else None
        if number and not (quantity.conditions or (quantity.n and seeds)):
            continue
        same = (
            q.value
            for q in quantities(record)
            if (q.metric, q.variant, q.conditions) == (quantity.metric, quantity.variant, quantity.conditions)
        )
        for value in same:
            values.setdefault(record.run_id if quantity.conditions else seeds, value)
    return tuple(values.values()) or (quantity.value,)


def _why_plainly(rule: Rule, ours: Quantity, theirs: Quantity) -> str:
    """Return why values are compared plainly, where that is allowed."""
    sides = [side for side, q in (("candidate", ours), ("baseline", theirs)) if q.se is None]
    lacking = f"no error bar on the {' and the '.join(sides)}"
    name = full_name(ours)
    if rule.mode == "stat":
        raise UsageError(
            f"rule {rule_text(rule)!r} wants statistics, but there is {lacking}",
            hint=f"give folders with several runs, or compare plainly: {name} rel rel=5%",
        )
    if not (rule.absolute or rule.relative):
        raise UsageError(
            f"rule {rule_text(rule)!r} has no margin, and there is {lacking}",
            hint=f"give one: {name} rel=5%; or tolerate nothing: {name} abs",
        )
    return f"{lacking}, so the values are compared plainly"


def _plainly(found: Comparison, *, why: str) -> RuleOutcome:
    rule, baseline, value = found.rule, found.baseline.value, found.difference.value
    failed = exceeds(value, found.margin, baseline=baseline)
    improved = exceeds(-value, found.margin, baseline=baseline)
    by_share = rule.relative * abs(baseline) > rule.absolute
    return replace(
        found.outcome(
            "regression" if failed else "pass",
            plain_reason(
                value, margin=found.margin, beyond=failed or improved, unit=found.candidate.unit, why=why
            ),
        ),
        mode=rule.mode or ("rel" if by_share else "abs"),
        improved=improved,
    )


def _in_band(rule: Rule, ours: Quantity, theirs: Quantity | None, band: tuple[float, float]) -> RuleOutcome:
    failed = not band[0] <= ours.value <= band[1]
    comparable = theirs is not None and theirs.direction == ours.direction
    return RuleOutcome(
        rule=rule,
        status="regression" if failed else "pass",
        reason=band_reason(ours, band, failed=failed),
        mode="band",
        candidate=ours,
        baseline=theirs,
        difference=worse_by(ours.value, theirs.value, ours.direction) if theirs and comparable else None,
    )


def _unmeasured(
    rule: Rule, status: Status, reason: str, ours: Quantity | None, theirs: Quantity | None
) -> RuleOutcome:
    return RuleOutcome(
        rule=rule, status=status, reason=reason, mode=rule.mode or "stat", candidate=ours, baseline=theirs
    )


def _lacking(rule: Rule, sides: Sides, ours: Quantity | None, theirs: Quantity | None) -> str:
    if theirs is not None:
        return f"the candidate has no {full_name(theirs)}, which the baseline has"
    if ours is not None:
        return f"the baseline has no {full_name(ours)}, which the candidate has"
    name = "/".join(filter(None, [rule.metric, rule.variant]))
    return f"neither side has {name}; {_closest(rule, (*sides.known, *sides.baseline.quantities))}"


def _closest(rule: Rule, known: Sequence[Quantity]) -> str:
    """Suggest another variant, or another label by its beginning or in full; list full labels only."""
    if rule.variant is not None:
        variants = {full_name(q) for q in known if rule.metric in {q.metric, short_name(q)}}
        if variants:
            return f"known: {', '.join(sorted(variants))}"
    labels = {quantity.metric for quantity in known}
    close = did_you_mean(rule.metric, labels | {short_name(quantity) for quantity in known})
    return close if close.startswith("did you mean") else did_you_mean(rule.metric, labels)
