"""The section of classes: what of each class is realistic, and samples of it."""

from __future__ import annotations

import numpy as np

from evalkit.core import IndexArray
from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.shares import wilson_proportion
from evalkit.pages.report_facts import Block, Gallery, Paragraph, Pictures, TableBlock
from evalkit.portrait.extremes import realism_text
from evalkit.portrait.page_parts import Side, picture_of
from evalkit.portrait.ranking import Ranking
from evalkit.reporting.formatting import MISSING
from evalkit.reporting.rendering import Cell, Column, Table

SAMPLES, MOST_ROWS, MOST_GRIDS = 8, 40, 10
"""Samples shown of a class; classes of the table, and classes whose samples are shown."""


def has_classes(side: Side) -> bool:
    """Whether the samples have more than one class."""
    labels = side.sitter.labels
    return labels is not None and len(np.unique(labels)) > 1


def classes(side: Side) -> tuple[Block, ...]:
    """Return the table and the samples of each class, or that there are none."""
    labels = side.sitter.labels
    if labels is None or not has_classes(side):
        return (Paragraph(text="The model takes no class.", tone="dim"),)
    found = np.unique(labels).tolist()
    blocks: list[Block] = []
    if side.ranking is None:
        blocks.append(Paragraph(text=f"No shares by class: {side.unranked}", tone="dim"))
    else:
        blocks.append(TableBlock(table=class_table(side, side.ranking, labels)))
    blocks.append(Gallery(groups=tuple(_samples(side, labels, label) for label in found[:MOST_GRIDS])))
    if len(found) > MOST_GRIDS:
        blocks.append(
            Paragraph(text=f"Samples of the first {MOST_GRIDS} of {len(found)} classes.", tone="dim")
        )
    return tuple(blocks)


def _samples(side: Side, labels: IndexArray, label: int) -> Pictures:
    index = np.flatnonzero(labels == label)[:SAMPLES].tolist()
    pictures = zip(index, side.album.pixels(index), strict=True)
    return Pictures(
        title=side.sitter.class_name(label),
        pictures=tuple(picture_of(side, number, pixels, caption="") for number, pixels in pictures),
    )


def class_table(side: Side, ranking: Ranking, labels: IndexArray) -> Table:
    """Return a row a class: N, precision, realistic samples, median realism; accuracy where it was scored."""
    accuracy = _accuracies(side)
    found = np.unique(labels).tolist()
    chosen = _worst(ranking, labels, found) if len(found) > MOST_ROWS else found
    titles = [
        "N",
        "precision ↑ [95 %]",
        "R ≥ 1 ↑ [95 %]",
        "median R ↑",
        *(["accuracy ↑ [95 %]"] if accuracy else []),
    ]
    rows = []
    for label in chosen:
        name, inside = side.sitter.class_name(label), labels == label
        accurate = accuracy.get(name, accuracy.get(str(label)))
        row = [Cell(name), Cell(f"{int(inside.sum()):,}")]
        row += [
            Cell(_share(int(flags[inside].sum()), int(inside.sum())))
            for flags in (ranking.inside, ranking.realism >= 1)
        ]
        row.append(Cell(realism_text(_middle(ranking.realism[inside]), digits=3)))
        row += [Cell(_accurate(accurate, int(inside.sum())))] if accuracy else []
        rows.append(tuple(row))
    left = (
        f"the {len(chosen)} classes of lowest precision of {len(found)}" if len(chosen) < len(found) else ""
    )
    facts = [
        "A class has too few samples here for a Fréchet distance of its own, which would be mostly bias."
    ]
    if not accuracy:
        facts.append("Nothing here says whether a sample shows its class: the metric accuracy does.")
    return Table(
        title="By class" + (f": {left}" if left else ""),
        columns=(Column("class", "left"), *map(Column, titles)),
        rows=tuple(rows),
        legend="precision: share of the samples that lie among real images of any class; Wilson intervals",
        facts=tuple(facts),
    )


def _worst(ranking: Ranking, labels: IndexArray, found: list[int]) -> list[int]:
    """The classes of lowest precision, lowest first."""
    return sorted(found, key=lambda label: float(ranking.inside[labels == label].mean()))[:MOST_ROWS]


def _middle(scores: Float64Array) -> float:
    """The middle one and not the mean of two, either of which may be infinite."""
    return float(np.quantile(scores, 0.5, method="lower"))


def _accurate(accuracy: float | None, count: int) -> str:
    if accuracy is None:
        return MISSING
    share = wilson_proportion(round(accuracy * count), count)
    return f"{accuracy:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _share(part: int, count: int) -> str:
    share = wilson_proportion(part, count)
    return f"{share.share:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _accuracies(side: Side) -> dict[str, float]:
    """The accuracy by class that the record holds, where it was scored."""
    for result in side.sitter.record.results:
        found = {
            name.removeprefix("class "): value
            for name, value in result.details.items()
            if name.startswith("class ")
        }
        if found and result.metric.startswith(("accuracy", "cifar10-accuracy")):
            return found
    return {}
