"""The section of the most and the least realistic samples."""

from __future__ import annotations

import numpy as np

from evalkit.pages.report_facts import Block, Paragraph, Pictures
from evalkit.portrait.page_parts import Side, picture_of
from evalkit.portrait.ranking import NEIGHBOUR
from evalkit.reporting.formatting import significant

SHOWN = 16
"""Samples at each end."""


def extremes(side: Side) -> tuple[Block, ...]:
    """Return the samples of highest and of lowest realism, and what ranked them."""
    ranking = side.ranking
    if ranking is None:
        return (Paragraph(text=f"Not ranked: {side.unranked}", tone="dim"),)
    said = (
        f"By the realism score R (Kynkäänniemi et al. 2019, eq. 3, k = {NEIGHBOUR}) among {ranking.real:,} "
        f"{ranking.which}. {_share(side)}"
    )
    count = min(SHOWN, max(side.sitter.count // 2, 1))
    blocks: list[Block] = [Paragraph(text=said)]
    for title, index in (
        ("Least realistic, worst first", ranking.worst(count)),
        ("Most realistic, best first", ranking.best(count)),
    ):
        pixels = side.album.pixels(index.tolist())
        pictures = tuple(
            picture_of(side, number, one, caption=f"R {realism_text(ranking.realism[number])}")
            for number, one in zip(index.tolist(), pixels, strict=True)
        )
        blocks.append(Pictures(title=title, pictures=pictures))
    return tuple(blocks)


def realism_text(score: float, *, digits: int = 2) -> str:
    """Return a realism score in a few digits; infinite where features equal a real image's."""
    return significant(float(score), digits) if np.isfinite(score) else "∞"


def _share(side: Side) -> str:
    ranking = side.ranking
    realistic = 0.0 if ranking is None else float((ranking.realism >= 1).mean())
    return f"{realistic:.1%} of {side.sitter.count:,} samples have R of 1 or more.".replace("%", " %", 1)
