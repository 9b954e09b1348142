"""How the work and the memory of each metric grow, in multiply-adds and bytes. No torch.

A law is measured on a problem that it makes small (:meth:`Law.smaller`) and scaled by the ratio of the work:
what implementation runs, and how fast this machine is, is in the measurement.

    neighbours, kernels   (n^2 / 2 + n m + m^2 / 2) d            tiles of products; d stays, n and m shrink
    Fréchet               2 n d r + (blocks + 1) 2/3 r^3 + d^3    r = min(n, d); all shrink together
    linear                n d

The eigenvalues of a symmetric matrix take 4/3 r^3 operations (Golub & Van Loan 2013, section 8.3.1), which
are 2/3 r^3 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

ROWS: Final = 2048
"""Rows of each side of a measured problem of pairs; so many keep a few cores in work."""
WIDTH: Final = 384
"""Dimensions of a measured problem whose rows and dimensions shrink together."""
_MOST_A_DIMENSION = 6
_FLOAT64, _FLOAT32, _SMALL, _CHUNK = 8, 4, 1 << 20, 1024
# What each core holds of the tiles that it works on: so many rows, and the tiles. Then what is held but once.
_ROWS_HELD, _TILES_HELD, _TILES = 4096, 16 << 20, 96 << 20
_PLACE = 32  # bytes an image of its place, its label and its digest
_LOGITS, _SPLITS = 4096, 10
_MIXTURE_STEPS, _MOST_MIXED = 50, 16e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A problem: ``n`` generated and ``m`` reference features of ``d`` dimensions, cut into ``blocks``.

    ``cores`` are at work on tiles of products at once.
    """

    n: int
    m: int
    d: int
    blocks: int = 20
    cores: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """How a metric's cost grows.

    Attributes:
        group: metrics of one group share the work: it is done once for all of them.
        work: multiply-adds.
        memory: bytes beside the features themselves.
        holds: whether all features of a head are in memory at once; metrics that do share one copy, the
            others read a block or less at a time.
        shrinks: ``rows`` alone, or the whole ``shape`` with its number of rows a dimension.
    """

    group: str
    work: Callable[[Size], float]
    memory: Callable[[Size], float]
    holds: bool = False
    shrinks: Literal["rows", "shape"] = "rows"

    def smaller(self, size: Size) -> Size:
        """Return a problem of the same kind that is measured in a second or so."""
        if self.shrinks == "rows":
            return replace(size, n=min(size.n, ROWS), m=min(size.m, ROWS))
        d = min(size.d, WIDTH)
        rows = min(size.n / size.d, _MOST_A_DIMENSION)
        n = size.n if d == size.d and size.n <= rows * d else max(round(rows * d), 2 * size.blocks)
        return replace(size, n=n, m=min(size.m, ROWS), d=d)


def pairs(size: Size) -> float:
    """Products of the generated rows with themselves, with the reference, and of that with itself."""
    return (size.n**2 / 2 + size.n * size.m + size.m**2 / 2) * size.d


def frechet(size: Size) -> float:
    """Moments or Gram matrices, the projections on the reference, and the spectra with and without blocks."""
    rank = min(size.n, size.d)
    return 2 * size.n * size.d * rank + (size.blocks + 1) * 2 / 3 * rank**3 + size.d**3


def moments(size: Size) -> float:
    """The moments alone: half of a symmetric update for each row."""
    return size.n * size.d**2 / 2


def linear(size: Size) -> float:
    """A few operations on each feature."""
    return size.n * size.d


def _across(size: Size) -> float:
    return size.n * size.m * size.d


def _authentic(size: Size) -> float:
    return (size.n * size.m + size.m**2 / 2) * size.d


def _spectrum_of_similarities(size: Size) -> float:
    rank = min(size.n, size.d)
    return (size.blocks + 1) * (size.n * size.d * rank + 2 / 3 * rank**3)


def _cells(size: Size) -> float:
    return size.m * size.d**2 + size.n * size.m * 64


