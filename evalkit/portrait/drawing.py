"""From one record or two to the whole page: each section is one function of the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evalkit.console import Console
from evalkit.pages.report import report_page
from evalkit.pages.report_facts import Block, Paragraph, Pictures, Report, Section
from evalkit.portrait.classes import classes, has_classes
from evalkit.portrait.curve_blocks import size_blocks, step_chart, step_pictures
from evalkit.portrait.curves import curves, disagreement, step_curve
from evalkit.portrait.extremes import SHOWN, extremes
from evalkit.portrait.neighbours import NEAREST, RealImages, neighbours, read_real, real_path
from evalkit.portrait.neighbours import SAMPLES as NEIGHBOURED
from evalkit.portrait.page_parts import Side, picture_of
from evalkit.portrait.pictures import Studio
from evalkit.portrait.provenance import provenance
from evalkit.portrait.ranking import rank
from evalkit.portrait.request import PortraitRequest
from evalkit.portrait.scores import incomparable, scores
from evalkit.portrait.sitter import Sitter, open_sitter
from evalkit.portrait.strips import STEPS, STRIPS, strips
from evalkit.portrait.work import Work
from evalkit.record import RunRecord
from evalkit.runtime import resolve_device

_CLASS_PICTURES = 80
_STEP_PICTURES = 8


def portray(request: PortraitRequest, *, console: Console, stop: Callable[[], int] = lambda: 0) -> str:
    """Return the page of a report.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; the images of a record cannot be made again, or are others.
    """
    request.check()
    work = Work(resolve_device(request.device), console, stop)
    records = [run.record for run in request.runs]
    names = unique_names(records)
    sitters = [open_sitter(run, name, work) for run, name in zip(request.runs, names, strict=True)]
    real = _real_images(request, sitters, work)
    studio = Studio(_pictures(request))
    sides = [_side(sitter, found, studio, work) for sitter, found in zip(sitters, real, strict=True)]
    for side in sides:
        if side.sitter.missing:
            console.note(f"{side.sitter.name}: {side.sitter.missing}")
    sections = [
        scores(records, names),
        _samples(sides, request.grid),
        Section(
            anchor="neighbours",
            title="Nearest real images",
            sides=tuple(neighbours(side, found) for side, found in zip(sides, real, strict=True)),
        ),
        Section(
            anchor="extremes", title="Least and most realistic samples", sides=tuple(map(extremes, sides))
        ),
        Section(anchor="interpolation", title="Interpolation", sides=tuple(map(strips, sides))),
    ]
    if any(map(has_classes, sides)):
        sections.append(Section(anchor="classes", title="Classes", sides=tuple(map(classes, sides))))
    sections += _curves(sides, request, work)
    sections.append(Section(anchor="provenance", title="Provenance", sides=tuple(map(provenance, sitters))))
    return report_page(
        Report(
            title=" against ".join(names),
            subtitle=_subtitle(records),
            names=tuple(names),
            sections=tuple(sections),
            footer=f"Made by evalkit report from {', '.join(record.run_id for record in records)}.",
        )
    )


def unique_names(records: Sequence[RunRecord]) -> list[str]:
    """Return the model ids, told apart by run where both are one."""
    ids = [record.model.id for record in records]
    if len(set(ids)) == len(ids):
        return ids
    runs = [record.run_id[-8:] for record in records]
    tails = runs if len(set(runs)) == len(runs) else [str(number + 1) for number in range(len(records))]
    return [f"{name} ({tail})" for name, tail in zip(ids, tails, strict=True)]


def _side(sitter: Sitter, real: RealImages | None, studio: Studio, work: Work) -> Side:
    ranking = rank(sitter, real.features if real else None)
    why = sitter.missing or "the reference keeps no features of single images"
    return Side(
        sitter=sitter,
        album=work.album(sitter.subject.source),
        studio=studio,
        ranking=ranking,
        unranked=f"{why}; --real PATH names real images to rank by.",
    )


def _real_images(request: PortraitRequest, sitters: Sequence[Sitter], work: Work) -> list[RealImages | None]:
    """Real images for each model; read once where both have one network."""
    found: list[RealImages | None] = []
    for sitter in sitters:
        path = real_path(request, sitter)
        found.append(None if path is None else read_real(path, request, sitter, work))
    return found


def _samples(sides: Sequence[Side], grid: int) -> Section:
    blocks: list[tuple[Block, ...]] = []
    for side in sides:
        index = list(range(min(grid, side.sitter.count)))
        pictures = zip(index, side.album.pixels(index), strict=True)
        blocks.append((Pictures(pictures=tuple(picture_of(side, number, one) for number, one in pictures)),))
    seeds = [side.sitter.record.sampling.seeds if side.sitter.record.sampling else None for side in sides]
    same = len(sides) == 2 and seeds[0] == seeds[1] and seeds[0] is not None
    drawn = all(side.sitter.subject.generator for side in sides)
    said = (
        "The first samples in the order of their seeds, not chosen."
        if drawn
        else "The first images, not chosen."
    )
    if same:
        said += " Left and right have the same seeds and, where both take classes, the same classes."
    return Section(anchor="samples", title="Samples", common=(Paragraph(text=said),), sides=tuple(blocks))


def _curves(sides: Sequence[Side], request: PortraitRequest, work: Work) -> list[Section]:
    sitters = [side.sitter for side in sides]
    names = [sitter.name for sitter in sitters]
    measured = [curves(sitter, request.sizes) for sitter in sitters]
    told = [
        text for sitter, lines in zip(sitters, measured, strict=True) if (text := disagreement(sitter, lines))
    ]
    for text in told:
        work.console.note(text)
    warned = tuple(Paragraph(text=text, tone="warning") for text in told)
    sections = []
    if any(measured):
        if incomparable([sitter.record for sitter in sitters]):
            each = [size_blocks([lines], [name]) for lines, name in zip(measured, names, strict=True)]
            sections.append(
                Section(anchor="size", title="Number of images", common=warned, sides=tuple(each))
            )
        else:
            common = (*warned, *size_blocks(measured, names))
            sections.append(Section(anchor="size", title="Number of images", common=common))
    if request.steps:
        points = [step_curve(side, request, work) for side in sides]
        own = [s.record.sampling.steps if s.record.sampling else None for s in sitters]
        sections.append(
            Section(
                anchor="steps",
                title="Sampler steps",
                common=step_chart(points, names),
                sides=tuple(step_pictures(p, steps) for p, steps in zip(points, own, strict=True)),
            )
        )
    return sections


def _pictures(request: PortraitRequest) -> int:
    """An upper bound of the pictures of the page, among which its bytes are shared."""
    one = request.grid + 2 * NEIGHBOURED * (1 + NEAREST) + 2 * SHOWN + STRIPS * STEPS + _CLASS_PICTURES
    return len(request.runs) * (one + (len(request.steps) + 1) * _STEP_PICTURES * bool(request.steps))


def _subtitle(records: Sequence[RunRecord]) -> str:
    first = records[0]
    data = f"{first.data.dataset}/{first.data.split}" if first.data.split else first.data.dataset
    counts = " and ".join(dict.fromkeys(f"{record.inputs.used:,}" for record in records))
    protocols = " and ".join(dict.fromkeys(record.protocol.name for record in records))
    days = " and ".join(dict.fromkeys(record.created_utc[:10] for record in records))
    return f"{counts} images · {data} · protocol {protocols} · scored {days}"
