"""Which run of the baseline a candidate is paired with, and which metrics can be watched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.errors import NotComparableError, NothingMeasuredError, UsageError
from evalkit.gate.baselines import Baseline
from evalkit.gate.facts import Quantity
from evalkit.gate.quantities import full_name
from evalkit.gate.subjects import same_seeds
from evalkit.measurement import Materials
from evalkit.numerics.sequential import FEWEST_BLOCKS
from evalkit.plan import Plan, Planned
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.comparability import require_comparable
from evalkit.shards import ShardLayout
from evalkit.spec import sha256_of
from evalkit.subjects import Subject


def expected(record: RunRecord, subject: Subject) -> RunRecord:
    """Return the record as it will be identified at the end: only the images' size is not known yet."""
    size = subject.generator.resolution if subject.generator else None
    fields = {**record.protocol.fields, "image_size": [size, size]}
    return replace(record, protocol=replace(record.protocol, fields=fields, fingerprint=sha256_of(fields)))


def paired_run(baseline: Baseline, candidate: RunRecord) -> RunRecord:
    """Return the baseline's run from the candidate's seeds.

    Raises:
        UsageError: a row of a leaderboard.
        NothingMeasuredError: it is not complete.
        NotComparableError: another protocol, or no run from the same seeds.
    """
    if not baseline.records:
        raise UsageError(
            f"--until-decided needs the record of a run; {baseline.side.source} is a row of a leaderboard",
            hint=f"{_record_of_row(baseline)}: it holds the values of its blocks",
        )
    paired = [record for record in baseline.records if same_seeds(candidate, record)]
    target = paired[0] if paired else baseline.records[0]
    if target.status != "complete":
        raise NothingMeasuredError(
            f"the baseline {target.run_id} is {target.status}, not complete",
            hint="finish it first: the same evalkit score command, without --until-decided, resumes",
        )
    require_comparable([target, candidate])
    if not paired:
        raise NotComparableError(
            f"--until-decided compares image by image, and {target.model.id} ({target.run_id}) was not drawn "
            f"from the same seeds: {_seeds(candidate)} against {_seeds(target)}",
            hint=_other_seeds(candidate, target),
        )
    return target


def same_images(candidate: RunRecord, target: RunRecord) -> bool:
    """Whether both runs draw the very same images: one checkpoint, one sampler, the same seeds."""
    ours, theirs = candidate.sampling, target.sampling
    if ours is None or theirs is None or candidate.model.sha256 is None:
        return False
    weights = [(run.model.sha256, run.model.revision, run.model.dtype) for run in (candidate, target)]
    # Evaluations are counted while images are drawn: none are yet.
    return weights[0] == weights[1] and replace(ours, nfe=None) == replace(theirs, nfe=None)


def block_sizes(count: int) -> tuple[int, ...]:
    """Return the images of each block of a plan.

    Raises:
        UsageError: too few blocks for an early look.
    """
    layout = ShardLayout(count)
    sizes = tuple(sum(len(layout.indices(shard)) for shard in block) for block in layout.blocks())
    if len(sizes) <= FEWEST_BLOCKS:
        raise UsageError(
            f"{count} images are {len(sizes)} blocks, and the first look comes after {FEWEST_BLOCKS}: "
            "nothing can be saved",
            hint="leave --until-decided out, or plan 64 images or more",
        )
    return sizes


def metric_of(baseline: Quantity, plan: Plan, materials: Materials) -> Planned:
    """Return the candidate's metric of the same label.

    Raises:
        UsageError: it depends on the number of images, or is none of the images that are watched.
    """
    labelled = [
        (plan.label(planned, materials.extractors[planned.network]), planned)
        for planned in plan.metrics
        if planned.network is not None
    ]
    name = (baseline.metric, baseline.variant)
    found = [
        planned for label, planned in labelled if (label, planned.metric.variant or planned.head) == name
    ]
    if found and found[0].metric.any_count:
        return found[0]
    work = ", ".join(dict.fromkeys(label for label, planned in labelled if planned.metric.any_count))
    why = "depends on the number of images" if found else "is not estimated block by block"
    raise UsageError(
        f"--until-decided cannot judge {full_name(baseline)}: it {why}",
        hint=f"name one of {work or 'kd, cmmd, precision, density'} with --rule, or score to the end and use "
        "evalkit gate",
    )


def check_size(size: tuple[int, int] | None, target: RunRecord) -> None:
    """Raise where the images have another size than those of ``target``."""
    theirs = target.protocol.fields.get("image_size")
    if size is None or theirs != list(size):
        raise NotComparableError(
            f"the images are {size}, those of the baseline {target.run_id} {theirs}",
            hint="give images of one size",
        )


def exact_value(result: MetricResult, planned: Planned) -> float:
    """Return the value that a result's leave-one-out values belong to.

    Raises:
        NotComparableError: the record does not tell it.
    """
    if planned.metric.watched is planned.metric:
        return result.value
    if "exact" not in result.details:
        raise NotComparableError(
            f"the baseline's {result.metric} is a mean over random subsets, without the exact statistic",
            hint="measure the baseline again with this release of evalkit",
        )
    return result.details["exact"]


def _record_of_row(baseline: Baseline) -> str:
    """Name the record that a row of a leaderboard was built from: it lies beside the table, if anywhere."""
    board = Path(baseline.side.source.partition("#")[0]).parent
    file = board / "records" / f"{baseline.side.run_id}.json"
    return f"--baseline {file}" if file.is_file() else f"name the record of run {baseline.side.run_id}"


def _seeds(record: RunRecord) -> str:
    sampling = record.sampling
    if sampling is None:
        return "images of a folder"
    return f"seed {sampling.seeds.base}, {sampling.n} images, {sampling.labels or 'no labels'}"


def _other_seeds(candidate: RunRecord, target: RunRecord) -> str:
    ours, theirs = candidate.sampling, target.sampling
    if ours is None or theirs is None or ours.seeds == theirs.seeds:
        return "name the record of another run with --baseline, or score to the end and use evalkit gate"
    return f"--seed {theirs.seeds.base}, or score to the end and use evalkit gate"
