"""Which samples are the most and the least like real images: realism scores in the features of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.core import IndexArray
from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.distances import euclidean_distances, tile_rows
from evalkit.numerics.neighbours import ball_radii
from evalkit.numerics.realism import realism_scores
from evalkit.portrait.sitter import Sitter

NEIGHBOUR = 3
"""Which neighbour gives the radius of a ball (Kynkäänniemi et al. 2019, section 5)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Every sample's place among real images.

    Attributes:
        realism: float64 ``[n]``, the score R of each sample; at 1 or more it is among common real images.
        inside: bool ``[n]``, whether it lies in any ball: their share is the precision.
        real: of how many real images, and ``which`` ones they are, in words.
    """

    realism: Float64Array
    inside: NDArray[np.bool_]
    real: int
    which: str

    def best(self, count: int) -> IndexArray:
        """The ``count`` samples of highest realism, best first; of equal ones the first drawn."""
        return np.argsort(-self.realism, kind="stable")[:count].astype(np.int64)

    def worst(self, count: int) -> IndexArray:
        """The ``count`` samples of lowest realism, worst first."""
        return np.argsort(self.realism, kind="stable")[:count].astype(np.int64)


def rank(sitter: Sitter, real: NDArray[np.float32] | None) -> Ranking | None:
    """Rank by the features that the reference keeps, else by those of the ``real`` images given; else not."""
    bank = sitter.bank
    which = f"features that the reference {sitter.reference!r} keeps"
    if bank is None or len(bank) <= NEIGHBOUR:
        bank, which = real, "real images given"
    if bank is None or len(bank) <= NEIGHBOUR:
        return None
    return Ranking(
        realism=realism_scores(sitter.features, bank, k=NEIGHBOUR),
        inside=inside_balls(sitter.features, bank),
        real=len(bank),
        which=which,
    )


def inside_balls(generated: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each generated row lies in a ball around a real one: bool ``[n]``, whose mean is the precision.

    Kynkäänniemi et al. 2019, eqs. 1-2, with the third neighbour as radius and ``<=``.
    """
    centre = real.mean(axis=0, dtype=np.float64)
    points = real - centre
    radii = ball_radii(points, NEIGHBOUR)
    flags = np.zeros(len(generated), dtype=np.bool_)
    step = tile_rows(len(points))
    for start in range(0, len(generated), step):
        distances = euclidean_distances(generated[start : start + step] - centre, points)
        flags[start : start + step] = (distances <= radii).any(axis=1)
    return flags
