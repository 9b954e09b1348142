"""The sliding window of SSIM: means and variances at every position, a block of rows at a time.

    window = SimilarityWindow(planes=3, height=256, width=256, c1=C1, c2=C2, device=torch.device("cpu"))
    for rows, luminance, contrast in window.blocks(x, y):
        similarity[rows] = luminance.values() * contrast.values()  # float64 [rows, planes, columns]

The window is separable, and each pass is a batch of products with a small banded matrix: on a CPU these
run near the machine's full rate, so that multiplications by zero cost less than eleven passes over memory.

With s = x + y and d = x - y the four quantities of SSIM are sums and differences of two squares each:

    2 m_x m_y = (m_s^2 - m_d^2) / 2      m_x^2 + m_y^2 = (m_s^2 + m_d^2) / 2
    2 s_xy    = (s_s^2 - s_d^2) / 2      s_x^2 + s_y^2 = (s_s^2 + s_d^2) / 2

so that four maps are filtered and not five, equal images give exactly 1, and both pairs of terms come from
the same few operations. Everything is float64: in float32, at 1.4 times the speed, the value of a smooth
picture moves by 1e-6 and single positions in its flat parts, where two large squares cancel, by 5e-5.

Accepted trade-offs: buffers are reused from block to block, so that what is yielded must be read at once.
A block of 32 rows of a 256-pixel colour picture works in 3 MB, whatever the height. Buffers and all views of
them are made once for many pictures: the views of each block would cost a third of its time again. A block
asks torch for few and large steps, since threads that measure side by side take turns at Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, final

import torch
from torch import Tensor

from evalkit.perceptual.facts import SSIM_WINDOW

SIGMA: Final = 1.5
REACH: Final = SSIM_WINDOW // 2
_BORDER: Final = 2 * REACH
_ROWS: Final = 32  # of a block: more leave the second-level cache, fewer wait for Python
# Positions of a product, down and along a line: more multiply by more zeros, fewer leave the products idle.
_SLICE: Final = 8
_COLUMNS: Final = 12


@cache
def _band(outputs: int, device: torch.device) -> Tensor:
    """Return float64 ``[outputs, outputs + 10]``: row i holds the one-dimensional window at column i."""
    offsets = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window /= window.sum()
    band = torch.zeros(outputs, outputs + _BORDER, dtype=torch.float64)
    for row in range(outputs):
        band[row, row : row + SSIM_WINDOW] = window
    return band.to(device)


@dataclass(frozen=True, slots=True)
class Fractions:
    """One term of SSIM on a block: float64 ``[rows, planes, columns]`` each, the caller's to overwrite."""

    above: Tensor
    below: Tensor

    def values(self) -> Tensor:
        """Return ``above / below``, in the memory of ``above``."""
        return self.above.div_(self.below)


class _Filter:
    """Applies the window along the first axis of ``source``, in tiles of ``step`` positions.

    Args:
        source: float64 ``[n + 10, m]``, read anew by each run.
        target: float64 ``[n, m]``.
        step: how many positions a product with the banded matrix makes.
    """

    def __init__(self, source: Tensor, target: Tensor, step: int) -> None:
        whole = len(target) - len(target) % step
        self._products = []
        for start, stop, width in ((0, whole, step), (whole, len(target), len(target) - whole)):
            if start == stop:
                continue
            # Views that overlap by the border; torch goes from one to the next without Python.
            tiles = source[start : stop + _BORDER].unfold(0, width + _BORDER, width).transpose(1, 2)
            band = _band(width, source.device).expand(len(tiles), -1, -1)
            self._products.append((band, tiles, target[start:stop].unflatten(0, (-1, width))))

    def run(self) -> None:
        """Fill ``target`` from what ``source`` holds now."""
        for band, tiles, target in self._products:
            torch.bmm(band, tiles, out=target)


class _Lines:
    """Rows of s, d, s^2 + offset and d^2, made in ``raw`` and filtered along themselves into ``smooth``.

    Args:
        raw: float64 ``[rows, 2, 2, planes, w]``.
        smooth: float64 ``[rows, 4 planes, w - 10]``.
        offset: float64 scalar.
    """

    def __init__(self, raw: Tensor, smooth: Tensor, offset: Tensor) -> None:
        plain, squares = raw.unbind(1)
        self._total, self._difference = plain.unbind(1)
        self._total_square, self._difference_square = squares.unbind(1)
        self._offset = offset
        self._smoothing = _Filter(raw.flatten(0, 3).T, smooth.flatten(0, 1).T, _COLUMNS)

    def filter(self, x: Tensor, y: Tensor) -> None:
        """Fill ``smooth`` from uint8 or float64 ``[rows, planes, w]``."""
        total, difference = self._total, self._difference
        total.copy_(x)
        difference.copy_(y)
        total.add_(difference)
        torch.sub(total, difference, alpha=2, out=difference)  # x - y = (x + y) - 2 y, exact for 8-bit pixels
        torch.addcmul(self._offset, total, total, out=self._total_square)
        torch.mul(difference, difference, out=self._difference_square)
        self._smoothing.run()


