"""Trials on synthetic metrics: what the gate does where the truth is known.

To first order every metric is its expectation plus the mean of one influence an image, so a trial draws
influences, cuts them into the blocks of a real run of as many images, and puts the two records through the
gate. Equal sides must not alarm; a side that is worse by two margins must be caught. The margin is five
standard errors of the unpaired difference, so that two margins can be told from one.

Accepted trade-offs: influences are independent and the metric is exactly a mean; what a real metric has
beside that (a bias, a bound, a second order) shows in the real trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evalkit.calibration.rates import Rate, highest_rate
from evalkit.gate.baselines import Baseline, side_of
from evalkit.gate.decision import gate
from evalkit.gate.facts import GateReport, GateSpec, Rule
from evalkit.gate.quantities import quantities
from evalkit.gate.subjects import identity
from evalkit.numerics import jackknife
from evalkit.record import (
    Blocks,
    DataInfo,
    Inputs,
    MetricResult,
    ModelInfo,
    ProtocolInfo,
    RunRecord,
    SamplingInfo,
    Seeds,
)
from evalkit.seeding import SEED_SCHEME
from evalkit.shards import ShardLayout
from evalkit.spec import Interval, sha256_of

MARGIN: Final = 5.0
"""The margin, in standard errors of the unpaired difference."""
SHIFT: Final = 2.0
"""The shift that must be caught, in margins."""
CAUGHT: Final = 0.95
"""Share of such shifts that must be caught."""
CORRELATION: Final = 0.9
"""Of the two influences of one seed, where the sides are paired."""
FAMILY: Final = 5
"""Metrics that are judged together in the case of several."""

_EXPECTATION = 10.0
_TAIL_DEGREES = 3
_Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

LAWS: Final[dict[str, _Draw]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    # Student's t with 3 degrees: its fourth moment is infinite, so error bars themselves are noisy.
    "heavy-tailed": lambda rng, shape: rng.standard_t(_TAIL_DEGREES, shape) / math.sqrt(3),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1.0,
}
"""Influences of an image, of mean 0 and standard deviation 1."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of trial: the law of the influences, whether seeds agree, and how many metrics are judged."""

    law: str
    paired: bool
    metrics: int = 1

    @property
    def name(self) -> str:
        """Words for a table."""
        together = f", {self.metrics} rules at once" if self.metrics > 1 else ""
        return f"{self.law}, {'same' if self.paired else 'other'} seeds{together}"


CASES: Final = (
    *(Case(law, paired) for law in LAWS for paired in (False, True)),
    Case("normal", paired=False, metrics=FAMILY),
)


@dataclass(frozen=True, slots=True)
class SyntheticTrials:
    """How the gate did in one case: false ``alarms`` at margin 0, shifts of two margins ``caught``."""

    case: Case
    images: int
    alpha: float
    alarms: Rate
    caught: Rate

    @property
    def allowed(self) -> float:
        """The highest false-alarm rate that chance explains."""
        return highest_rate(self.alpha, self.alarms.trials)

    @property
    def holds(self) -> bool:
        """Whether false alarms are as rare and shifts are caught as often as promised.

        Of fewer than 20 shifts one may be missed: no smaller share can be counted.
        """
        enough = self.caught.count >= math.floor(CAUGHT * self.caught.trials)
        return self.alarms.share <= self.allowed and enough


def synthetic_trials(case: Case, *, trials: int, images: int, alpha: float, seed: int = 0) -> SyntheticTrials:
    """Run ``trials`` pairs of one case through the gate.

    Args:
        case: what to draw.
        trials: independent pairs.
        images: of each side, 16 at least.
        alpha: level of the gate.
        seed: same seed, same trials.
    """
    alarms = caught = 0
    margin = MARGIN * math.sqrt(2 / images)
    for trial in range(trials):
        rng = np.random.default_rng([seed, CASES.index(case), trial])
        baseline, candidate = _influences(rng, case, images)
        before = record_of_influences(baseline, base_seed=0)
        seeds = 0 if case.paired else 1
        equal = record_of_influences(candidate, base_seed=seeds)
        worse = record_of_influences(candidate + SHIFT * margin, base_seed=seeds)
        alarms += judged(equal, before, _rules(case, 0.0), alpha).status == "regression"
        caught += judged(worse, before, _rules(case, margin), alpha).status == "regression"
    return SyntheticTrials(case, images, alpha, Rate(alarms, trials), Rate(caught, trials))


def judged(candidate: RunRecord, baseline: RunRecord, rules: Sequence[Rule], alpha: float) -> GateReport:
    """Put two records through the gate, each as it is and without replicates."""
    known = Baseline(
        side=side_of(baseline, "a trial"),
        records=(baseline,),
        quantities=quantities(baseline),
        identity=identity(baseline),
    )
    return gate((candidate,), known, GateSpec(rules=tuple(rules), alpha=alpha))


def record_of_influences(influences: NDArray[np.float64], *, base_seed: int) -> RunRecord:
    """Return the record of a run whose metrics are 10 plus the means of ``influences`` ``[metrics, n]``."""
    results = tuple(_result(f"distance-{number}", row) for number, row in enumerate(influences))
    return record_of(results, images=influences.shape[1], base_seed=base_seed)


def record_of(results: tuple[MetricResult, ...], *, images: int, base_seed: int) -> RunRecord:
    """Return a complete record with these results, of images that were drawn from ``base_seed``."""
    fields = {"num_images": images, "metrics": [result.metric for result in results]}
    seeds = Seeds(base=base_seed, scheme=SEED_SCHEME, first=base_seed, last=base_seed + images - 1)
    return RunRecord(
        status="complete",
        model=ModelInfo(id="trial", family="other", format="none"),
        data=DataInfo(dataset="none"),
        sampling=SamplingInfo(n=images, seeds=seeds),
        protocol=ProtocolInfo(name="trial", fields=fields, fingerprint=sha256_of(fields)),
        results=results,
        inputs=Inputs(found=images, used=images),
    )


def _influences(
    rng: np.random.Generator, case: Case, images: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    draw, shape = LAWS[case.law], (case.metrics, images)
    baseline, own = draw(rng, shape), draw(rng, shape)
    if not case.paired:
        return baseline, own
    return baseline, CORRELATION * baseline + math.sqrt(1 - CORRELATION**2) * own


def _rules(case: Case, margin: float) -> list[Rule]:
    return [Rule(metric=f"distance-{number}", mode="stat", absolute=margin) for number in range(case.metrics)]


def _result(name: str, influences: NDArray[np.float64]) -> MetricResult:
    layout = ShardLayout(len(influences))
    blocks = [np.concatenate([layout.indices(shard) for shard in block]) for block in layout.blocks()]
    sizes = tuple(len(block) for block in blocks)
    total, count = influences.sum(), len(influences)
    value = _EXPECTATION + float(total) / count
    without = tuple(
        _EXPECTATION + float(total - influences[block].sum()) / (count - len(block)) for block in blocks
    )
    bar = jackknife(value, without, sizes=sizes)
    return MetricResult(
        metric=name,
        variant="",
        value=value,
        direction="lower",
        se=bar.stderr,
        ci=Interval(bar.low, bar.high, bar.level),
        n_gen=count,
        blocks=Blocks(len(sizes), without, sizes),
    )
