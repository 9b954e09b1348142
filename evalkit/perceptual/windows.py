"""The sliding window of SSIM: means and variances at every position, a block of rows at a time.

    for rows, above, below in similarity_blocks(x, y):
        luminance, contrast = (above / below).unbind(1)  # float64 [rows, planes, columns] each

The window is separable, and each pass is a product with a banded matrix: on a CPU a product runs at the
machine's full rate, so that the few multiplications by zero cost less than eleven passes over memory.

With s = x + y and d = x - y the four quantities of SSIM are sums and differences of two squares each:

    2 m_x m_y = (m_s^2 - m_d^2) / 2      m_x^2 + m_y^2 = (m_s^2 + m_d^2) / 2
    2 s_xy    = (s_s^2 - s_d^2) / 2      s_x^2 + s_y^2 = (s_s^2 + s_d^2) / 2

so that four maps are filtered and not five, equal images give exactly 1, and both pairs of terms come from
the same few operations. Everything is float64: in float32, at 1.7 times the speed, the value of a smooth
picture moves by 1e-6 and single positions in its flat parts, where two large squares cancel, by 5e-5.

Accepted trade-offs: buffers are reused from block to block, so that what is yielded must be read at once.
A block of 24 rows of a 256-pixel colour picture works in 3 MB, whatever the height.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import torch
from torch import Tensor

from evalkit.perceptual.facts import SSIM_WINDOW

SIGMA: Final = 1.5
REACH: Final = SSIM_WINDOW // 2
_BORDER: Final = 2 * REACH
# Larger tiles multiply by more zeros and leave the second-level cache, smaller ones leave the products idle.
_ROWS: Final = 24
_COLUMNS: Final = 32


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


class _Moments:
    """Two batches of planes, filtered along their rows as far as they were asked for."""

    def __init__(self, x: Tensor, y: Tensor, *, offset: float) -> None:
        self._x, self._y = (planes.transpose(0, 1) for planes in (x, y))  # rows first: blocks are views
        planes, height, width = x.shape
        self._columns = width - _BORDER
        self._offset = torch.tensor(offset, dtype=torch.float64, device=x.device)
        self._raw = torch.empty(min(_ROWS, height), 2, 2, planes, width, dtype=torch.float64, device=x.device)
        lines = min(_ROWS + _BORDER, height)
        self._smooth = torch.empty(lines, 4 * planes, self._columns, dtype=torch.float64, device=x.device)

    def rows(self, top: int, count: int) -> Tensor:
        """Return ``count`` rows from ``top`` on of s, d, s^2 + offset, d^2: ``[count, 4 planes * columns]``.

        They are asked for in order, each time ``_ROWS`` further down: the ten rows that overlap are kept.
        """
        start = 0
        if top:
            start = _BORDER
            self._smooth[:start] = self._smooth[_ROWS : _ROWS + start]
        for first in range(start, count, _ROWS):
            last = min(first + _ROWS, count)
            self._filter(slice(top + first, top + last), self._smooth[first:last])
        return self._smooth[:count].flatten(1)

    def _filter(self, rows: slice, target: Tensor) -> None:
        raw = self._raw[: len(target)]
        (total, difference), (total_square, difference_square) = (part.unbind(1) for part in raw.unbind(1))
        total.copy_(self._x[rows])
        difference.copy_(self._y[rows])
        total.add_(difference)
        torch.sub(total, difference, alpha=2, out=difference)  # x - y = (x + y) - 2 y, exact for 8-bit pixels
        torch.addcmul(self._offset, total, total, out=total_square)
        torch.mul(difference, difference, out=difference_square)
        lines, smooth = raw.flatten(0, 3), target.flatten(0, 1)
        for left in range(0, self._columns, _COLUMNS):
            width = min(_COLUMNS, self._columns - left)
            tile = lines[:, left : left + width + _BORDER]
            torch.mm(tile, _band(width, lines.device).T, out=smooth[:, left : left + width])


def similarity_blocks(
    x: Tensor, y: Tensor, *, c1: float, c2: float
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield the terms of SSIM as fractions, top to bottom.

        luminance = (2 m_x m_y + c1) / (m_x^2 + m_y^2 + c1)
        contrast-structure = (2 s_xy + c2) / (s_x^2 + s_y^2 + c2)

    with the window's means m, variances s^2 and covariance s_xy (Wang et al. 2004, eq. 6 and 9 with
    C3 = C2 / 2, as in eq. 13). Costs 2 x 84 multiplications a pixel in products of matrices.

    Args:
        x: uint8 or float64 ``[planes, h, w]`` on the scale 0..255, h and w at least 11.
        y: the same shape.
        c1: stabilises the luminance.
        c2: stabilises the contrast.

    Yields:
        Which rows of ``h - 10``; numerators and denominators, float64 ``[rows, 2, planes, w - 10]``, twice
        those above, luminance first. Both are the caller's until the next step, and may be overwritten.
    """
    planes, height, width = x.shape
    height, width = height - _BORDER, width - _BORDER
    # What is added to s^2 comes off again with the luminance's constant, and leaves that of the contrast.
    moments = _Moments(x, y, offset=2 * (c1 + c2))
    constant = torch.tensor(2 * c1, dtype=torch.float64, device=x.device)
    shape = (min(_ROWS, height), 2, planes * width)
    smooth = torch.empty(*shape[:2], 2, shape[2], dtype=torch.float64, device=x.device)
    numerators, denominators = (torch.empty(shape, dtype=torch.float64, device=x.device) for _ in range(2))
    for top in range(0, height, _ROWS):
        count = min(_ROWS, height - top)
        block, above, below = (buffer[:count] for buffer in (smooth, numerators, denominators))
        torch.mm(_band(count, x.device), moments.rows(top, count + _BORDER), out=block.flatten(1))
        means, variances = block.unbind(1)
        total, difference = means.unbind(1)
        torch.addcmul(constant, total, total, out=total)
        difference.square_()
        variances.sub_(means)
        torch.sub(block[:, :, 0], block[:, :, 1], out=above)
        torch.add(block[:, :, 0], block[:, :, 1], out=below)
        yield (
            slice(top, top + count),
            above.unflatten(2, (planes, width)),
            below.unflatten(2, (planes, width)),
        )
