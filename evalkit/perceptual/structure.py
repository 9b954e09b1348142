"""SSIM and MS-SSIM in float64, with the constants of their papers.

    ssim = build_pair_measure("ssim", weights={}, device="cpu")
    values = ssim(generated, reference, masks={"inside": mask})

SSIM (Wang et al. 2004, eq. 13): gaussian window of 11x11 pixels with sigma 1.5, K1 = .01, K2 = .03, data
range 255, biased (population) variances, window positions wholly inside the image ("valid"); the mean over
positions, then over channels. A region averages the positions whose centre lies inside it.

MS-SSIM (Wang, Simoncelli and Bovik 2003, eq. 7): the product over five scales of the mean contrast-structure
term, with the luminance term at the last scale, raised to .0448, .2856, .3001, .2363, .1333; per channel,
then the mean over channels. Between scales images are averaged over 2x2 pixels; an odd last row or column
is averaged with itself, as in the authors' code. Negative terms, whose power does not exist, count as 0
(ReLU, as in torchmetrics and pytorch-msssim). A region at a coarser scale holds the positions of which at
least half the pixels lie inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.perceptual.chunks import Masks, check_pairs, masked_mean, measure_in_chunks, with_regions
from evalkit.perceptual.colour import Channels, channels_of, compared_channels
from evalkit.perceptual.facts import MS_SSIM_MINIMUM, SSIM_WINDOW, PairMeasureFacts
from evalkit.perceptual.signal import DATA_RANGE, float64_device, refuse_weights
from evalkit.spec import Spec

SIGMA: Final = 1.5
K1: Final = 0.01
K2: Final = 0.03
SCALE_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_REACH: Final = SSIM_WINDOW // 2
_C1: Final = (K1 * DATA_RANGE) ** 2
_C2: Final = (K2 * DATA_RANGE) ** 2
# The window slides as a product with a banded matrix over tiles of this size: on a CPU the tile stays in
# the second-level cache, and the few multiplications by zero cost less than passes over memory.
_ROWS: Final = 32
_COLUMNS: Final = 64
_CPU_CHUNK: Final = 1
_ACCELERATOR_CHUNK: Final = 32


@cache
def _band(outputs: int, device: torch.device) -> Tensor:
    """Return float64 ``[outputs, outputs + 10]``: row i holds the one-dimensional window at column i."""
    offsets = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window /= window.sum()
    band = torch.zeros(outputs, outputs + 2 * _REACH, dtype=torch.float64)
    for row in range(outputs):
        band[row, row : row + SSIM_WINDOW] = window
    return band.to(device)


def _smoothed(maps: Tensor) -> Tensor:
    """Filter float64 ``[..., h, w]`` with the window at every position inside: ``[..., h - 10, w - 10]``."""
    rows, columns = maps.shape[-2] - 2 * _REACH, maps.shape[-1] - 2 * _REACH
    down = torch.matmul(_band(rows, maps.device), maps).flatten(0, -2)
    across = torch.empty(len(down), columns, dtype=maps.dtype, device=maps.device)
    for left in range(0, columns, _COLUMNS):
        width = min(_COLUMNS, columns - left)
        tile = down[:, left : left + width + 2 * _REACH]
        across[:, left : left + width] = tile @ _band(width, maps.device).T
    return across.view(*maps.shape[:-2], rows, columns)


def similarity_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure map of two batches of planes.

        luminance = (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1)
        contrast-structure = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)

    with the window's means m, variances s^2 and covariance s_xy; SSIM is their product (Wang et al. 2004,
    eq. 6 and 9 with C3 = C2 / 2, as in eq. 13).

    Args:
        x: float64 ``[n, c, h, w]`` on the scale 0..255, h and w at least 11.
        y: the same shape.

    Returns:
        Two float64 ``[n, c, h - 10, w - 10]``; a value belongs to the pixel 5 rows and columns further in.
    """
    rows, columns = x.shape[-2] - 2 * _REACH, x.shape[-1] - 2 * _REACH
    luminance = torch.empty(*x.shape[:-2], rows, columns, dtype=x.dtype, device=x.device)
    contrast = torch.empty_like(luminance)
    for top in range(0, rows, _ROWS):
        height = min(_ROWS, rows - top)
        a, b = (plane[..., top : top + height + 2 * _REACH, :] for plane in (x, y))
        # Only the sum of the two variances is read, so that four maps are filtered and not five.
        mean_a, mean_b, squares, product = _smoothed(torch.stack((a, b, a * a + b * b, a * b)))
        mean_product, mean_squares = mean_a * mean_b, mean_a.square() + mean_b.square()
        part = (..., slice(top, top + height), slice(None))
        luminance[part] = (2 * mean_product + _C1) / (mean_squares + _C1)
        contrast[part] = (2 * (product - mean_product) + _C2) / (squares - mean_squares + _C2)
    return luminance, contrast


