"""What a reader must know beside the verdict: sentences that change no status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalkit.gate.baselines import Baseline
from evalkit.gate.facts import GateSpec, Quantity, RuleOutcome
from evalkit.gate.quantities import full_name
from evalkit.gate.reasons import advice
from evalkit.gate.subjects import identity
from evalkit.record import RunRecord

# Standard errors from 0 that tell a value from 0.
_CLEAR = 2.0
# Provenance that is no part of the protocol and may yet move a score a little.
_ENVIRONMENT = {
    "evalkit": "releases of evalkit",
    "determinism": "modes of determinism",
    "accelerator": "accelerators",
}


def cautions(
    candidate: Sequence[RunRecord], baseline: Baseline, outcomes: Sequence[RuleOutcome], spec: GateSpec
) -> tuple[str, ...]:
    """Return the warnings of a report, each sentence once, in a fixed order."""
    found = [
        *baseline.notes,
        *_undecided(outcomes, spec),
        *_same_model_other_score(candidate[0], baseline, outcomes),
        *_shares_of_nothing(outcomes),
        *_environment(candidate[0], baseline),
        *_unread(candidate, "candidate", outcomes),
        *_unread(baseline.records, "baseline", outcomes),
        *_of_quantities(outcomes),
    ]
    return tuple(dict.fromkeys(found))


def _undecided(outcomes: Sequence[RuleOutcome], spec: GateSpec) -> Iterator[str]:
    if spec.burden != "regression":
        return
    for outcome in outcomes:
        if outcome.status == "inconclusive":
            yield (
                f"{outcome.rule.metric} is undecided and passes, since the burden of proof is on the "
                f"regression: {advice(outcome.errors, outcome.images_to_decide)}"
            )


def _same_model_other_score(
    candidate: RunRecord, baseline: Baseline, outcomes: Sequence[RuleOutcome]
) -> Iterator[str]:
    """The very same images cannot score otherwise, unless something below the model changed."""
    if baseline.identity is None or baseline.identity != identity(candidate):
        return
    names = [
        outcome.candidate.metric
        for outcome in outcomes
        if outcome.difference and outcome.candidate and outcome.candidate.n
    ]
    if names:
        yield (
            f"the same checkpoint, sampler and seeds gave another {', '.join(dict.fromkeys(names))}: "
            "the code or the machine changed"
        )


def _shares_of_nothing(outcomes: Sequence[RuleOutcome]) -> Iterator[str]:
    """A share of a value that is 0 within its error bar is a margin drawn by chance."""
    for outcome in outcomes:
        theirs, rule = outcome.baseline, outcome.rule
        if theirs is None or outcome.difference is None or not rule.relative or rule.band is not None:
            continue
        share = rule.relative * abs(theirs.value)
        if share >= rule.absolute and abs(theirs.value) <= _CLEAR * (theirs.se or 0.0):
            yield (
                f"{full_name(theirs)} of the baseline is 0 within its error bar, so a share of it means "
                "little as a margin: give one in its own unit, abs=…"
            )


def _environment(candidate: RunRecord, baseline: Baseline) -> Iterator[str]:
    if not baseline.records:
        return
    ours, theirs = candidate.env, baseline.records[0].env
    for key, what in _ENVIRONMENT.items():
        if key in ours and key in theirs and ours[key] != theirs[key]:
            yield f"measured with different {what}: {ours[key]} (candidate) and {theirs[key]} (baseline)"


def _unread(records: Sequence[RunRecord], side: str, outcomes: Sequence[RuleOutcome]) -> Iterator[str]:
    others = len(records) - 1
    if others > 0 and not any(outcome.errors == "replicates" for outcome in outcomes):
        plural = "s" if others > 1 else ""
        yield f"the newest run of the {side} counts; {others} older one{plural} of the same model not read"


def _of_quantities(outcomes: Sequence[RuleOutcome]) -> Iterator[str]:
    """Repeat what the records say of the numbers that were judged; once where both sides say the same."""
    for outcome in outcomes:
        ours, theirs = _warnings(outcome.candidate), _warnings(outcome.baseline)
        for sentence in dict.fromkeys((*ours, *theirs)):
            sides = [side for side, said in (("candidate", ours), ("baseline", theirs)) if sentence in said]
            quantity = outcome.candidate or outcome.baseline
            if quantity is not None:
                yield f"{full_name(quantity)} ({' and '.join(sides)}): {sentence}"


def _warnings(quantity: Quantity | None) -> tuple[str, ...]:
    return quantity.warnings if quantity else ()
