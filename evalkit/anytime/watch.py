"""What is seen after each block, rule by rule, and when it is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from evalkit.anytime.matching import (
    block_sizes,
    check_size,
    exact_value,
    expected,
    metric_of,
    paired_run,
    same_images,
)
from evalkit.errors import NotComparableError, NothingMeasuredError
from evalkit.gate.baselines import find_baseline, side_of
from evalkit.gate.differences import margin_of, worse_by
from evalkit.gate.facts import GateReport, GateSpec, Quantity, Rule, RuleOutcome, Side, Status
from evalkit.gate.quantities import full_name, pick, quantities
from evalkit.gate.rules import default_rules, rule_text
from evalkit.measurement import Decided, Materials, measure
from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.sequential import FEWEST_BLOCKS, Look, look, pseudo_values, student_boundary
from evalkit.plan import Plan, Planned
from evalkit.record import MetricResult, RunRecord
from evalkit.registry import did_you_mean
from evalkit.reporting.formatting import significant
from evalkit.request import ScoreRequest
from evalkit.subjects import Subject

# Blocks of the same images differ in the last digits: theirs come from other sums.
_ROUNDING = 1e-12


@dataclass(slots=True, kw_only=True, eq=False)
class WatchedRule:
    """One rule while its images come.

    Attributes:
        planned: what is computed of the candidate.
        blocks: the baseline's estimate of each block.
        step: see :func:`evalkit.numerics.sequential.look`.
        status: latched at the look that decides.
        seen: the candidate's number and its difference at the last look.
    """

    rule: Rule
    baseline: Quantity
    planned: Planned
    blocks: Float64Array
    step: float
    status: Status = "inconclusive"
    seen: tuple[Quantity, Look] | None = None

    @property
    def margin(self) -> float:
        """What is tolerated, in the metric's unit."""
        return margin_of(self.rule, self.baseline.value)

    def look(self, result: MetricResult, *, planned: int, regression: float, acceptance: float) -> None:
        """Compare the candidate's blocks so far with the baseline's."""
        sizes, direction = result.blocks.sizes, self.baseline.direction
        ours = pseudo_values(result.value, result.blocks.loo, sizes=sizes)
        differences = [
            0.0 if math.isclose(own, other, rel_tol=_ROUNDING) else worse_by(own, other, direction)
            for own, other in zip(ours, self.blocks[: len(sizes)], strict=True)
        ]
        found = look(
            differences,
            sizes=sizes,
            planned=planned,
            regression=regression,
            acceptance=acceptance,
            step=self.step,
        )
        self.seen = (
            replace(self.baseline, value=result.value, se=result.se, degrees=found.degrees, n=result.n_gen,
                    loo=result.blocks.loo, sizes=sizes, warnings=result.warnings),
            found,
        )  # fmt: skip
        if found.low > self.margin:
            self.status = "regression"
        elif found.high <= self.margin:
            self.status = "pass"

    def outcome(self, planned: int) -> RuleOutcome:
        """Return what is known of the rule."""
        if self.seen is None:
            return RuleOutcome(rule=self.rule, status="inconclusive", reason="no image was drawn")
        candidate, found = self.seen
        return RuleOutcome(
            rule=self.rule,
            status=self.status,
            reason=f"{self._finding(found)} after {candidate.n:,} of {planned:,} images",
            candidate=candidate,
            baseline=self.baseline,
            difference=found.difference,
            se=found.se,
            errors="paired",
            low=found.low,
            high=found.high,
            margin=self.margin,
        )

    def _finding(self, found: Look) -> str:
        low, high, margin = (significant(number, 3) for number in (found.low, found.high, self.margin))
        if self.status == "regression":
            return f"worse by {low} or more, beyond the margin of {margin},"
        if self.status == "pass":
            return f"worse by {high} at most, within the margin of {margin},"
        return f"undecided: worse by {low} to {high}, the margin is {margin},"