def _centres(masks: Masks) -> dict[str, Tensor]:
    """Cut masks to the pixels that are the centre of a window position."""
    inner = (..., slice(_REACH, -_REACH), slice(_REACH, -_REACH))
    return {region: mask[inner] for region, mask in masks.items()}


def _channel_means(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return float64 ``[n, c]``: the mean of ``values`` over all positions, or over those in ``mask``."""
    if mask is None:
        return values.mean((2, 3))
    channels = [masked_mean(values[:, c : c + 1], mask) for c in range(values.shape[1])]
    return torch.stack(channels, dim=1)


def _halved(planes: Tensor) -> Tensor:
    return F.avg_pool2d(planes, 2, ceil_mode=True)  # an odd last row averages over what is there


def multiscale_similarity(x: Tensor, y: Tensor, masks: Masks) -> dict[str | None, Tensor]:
    """Return float64 ``[n]`` MS-SSIM: of the whole under None, and of each region under its name.

    Args:
        x: float64 ``[n, c, h, w]`` on the scale 0..255, h and w at least 161.
        y: the same shape.
        masks: bool ``[n, 1, h, w]`` by region.
    """
    products: dict[str | None, Tensor] = {}
    shares = {region: mask.double() for region, mask in masks.items()}
    last = len(SCALE_WEIGHTS) - 1
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, contrast = similarity_maps(x, y)
        terms = contrast * luminance if scale == last else contrast
        inside = _centres({region: share >= 0.5 for region, share in shares.items()})
        for region, mask in ((None, None), *inside.items()):
            factor = _channel_means(terms, mask).relu() ** weight
            products[region] = factor if scale == 0 else products[region] * factor
        if scale < last:
            x, y = _halved(x), _halved(y)
            shares = {region: _halved(share) for region, share in shares.items()}
    return {region: product.mean(1) for region, product in products.items()}


@final
class Ssim:
    """SSIM, or MS-SSIM where ``multiscale``; see the module's docstring.

    Args:
        name: of the value that it returns.
        channels: ``rgb``, or ``y`` for BT.601 luma.
        multiscale: MS-SSIM rather than SSIM.
        device: where it runs.
    """

    def __init__(
        self,
        *,
        name: str = "ssim",
        channels: Channels = "rgb",
        multiscale: bool = False,
        device: str = "cpu",
    ) -> None:
        self._name, self._channels, self._multiscale = name, channels, multiscale
        self.device: Final = float64_device(device)

    @property
    def published(self) -> bool:
        """Always: there are no weights."""
        return True

    @property
    def spec(self) -> Spec:
        """Name, channels and constants."""
        return Spec.of(
            "pair-measure",
            self._name,
            channels=self._channels,
            data_range=DATA_RANGE,
            window=SSIM_WINDOW,
            sigma=SIGMA,
            k1=K1,
            k2=K2,
            border="valid",
            scales=len(SCALE_WEIGHTS) if self._multiscale else 1,
            negative_terms="relu" if self._multiscale else "kept",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """One value."""
        return (self._name,)

    def __call__(self, generated: Tensor, reference: Tensor, *, masks: Masks) -> Mapping[str, Tensor]:
        """Return float64 similarities; see :class:`~evalkit.perceptual.PairMeasure`."""
        minimum = MS_SSIM_MINIMUM if self._multiscale else SSIM_WINDOW
        check_pairs(generated, reference, masks, measure=self._name, minimum=minimum)
        return measure_in_chunks(
            generated,
            reference,
            masks,
            measure=self._measure,
            device=self.device,
            chunk=_CPU_CHUNK if self.device.type == "cpu" else _ACCELERATOR_CHUNK,
        )

    def _measure(self, generated: Tensor, reference: Tensor, masks: Masks) -> Mapping[str, Tensor]:
        x, y = (compared_channels(images, self._channels) for images in (generated, reference))
        if not self._multiscale:
            luminance, contrast = similarity_maps(x, y)
            return with_regions(self._name, luminance * contrast, _centres(masks))
        values = multiscale_similarity(x, y, masks)
        return {
            self._name if region is None else f"{self._name}/{region}": value
            for region, value in values.items()
        }


def build_ssim(facts: PairMeasureFacts, *, weights: Path | None, device: str) -> Ssim:
    """Build ``ssim`` or ``ssim-y``."""
    refuse_weights(facts, weights)
    return Ssim(name=facts.name, channels=channels_of(facts.name), device=device)


def build_ms_ssim(facts: PairMeasureFacts, *, weights: Path | None, device: str) -> Ssim:
    """Build ``ms-ssim``."""
    refuse_weights(facts, weights)
    return Ssim(name=facts.name, multiscale=True, device=device)