def _mixture(size: Size) -> float:
    once = float(size.n * size.m)
    return 2 * _MIXTURE_STEPS * once * (size.blocks + 1 if once <= _MOST_MIXED else 1) + 2 * once * size.d


def _tiles(size: Size) -> float:
    return _TILES + size.cores * (_FLOAT64 * _ROWS_HELD * size.d + _TILES_HELD)


def _doubles(size: Size) -> float:
    return _FLOAT64 * (size.n + size.m) * size.d + _tiles(size)


def _matrices(size: Size) -> float:
    rank = min(size.n, size.d)
    chunk = min(size.n, _CHUNK) * size.d if rank == size.d else 2 * size.n * size.d
    # Each core takes the rows of another block out, up to a quarter of the dimensions.
    rows = 3 * min(size.cores, size.blocks) * min(-(-size.n // size.blocks), rank // 4)
    return _FLOAT64 * (6 * size.d**2 + 4 * rank**2 + chunk + rows * size.d) + _PLACE * size.n + _SMALL


def _block(size: Size) -> float:
    """What is done with a block at a time."""
    return 6 * _FLOAT64 * -(-size.n // size.blocks) * size.d + _PLACE * size.n + _SMALL


def _logits(size: Size) -> float:
    rows, groups = min(size.n, _LOGITS), _SPLITS * (size.blocks + 1)
    return 7 * _FLOAT64 * rows * size.d + 2 * _FLOAT64 * rows * groups + (groups + _PLACE) * size.n + _SMALL


def _orders(size: Size) -> float:
    """Beside the moments, the order of the images without each block and without each two neighbours."""
    return _matrices(size) + 2 * _FLOAT64 * (size.blocks + 1) * size.n


def _by_class(size: Size) -> float:
    return _FLOAT32 * size.n * size.d + _block(size) + _matrices(size)


def _with_texts(size: Size) -> float:
    return 2 * _FLOAT32 * size.n * size.d + _block(size)


def _unit_vectors(size: Size) -> float:
    return _FLOAT64 * (3 * size.n + size.m) * size.d + _tiles(size)


def _similar(size: Size) -> float:
    return 2 * _FLOAT64 * size.n * size.d + _matrices(size)


def _pairs(group: str) -> Law:
    return Law(group=group, work=pairs, memory=_doubles, holds=True)


def _gaussians(
    group: str, times: float = 1, *, memory: Callable[[Size], float] = _matrices, holds: bool = False
) -> Law:
    return Law(
        group=group, work=lambda size: times * frechet(size), memory=memory, holds=holds, shrinks="shape"
    )


def _linear(group: str, memory: Callable[[Size], float]) -> Law:
    return Law(group=group, work=linear, memory=memory)


LAWS: Final[Mapping[str, Law]] = {
    "fd": _gaussians("Fréchet distance"),
    "fd-infinity": _gaussians("Fréchet distance at infinity", 15, memory=_orders, holds=True),
    "intra-fd": _gaussians("Fréchet distance by class", memory=_by_class),
    "kd": _pairs("kernel distance"),
    "cmmd": Law(group="Gaussian kernel", work=pairs, memory=_unit_vectors),
    **dict.fromkeys(
        ("precision", "recall", "density", "coverage", "f-score", "realism"), _pairs("neighbours")
    ),
    "authpct": Law(group="authenticity", work=_authentic, memory=_doubles, holds=True),
    "mifd": Law(
        group="memorisation-informed distance",
        work=lambda size: frechet(size) + _across(size),
        memory=lambda size: _doubles(size) + _matrices(size),
        shrinks="shape",
    ),
    "vendi": Law(group="Vendi score", work=_spectrum_of_similarities, memory=_similar, shrinks="shape"),
    "ct": Law(group="data copying", work=_cells, memory=_doubles, holds=True),
    "fld": Law(group="likelihood", work=_mixture, memory=lambda size: _doubles(size) + (1 << 30)),
    "is": _linear("Inception score", _logits),
    "accuracy": _linear("class accuracy", _block),
    "clip-score": _linear("CLIP score", _with_texts),
}
"""The law of every metric that reads images; the others cost what their probe does."""
