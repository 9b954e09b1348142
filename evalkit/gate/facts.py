"""What a gate is asked and what it finds: plain frozen facts, free of torch and of how they are computed.

    report.exit_code      0 pass, 1 regression, 3 not comparable, 4 inconclusive, 5 a metric is missing

A *difference* is always worse-positive: a distance that grew, a precision that fell. A rule's *margin* is the
difference that it tolerates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evalkit.spec import Better

Mode = Literal["stat", "abs", "rel", "band"]
Burden = Literal["candidate", "regression"]
Errors = Literal["paired", "unpaired", "replicates", "none"]
Status = Literal["pass", "regression", "inconclusive", "not-comparable", "missing"]

EXIT_CODES: Mapping[Status, int] = {
    "not-comparable": 3,
    "regression": 1,
    "inconclusive": 4,
    "missing": 5,
    "pass": 0,
}
"""Exit code of each status, the one that wins over all that follow it first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one quantity may do.

    Attributes:
        metric: a label (``kd:efficientnet-lite0``), or the beginning of one that no other label shares
            (``kd``), or a quantity of speed (``throughput``).
        variant: where a label has several.
        mode: ``stat`` compares confidence bounds with the margin, ``abs`` and ``rel`` the plain difference,
            ``band`` holds the candidate itself between two values; None: ``stat`` where error bars exist.
        absolute: the margin in the metric's unit; ``relative`` as a share of the baseline's value. The larger
            one counts, and never less than the numeric floor.
        band: lowest and highest value allowed, of mode ``band`` only.
    """

    metric: str
    variant: str | None = None
    mode: Mode | None = None
    absolute: float = 0.0
    relative: float = 0.0
    band: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A whole gate. ``burden``: who must prove.

    ``candidate`` (a release): not proven equal is exit 4. ``regression`` (a pull request): not proven worse
    passes with a warning.
    """

    rules: tuple[Rule, ...] = ()
    alpha: float = 0.05
    burden: Burden = "regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of one side, with what is known of its error.

    Attributes:
        metric: its full label; ``variant`` as in :class:`evalkit.record.MetricResult`.
        se: standard error, and ``degrees`` its degrees of freedom; None where there is no error bar.
        loo: leave-one-block-out values in block order, ``sizes`` the images of each block; may be empty.
        n: generated images, 0 for a quantity of speed.
        conditions: what a speed was measured with (device, batch size …) as (name, value): speeds of other
            conditions do not compare.
        warnings: sentences that a reader must see beside the number.
    """

    metric: str
    variant: str
    unit: str
    direction: Better
    value: float
    se: float | None = None
    degrees: int | None = None
    loo: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    n: int = 0
    conditions: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The candidate or the baseline: what a reader must know of it."""

    model: str
    run_id: str
    fingerprint: str
    source: str
    seeds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOutcome:
    """What a rule found.

    Attributes:
        status: of this rule; under the burden ``regression`` an undecided rule is ``inconclusive`` here and
            passes in :attr:`GateReport.status`.
        difference: candidate against baseline, worse-positive; ``se`` its standard error by ``errors``.
        low: lower and ``high`` upper one-sided bound of the difference at the gate's level.
        p_value: of "no worse than the margin", unadjusted; ``adjusted`` after Holm.
        margin: what is tolerated.
        images_to_decide: images a side that would decide, where the rule is inconclusive and it can be told.
        improved: better than the baseline beyond the margin.
        reason: one sentence.
    """

    rule: Rule
    status: Status
    reason: str
    mode: Mode = "stat"
    candidate: Quantity | None = None
    baseline: Quantity | None = None
    difference: float | None = None
    se: float | None = None
    errors: Errors = "none"
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    margin: float = 0.0
    images_to_decide: int | None = None
    improved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What a gate found.

    Attributes:
        differing: fields of the protocol that differ, with the candidate's and the baseline's value.
        remedy: what would make the two comparable.
        warnings: sentences beside the verdict.
    """

    candidate: Side
    baseline: Side
    spec: GateSpec
    outcomes: tuple[RuleOutcome, ...]
    differing: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remedy: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """The verdict: the worst status of a rule, after the burden of proof."""
        found = {outcome.status for outcome in self.outcomes}
        if self.spec.burden == "regression":
            found.discard("inconclusive")
        return next((status for status in EXIT_CODES if status in found), "pass")

    @property
    def exit_code(self) -> int:
        """What ``evalkit gate`` exits with."""
        return EXIT_CODES[self.status]

    @property
    def improved(self) -> bool:
        """Whether the gate passes and some quantity is better beyond its margin."""
        return self.status == "pass" and any(outcome.improved for outcome in self.outcomes)
