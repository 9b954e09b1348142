"""Which frequencies, rates and sizes each layer of StyleGAN3 has (Karras et al. 2021, section 3.2).

Cutoffs grow geometrically from the first layer to the first critically sampled one; a rate is the power of
two that holds the stopband; a canvas is the rate plus a margin on both sides, and the image at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class BandPlan(Protocol):
    """What a configuration says about its bands."""

    @property
    def resolution(self) -> int:
        """Height and width of the image."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of each layer; the last are colours."""
        ...

    @property
    def num_critical(self) -> int:
        """Layers before the last whose cutoff is half the sampling rate."""
        ...

    @property
    def first_cutoff(self) -> float:
        """Cutoff of the first layer."""
        ...

    @property
    def first_stopband(self) -> float:
        """Stopband of the first layer."""
        ...

    @property
    def last_stopband_rel(self) -> float:
        """Stopband of the last layer by its cutoff."""
        ...

    @property
    def margin_size(self) -> int:
        """Pixels outside the image on each side."""
        ...


@dataclass(frozen=True)
class Band:
    """Cutoff frequency in cycles per image width, samples per image width, and canvas size in samples."""

    cutoff: float
    rate: int
    size: int


def bands(plan: BandPlan) -> tuple[Band, ...]:
    """Return the band of each layer, the conversion to colours last.

    ``f_c[i] = f_c0 (f_cN / f_c0)^e``, ``e = min(i / (N - N_critical), 1)``; stopbands in the same way;
    ``s[i] = 2^ceil(log2(min(2 f_t[i], resolution)))``.

    Raises:
        ValueError: the plan has no layer that is not critically sampled.
    """
    last = len(plan.channels) - 1
    if last <= plan.num_critical or plan.num_critical < 0 or plan.resolution < 1:
        raise ValueError(f"{last} layers with {plan.num_critical} critically sampled ones")
    last_cutoff = plan.resolution / 2
    exponents = np.minimum(np.arange(last + 1) / (last - plan.num_critical), 1)
    cutoffs = plan.first_cutoff * (last_cutoff / plan.first_cutoff) ** exponents
    last_stopband = last_cutoff * plan.last_stopband_rel
    stopbands = plan.first_stopband * (last_stopband / plan.first_stopband) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, plan.resolution))))
    sizes = rates + plan.margin_size * 2
    sizes[-2:] = plan.resolution
    return tuple(
        Band(cutoff=float(cutoff), rate=int(rate), size=int(size))
        for cutoff, rate, size in zip(cutoffs, rates, sizes, strict=True)
    )