@dataclass(slots=True, eq=False)
class BlockWatch:
    """Compares a run with its baseline after every block; a :class:`evalkit.measurement.Watch`."""

    request: ScoreRequest
    ref: str
    spec: GateSpec
    sizes: tuple[int, ...] = ()
    rules: list[WatchedRule] = field(default_factory=list)
    looked: int = 0
    _sides: tuple[Side, Side] | None = None
    _target: RunRecord | None = None
    _plan: Plan | None = None
    _warnings: list[str] = field(default_factory=list)

    @property
    def drawn(self) -> int:
        """Images at the last look."""
        return sum(self.sizes[: self.looked])

    def begin(self, record: RunRecord, subject: Subject, plan: Plan, materials: Materials) -> None:
        """Find the baseline and refuse what cannot be compared, before anything is sampled."""
        candidate = expected(record, subject)
        baseline = find_baseline(self.ref, (candidate,))
        target = paired_run(baseline, candidate)
        self.sizes = block_sizes(len(subject.source))
        if not self.spec.rules:
            self.spec = replace(self.spec, rules=default_rules(target))
            self._warnings.append(f"no rule was given: only {rule_text(self.spec.rules[0])} is judged")
        if self.request.prompts is not None:
            self._warnings.append(
                "an early verdict is about the first prompts of the file: shuffle it, unless their order is "
                "random"
            )
        self._warnings += baseline.notes
        self.rules = [self._watched(rule, target, plan, materials) for rule in self.spec.rules]
        if same_images(candidate, target):
            for each in self.rules:
                each.step = 0.0  # blocks of the very same images differ by nothing, and that is certain
        self._plan = replace(plan, metrics=tuple(each.planned for each in self.rules), everything=False)
        self._target = target
        source = str(self.request.out / f"{record.run_id}.json")
        self._sides = (side_of(candidate, source), side_of(target, baseline.side.source))

    def look(self, materials: Materials) -> None:
        """Judge the blocks that are whole.

        Raises:
            Decided: every rule passes, or one is broken, and images are left to draw.
            NotComparableError: the images have another size than the baseline's.
        """
        if self._plan is None or self._target is None:
            raise RuntimeError("look() before begin()")
        extracted = materials.lanes[self._plan.headline]
        whole = sum(block.stop <= len(extracted.shards) for block in extracted.layout.blocks())
        if whole < FEWEST_BLOCKS or whole == self.looked:
            return
        check_size(extracted.image_size(), self._target)
        self.looked = whole
        results = measure(self._plan, materials, {}, notify=lambda _text: None)
        acceptance = student_boundary(self.spec.alpha, self.sizes)
        regression = student_boundary(self.spec.alpha / len(self.rules), self.sizes)
        for each, result in zip(self.rules, results, strict=True):
            if each.status == "inconclusive":
                each.look(result, planned=sum(self.sizes), regression=regression, acceptance=acceptance)
        found = {each.status for each in self.rules}
        if ("regression" in found or found == {"pass"}) and self.drawn < sum(self.sizes):
            raise Decided(self._notes())

    def report(self) -> GateReport:
        """Return the gate's report of what was seen."""
        if self._sides is None:
            raise RuntimeError("report() before begin()")
        return GateReport(
            candidate=self._sides[0],
            baseline=self._sides[1],
            spec=self.spec,
            outcomes=tuple(each.outcome(sum(self.sizes)) for each in self.rules),
            warnings=tuple(self._warnings),
        )

    def _notes(self) -> str:
        told = "; ".join(
            f"{full_name(each.baseline)} {each.outcome(sum(self.sizes)).reason}" for each in self.rules
        )
        return (
            f"decided after {self.drawn:,} of {sum(self.sizes):,} images: {self.report().status}: {told}; no "
            "scores are kept, since an estimate is biased where it stopped because it looked clear"
        )

    def _watched(self, rule: Rule, target: RunRecord, plan: Plan, materials: Materials) -> WatchedRule:
        known = quantities(target)
        baseline = pick(known, rule)
        if baseline is None:
            names = [quantity.metric for quantity in known]
            raise NothingMeasuredError(
                f"the baseline {target.run_id} has no {rule.metric!r}", hint=did_you_mean(rule.metric, names)
            )
        planned = metric_of(baseline, plan, materials)
        watched = planned.metric.watched
        (result,) = (
            r for r in target.results if (r.metric, r.variant) == (baseline.metric, baseline.variant)
        )
        if result.blocks.sizes != self.sizes:
            raise NotComparableError(
                f"{full_name(baseline)} of {target.run_id} has blocks of other sizes than this run: "
                f"{len(result.blocks.sizes)} against {len(self.sizes)}",
                hint="measure the baseline again with this release of evalkit",
            )
        return WatchedRule(
            rule=rule,
            baseline=baseline,
            planned=replace(planned, metric=watched),
            blocks=pseudo_values(exact_value(result, planned), result.blocks.loo, sizes=self.sizes),
            step=watched.step,
        )
