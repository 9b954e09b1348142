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

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.perceptual.chunks import Masks, check_pairs, masked_mean, measure_in_chunks
from evalkit.perceptual.colour import Channels, channels_of, compared_channels
from evalkit.perceptual.facts import MS_SSIM_MINIMUM, SSIM_WINDOW, PairMeasureFacts
from evalkit.perceptual.signal import DATA_RANGE, float64_device, refuse_weights
from evalkit.perceptual.windows import REACH, SIGMA, SimilarityWindow
from evalkit.spec import Spec

K1: Final = 0.01
K2: Final = 0.03
SCALE_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1: Final = (K1 * DATA_RANGE) ** 2
_C2: Final = (K2 * DATA_RANGE) ** 2
_CPU_CHUNK: Final = 8  # pictures, one after the other, which share their windows
_ACCELERATOR_CHUNK: Final = 32
Windows = Callable[..., SimilarityWindow]  # of (planes, height, width, *, device)


def similarity_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure map of two batches of planes.

    SSIM is their product; for the formulas see :class:`~evalkit.perceptual.windows.SimilarityWindow`.

    Args:
        x: uint8 or float64 ``[n, c, h, w]`` on the scale 0..255, h and w at least 11.
        y: the same shape.

    Returns:
        Two float64 ``[n, c, h - 10, w - 10]``; a value belongs to the pixel 5 rows and columns further in.
    """
    luminance = _empty_map(x)
    contrast = torch.empty_like(luminance)
    window = _window(x.shape[0] * x.shape[1], *x.shape[-2:], device=x.device)
    for rows, *terms in window.blocks(x.flatten(0, 1), y.flatten(0, 1)):
        for target, term in zip((luminance, contrast), terms, strict=True):
            target.flatten(0, 1)[:, rows] = term.values().transpose(0, 1)
    return luminance, contrast


def _window(planes: int, height: int, width: int, *, device: torch.device) -> SimilarityWindow:
    return SimilarityWindow(planes=planes, height=height, width=width, c1=_C1, c2=_C2, device=device)


def _empty_map(planes: Tensor) -> Tensor:
    height, width = planes.shape[-2] - 2 * REACH, planes.shape[-1] - 2 * REACH
    return torch.empty(*planes.shape[:2], height, width, dtype=torch.float64, device=planes.device)


def _similarity(
    x: Tensor, y: Tensor, *, windows: Windows, with_luminance: bool, keep_map: bool
) -> tuple[Tensor, Tensor | None]:
    """Return float64 ``[n, c]`` means of the contrast-structure term, and its map where it is kept.

    ``with_luminance`` multiplies by the luminance term. Without a map, memory does not grow with the height.
    """
    kept = _empty_map(x) if keep_map else None
    planes = x.shape[0] * x.shape[1]
    sums = torch.zeros(planes, dtype=torch.float64, device=x.device)
    window = windows(planes, *x.shape[-2:], device=x.device)
    for rows, luminance, contrast in window.blocks(x.flatten(0, 1), y.flatten(0, 1)):
        if with_luminance:
            contrast.above.mul_(luminance.above)
            contrast.below.mul_(luminance.below)
        values = contrast.values()
        sums += values.sum(-1).sum(0)
        if kept is not None:
            kept.flatten(0, 1)[:, rows] = values.transpose(0, 1)
    positions = (x.shape[-2] - 2 * REACH) * (x.shape[-1] - 2 * REACH)
    return (sums / positions).view(x.shape[:2]), kept


def _centres(masks: Masks) -> dict[str, Tensor]:
    """Cut masks to the pixels that are the centre of a window position."""
    inner = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    return {region: mask[inner] for region, mask in masks.items()}


def _channel_means(values: Tensor, mask: Tensor) -> Tensor:
    """Return float64 ``[n, c]``: the mean of ``values`` over the positions in ``mask``."""
    channels = [masked_mean(values[:, c : c + 1], mask) for c in range(values.shape[1])]
    return torch.stack(channels, dim=1)


def _halved(planes: Tensor) -> Tensor:
    if planes.shape[-2] % 2 or planes.shape[-1] % 2:
        return F.avg_pool2d(planes, 2, ceil_mode=True)  # an odd last row averages over what is there
    rows = planes[..., ::2, :] + planes[..., 1::2, :]  # a quarter of the pool's time; exact on bytes, as it
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def multiscale_similarity(
    x: Tensor, y: Tensor, masks: Masks, *, windows: Windows = _window
) -> dict[str | None, Tensor]:
    """Return float64 ``[n]`` MS-SSIM: of the whole under None, and of each region under its name.

    Args:
        x: float64 ``[n, c, h, w]`` on the scale 0..255, h and w at least 161.
        y: the same shape.
        masks: bool ``[n, 1, h, w]`` by region.
        windows: makes the window of each scale, or keeps those it made.
    """
    products: dict[str | None, Tensor] = {}
    shares = {region: mask.double() for region, mask in masks.items()}
    last = len(SCALE_WEIGHTS) - 1
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, terms = _similarity(x, y, windows=windows, with_luminance=scale == last, keep_map=bool(masks))
        means: dict[str | None, Tensor] = {None: whole}
        if terms is not None:
            inside = _centres({region: share >= 0.5 for region, share in shares.items()})
            means |= {region: _channel_means(terms, mask) for region, mask in inside.items()}
        for region, mean in means.items():
            factor = mean.relu() ** weight
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
            chunk=self._chunk(len(generated)),
        )

    def _chunk(self, count: int) -> int:
        if self.device.type != "cpu":
            return _ACCELERATOR_CHUNK
        return min(_CPU_CHUNK, -(-count // torch.get_num_threads()))

    def _measure(self, generated: Tensor, reference: Tensor, masks: Masks) -> Mapping[str, Tensor]:
        """Measure a chunk; on a CPU a picture at a time, so that one stays in the cache."""
        windows = cache(_window)
        step = 1 if self.device.type == "cpu" else len(generated)
        parts = []
        for start in range(0, len(generated), step):
            part = slice(start, start + step)
            regions = {region: mask[part] for region, mask in masks.items()}
            parts.append(self._values(generated[part], reference[part], regions, windows))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _values(
        self, generated: Tensor, reference: Tensor, masks: Masks, windows: Windows
    ) -> Mapping[str, Tensor]:
        if self._channels == "rgb" and not self._multiscale:
            x, y = generated, reference  # bytes are read as they are, block by block
        else:
            x, y = (compared_channels(images, self._channels) for images in (generated, reference))
        if not self._multiscale:
            means, terms = _similarity(x, y, windows=windows, with_luminance=True, keep_map=bool(masks))
            values = {self._name: means.mean(1)}
            if terms is not None:
                inside = _centres(masks)
                values |= {f"{self._name}/{name}": masked_mean(terms, mask) for name, mask in inside.items()}
            return values
        products = multiscale_similarity(x, y, masks, windows=windows)
        return {
            self._name if region is None else f"{self._name}/{region}": value
            for region, value in products.items()
        }


def build_ssim(facts: PairMeasureFacts, *, weights: Path | None, device: str) -> Ssim:
    """Build ``ssim`` or ``ssim-y``."""
    refuse_weights(facts, weights)
    return Ssim(name=facts.name, channels=channels_of(facts.name), device=device)


def build_ms_ssim(facts: PairMeasureFacts, *, weights: Path | None, device: str) -> Ssim:
    """Build ``ms-ssim``."""
    refuse_weights(facts, weights)
    return Ssim(name=facts.name, multiscale=True, device=device)