class _Block:
    """Filtered lines ``[rows + 10, 4 planes, columns]`` filtered downwards, and made the terms of SSIM."""

    def __init__(self, smooth: Tensor, constant: Tensor) -> None:
        rows, planes, columns = len(smooth) - _BORDER, smooth.shape[1] // 4, smooth.shape[2]
        self._constant = constant
        filtered = smooth.new_empty(rows, 2, 2, planes * columns)
        self._smoothing = _Filter(smooth.flatten(1), filtered.flatten(1), _SLICE)
        self._means, self._variances = filtered.unbind(1)
        self._total, self._difference = self._means.unbind(1)
        self._totals, self._differences = filtered.unbind(2)
        self._above = torch.empty_like(self._totals)
        above, below = (
            part.unflatten(2, (planes, columns)).unbind(1) for part in (self._above, self._totals)
        )
        self._luminance, self._contrast = map(Fractions, above, below)

    def terms(self) -> tuple[Fractions, Fractions]:
        """Return luminance and contrast-structure of the lines as they are now."""
        self._smoothing.run()
        torch.addcmul(self._constant, self._total, self._total, out=self._total)
        self._difference.square_()
        self._variances.sub_(self._means)
        torch.sub(self._totals, self._differences, out=self._above)
        self._totals.add_(self._differences)
        return self._luminance, self._contrast


@final
class SimilarityWindow:
    """The terms of SSIM as fractions, top to bottom, for planes of one size.

        luminance = (2 m_x m_y + c1) / (m_x^2 + m_y^2 + c1)
        contrast-structure = (2 s_xy + c2) / (s_x^2 + s_y^2 + c2)

    with the window's means m, variances s^2 and covariance s_xy (Wang et al. 2004, eq. 6 and 9 with
    C3 = C2 / 2, as in eq. 13). Costs 4 x 40 multiplications a pixel in products of matrices. Not to be
    shared between threads.

    Args:
        planes: how many are filtered at once.
        height: at least 11.
        width: at least 11.
        c1: stabilises the luminance.
        c2: stabilises the contrast.
        device: where the planes lie.
    """

    def __init__(
        self, *, planes: int, height: int, width: int, c1: float, c2: float, device: torch.device
    ) -> None:
        self._height = height - _BORDER
        rows, columns = min(_ROWS, self._height), width - _BORDER
        # What is added to s^2 comes off again with the luminance's constant, and leaves that of the contrast.
        offset = torch.tensor(2 * (c1 + c2), dtype=torch.float64, device=device)
        constant = torch.full_like(offset, 2 * c1)
        raw = offset.new_empty(max(rows, _BORDER), 2, 2, planes, width)
        smooth = offset.new_empty(rows + _BORDER, 4 * planes, columns)
        self._first = _Lines(raw[:_BORDER], smooth[:_BORDER], offset)
        self._blocks = {
            count: (
                _Lines(raw[:count], smooth[_BORDER : _BORDER + count], offset),
                _Block(smooth[: count + _BORDER], constant),
            )
            for count in {rows, (self._height - 1) % _ROWS + 1}
        }
        self._kept, self._overlap = smooth[:_BORDER], smooth[rows : rows + _BORDER]

    def blocks(self, x: Tensor, y: Tensor) -> Iterator[tuple[slice, Fractions, Fractions]]:
        """Yield which rows of ``h - 10``, and their luminance and contrast-structure, twice those above.

        Args:
            x: uint8 or float64 ``[planes, h, w]`` on the scale 0..255.
            y: the same shape.
        """
        x, y = x.transpose(0, 1), y.transpose(0, 1)  # rows first: blocks are views
        self._first.filter(x[:_BORDER], y[:_BORDER])
        for top in range(0, self._height, _ROWS):
            rows = slice(top, min(top + _ROWS, self._height))
            lines, block = self._blocks[rows.stop - top]
            if top:
                self._kept.copy_(self._overlap)
            below = slice(rows.start + _BORDER, rows.stop + _BORDER)
            lines.filter(x[below], y[below])
            yield rows, *block.terms()
