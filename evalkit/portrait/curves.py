"""The section of curves: the headline distances against the number of images, and against sampler steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.core import FeatureSet, IndexArray
from evalkit.errors import EvalkitError
from evalkit.metrics import compute_all
from evalkit.numerics.products import products_on
from evalkit.pages.report_facts import Picture
from evalkit.plan import Planned
from evalkit.portrait.page_parts import Side
from evalkit.portrait.request import PortraitRequest
from evalkit.portrait.sitter import Sitter
from evalkit.portrait.work import Work
from evalkit.seeding import stream
from evalkit.shards import ShardLayout
from evalkit.spec import Score
from evalkit.subject_opening import open_subject

DRAWN = ("kd", "fd")
_SMALLEST = 32
_FIRST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A distance at one number of images or of network evaluations."""

    x: float
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One distance of one model along x; ``label`` as in its record."""

    label: str
    points: tuple[Measured, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPoint:
    """What one number of sampler steps gives: evaluations an image, distances, and the first samples."""

    steps: int
    evaluations: int
    images: int
    scores: tuple[tuple[str, Score], ...]
    pictures: tuple[Picture, ...]


def distances(sitter: Sitter) -> list[Planned]:
    """The kernel and the Fréchet distance of the run, as far as it has them in the features at hand."""
    network = sitter.plan.headline
    found = [p for p in sitter.plan.of(network) if p.metric.name in DRAWN and p.head == sitter.head]
    return sorted(found, key=lambda planned: DRAWN.index(planned.metric.name))


def curves(sitter: Sitter, sizes: Sequence[int] | None) -> list[Line]:
    """Return each distance at growing numbers of the run's own images, the last being the score itself."""
    if sitter.statistics is None:
        return []
    chosen = default_sizes(sitter.count) if sizes is None else sorted({*sizes, sitter.count} if sizes else ())
    order = _order(sitter)
    lines = []
    for planned in distances(sitter):
        points = [
            Measured(x=float(size), score=score)
            for size in chosen
            if size <= sitter.count and (score := _score(sitter, planned, sitter.features[order[:size]]))
        ]
        if points:
            lines.append(Line(label=_label(sitter, planned), points=tuple(points)))
    return lines


def default_sizes(count: int) -> list[int]:
    """Return ``count`` and its halves down to an eighth, of at least 32 images, ascending."""
    return sorted({size for part in (8, 4, 2) if (size := count // part) >= _SMALLEST} | {count})


def disagreement(sitter: Sitter, lines: Sequence[Line]) -> str:
    """Say where the features at hand give another score than the record has; empty where they agree."""
    for line in lines:
        recorded = next((r for r in sitter.record.results if r.metric == line.label), None)
        if recorded is None or line.points[-1].x != recorded.n_gen:
            continue
        now, tolerance = (
            line.points[-1].score.value,
            max(1e-3 * abs(recorded.value), 0.05 * (recorded.se or 0.0)),
        )
        if abs(now - recorded.value) > tolerance:
            return (
                f"The images of this page give {line.label} = {now:.5g}, and the record says "
                f"{recorded.value:.5g}: they are not quite those that were scored. Another device or another "
                "release of torch does that."
            )
    return ""


def step_curve(side: Side, request: PortraitRequest, work: Work) -> list[StepPoint]:
    """Return what each number of sampler steps gives of the same seeds, the run's own among them."""
    sitter = side.sitter
    own = sitter.record.sampling.steps if sitter.record.sampling else None
    if own is None or sitter.subject.generator is None:
        return []
    count = min(request.step_images, sitter.count)
    return [_step_point(side, steps, count, own, work) for steps in sorted({*request.steps, own})]


def steps_text(steps: int) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{steps} step{'' if steps == 1 else 's'}"


def _step_point(side: Side, steps: int, count: int, own: int, work: Work) -> StepPoint:
    sitter = side.sitter
    index = list(range(min(_FIRST, count)))
    if steps == own:
        features, album, subject = sitter.features[:count], side.album, sitter.subject
    else:
        asked = replace(
            sitter.request, num_samples=count, sampling=replace(sitter.request.sampling, steps=steps)
        )
        subject = open_subject(asked, sitter.plan, device=work.device, console=work.console)
        title = f"sampling {sitter.record.model.id} with {steps_text(steps)}"
        extracted = work.extract(
            subject.source, sitter.extractor, sitter.head, state=sitter.run.state, title=title,
            batch_size=asked.batch_size, strict=asked.strict,
        )  # fmt: skip
        features, album = extracted.features(sitter.head), work.album(subject.source)
    pixels = album.pixels(index)
    scores = [
        (_label(sitter, p), _score(sitter, p, features)) for p in distances(sitter) if sitter.statistics
    ]
    recorded = sitter.record.sampling.nfe if steps == own and sitter.record.sampling else None
    return StepPoint(
        steps=steps,
        evaluations=recorded or getattr(subject.generator, "evaluations_per_image", 0) or steps,
        images=count,
        scores=tuple((label, score) for label, score in scores if score),
        pictures=tuple(
            side.studio.picture(
                one, alt=f"sample {number} with {steps_text(steps)}", caption=side.label(number)
            )
            for number, one in zip(index, pixels, strict=True)
        ),
    )


def _score(sitter: Sitter, planned: Planned, features: NDArray[np.float32]) -> Score | None:
    layout = ShardLayout(len(features))
    blocks = tuple(
        features[np.concatenate([layout.indices(shard) for shard in block])] for block in layout.blocks()
    )
    try:
        with products_on("cpu"):  # as the record was computed, to the last digit where that was a CPU
            (score,) = compute_all(
                [(planned.metric, FeatureSet(blocks), sitter.statistics)],
                rng=lambda: np.random.Generator(np.random.Philox(stream(0, "metric").integers(2**63))),
            )
    except EvalkitError:  # too few images for this distance, or no features of single real ones
        return None
    return score


def _label(sitter: Sitter, planned: Planned) -> str:
    return sitter.plan.label(planned, sitter.extractor)


def _order(sitter: Sitter) -> IndexArray:
    """Independent draws as they come; files at random, for their order often follows their classes."""
    if sitter.subject.generator is not None:
        return np.arange(sitter.count, dtype=np.int64)
    return stream(0, "block").permutation(sitter.count).astype(np.int64)
