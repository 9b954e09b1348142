"""The section of the nearest real images: of the first samples, and of those that are nearest of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.distances import nearest_rows
from evalkit.numerics.memorisation import NEAR_QUANTILE, MemorisationTable, memorisation_table
from evalkit.pages.report_facts import Block, Match, Matches, Paragraph
from evalkit.portrait.page_parts import Side, picture_of
from evalkit.portrait.pictures import Album
from evalkit.portrait.request import PortraitRequest
from evalkit.portrait.sitter import Sitter
from evalkit.portrait.work import Work
from evalkit.references import looks_like_statistics, reference_names
from evalkit.reporting.formatting import significant
from evalkit.sources import OpenedSource, open_source

SAMPLES, NEAREST = 8, 4
"""Samples in each part, and real images beside each."""


@dataclass(frozen=True, slots=True, eq=False)
class RealImages:
    """Real images at hand, with their features in one head of one network."""

    name: str
    source: OpenedSource
    album: Album
    features: NDArray[np.float32]


def real_path(request: PortraitRequest, sitter: Sitter) -> Path | None:
    """Where the real images lie: as asked, else the reference of the score where that is images."""
    if request.real is not None:
        return request.real
    name = sitter.request.reference
    if name is None or name in reference_names():
        return None
    path = Path(name)
    return path if path.exists() and not looks_like_statistics(path) else None


def read_real(path: Path, request: PortraitRequest, sitter: Sitter, work: Work) -> RealImages:
    """Read the real images at ``path`` through the network of the score; the first run's state keeps them.

    Raises:
        EvalkitError: they cannot be read; see :func:`evalkit.sources.open_source`.
    """
    options = request.image_options
    source = open_source(
        path, policy=options.policy, workers=options.workers, on_bad=options.on_bad, max_bad=options.max_bad
    )
    extracted = work.extract(
        source, sitter.extractor, sitter.head, state=request.runs[0].state, title=f"reading {path.name}"
    )
    return RealImages(path.name, source, work.album(source), extracted.features(sitter.head))


def neighbours(side: Side, real: RealImages | None) -> tuple[Block, ...]:
    """Return the samples with their nearest real images, or how to get them."""
    if real is None:
        return (Paragraph(text=_missing(side.sitter), tone="dim"),)
    if len(real.features) < 2:
        return (Paragraph(text=f"{real.name} holds one image: there is nothing to choose.", tone="dim"),)
    table = memorisation_table(side.sitter.features, real.features)
    first = np.arange(min(SAMPLES, side.sitter.count), dtype=np.int64)
    closest = table.most_alike(SAMPLES)
    return (
        *_summary(side.sitter, real, table),
        _matches(side, real, table, closest, "Nearest of all: possible copies"),
        _matches(side, real, table, first, "The first samples"),
    )


def _matches(
    side: Side, real: RealImages, table: MemorisationTable, index: NDArray[np.int64], title: str
) -> Matches:
    found = nearest_rows(side.sitter.features[index], real.features, count=min(NEAREST, len(real.features)))
    samples = side.album.pixels(index.tolist())
    rows = []
    for row, (number, pixels) in enumerate(zip(index.tolist(), samples, strict=True)):
        nearest = found.index[row].tolist()
        rows.append(
            Match(
                sample=picture_of(side, number, pixels, caption=_caption(side, number)),
                real=tuple(
                    side.studio.picture(
                        one,
                        alt=f"real image {place}: {real.source.name_of(place)}",
                        caption=significant(float(d), 3),
                    )
                    for place, one, d in zip(
                        nearest, real.album.pixels(nearest), found.distance[row], strict=True
                    )
                ),
                note=_note(table, number),
            )
        )
    return Matches(title=title, rows=tuple(rows))


def _caption(side: Side, number: int) -> str:
    label = side.label(number)
    return f"#{number} {label}".strip()


def _note(table: MemorisationTable, number: int) -> str:
    if table.exact[number]:
        return "its features equal the real image's"
    return f"as near as the closest {100 * NEAR_QUANTILE:g} % of real images" if table.near[number] else ""


def _summary(sitter: Sitter, real: RealImages, table: MemorisationTable) -> tuple[Paragraph, Paragraph]:
    """How distances were taken, and how many samples are copies as far as they tell."""
    near, exact, count = int(table.near.sum()), int(table.exact.sum()), len(table.distance)
    how = (
        f"Among the {len(real.features):,} images of {real.name}, by Euclidean distance in head "
        f"{sitter.head!r} of {sitter.extractor.spec.name}. The number below a real image is its "
        "distance to the sample left of it."
    )
    threshold = "" if table.threshold is None else f" ({significant(table.threshold, 3)})"
    what = (
        f"Of {count:,} samples {exact:,} {'has' if exact == 1 else 'have'} exactly the features of a real "
        f"image. {near:,} more {'is a near duplicate' if near == 1 else 'are near duplicates'}: no farther "
        f"from a real image than the closest {100 * NEAR_QUANTILE:g} % of these images are from each other"
        f"{threshold}, as about {NEAR_QUANTILE * count:.0f} of so many new real images would be. Many more "
        "mean copying, where these are the training images; evalkit memorisation lists them all."
    )
    return Paragraph(text=how), Paragraph(text=what)


def _missing(sitter: Sitter) -> str:
    kept = f"keeps statistics{' and features' if sitter.bank is not None else ''} but no pictures"
    what = f"The reference {sitter.reference!r} {kept}" if sitter.reference else "No real images are at hand"
    return (
        f"{what}: --real PATH names a folder or archive of real images to find those nearest to the samples."
    )
