"""What the sections of one model share: its images, their ranking, and how a sample is captioned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.pages.report_facts import Picture
from evalkit.portrait.pictures import Album, Studio
from evalkit.portrait.ranking import Ranking
from evalkit.portrait.sitter import Sitter


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Side:
    """One model of the page; ``unranked`` says why ``ranking`` is None."""

    sitter: Sitter
    album: Album
    studio: Studio
    ranking: Ranking | None
    unranked: str = ""

    def label(self, number: int) -> str:
        """The class of image ``number``; empty where it has none."""
        labels = self.sitter.labels
        return "" if labels is None else self.sitter.class_name(int(labels[number]))


def picture_of(side: Side, number: int, pixels: NDArray[np.uint8], *, caption: str | None = None) -> Picture:
    """Return image ``number``, with its class as caption unless another one is given."""
    label = side.label(number)
    kind = "image" if side.sitter.subject.generator is None else "sample"
    alt = f"{kind} {number}{f', {label}' if label else ''}"
    return side.studio.picture(pixels, alt=alt, caption=label if caption is None else caption)
