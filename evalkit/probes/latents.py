"""What every probe of a latent space needs: a generator that shows one, and a way through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from evalkit.core import Float64Array, Generator, IndexArray, LatentGenerator
from evalkit.errors import InvalidInputError, UsageError
from evalkit.numerics.interpolation import ArcNorm, lerp, slerp
from evalkit.registry import did_you_mean
from evalkit.seeding import balanced_labels

Interpolation = Literal["slerp-unit", "slerp", "slerp-any", "lerp"]
"""A path between two latents.

``slerp-unit``: the great circle of the unit sphere, as StyleGAN's own metric walks it; for mapping networks
that normalise z. ``slerp``: the same directions with the lengths of the two ends, for generators that expect
z ~ N(0, 1). ``slerp-any``: torch-fidelity's, see :func:`~evalkit.numerics.interpolation.slerp`. ``lerp``: a
straight line, which in z leaves the shell where the latents of the prior lie.
"""

_INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
_ARCS: Mapping[Interpolation, ArcNorm] = {"slerp": "linear", "slerp-unit": "unit", "slerp-any": "any"}

IMAGE_SIDE = 256
"""Larger images are averaged over boxes down to about this (StyleGAN: the networks were built for it)."""

_PROBED_SEEDS = 8
# A mapping that normalises adds 1e-8 to the mean square of z, 1/d for a unit vector: 5e-6 at d = 512.
# One that does not, moves w by its own size.
_SAME_DIRECTION = 1e-2


def require_latents(generator: Generator, *, spaces: tuple[str, ...], metric: str) -> LatentGenerator:
    """Return ``generator`` if it shows all of ``spaces``.

    Raises:
        UsageError: it shows no latent space, or not these.
    """
    name = generator.spec.name
    if not isinstance(generator, LatentGenerator):
        raise UsageError(
            f"{metric} walks through a latent space, and model {name!r} shows none",
            hint="it needs spaces, latents(), mapping() and synthesis(): see evalkit.core.LatentGenerator; "
            "samples of a diffusion or autoregressive model have no latent path",
        )
    for space in spaces:
        if space not in generator.spaces:
            held = ", ".join(generator.spaces)
            known = space in {"z", "w"}
            raise UsageError(
                f"{metric} was asked for in space {space!r}; model {name!r} has {held}",
                hint=f"ask for space {held}" if known else did_you_mean(space, generator.spaces),
            )
    return generator


def labels_of(generator: Generator, seed: int, index: IndexArray) -> IndexArray | None:
    """Return the balanced label of each index, or None for an unconditional generator."""
    return balanced_labels(seed, index, generator.num_classes) if generator.num_classes else None


def fitting_interpolation(generator: LatentGenerator, *, space: str) -> Interpolation:
    """Return the path that fits: straight in w; in z the published one where the mapping normalises z.

    Whether it does is asked of the mapping itself, with a few latents and the same shrunk to unit length.
    For every other generator a path on the unit sphere would leave its prior, and the lengths are kept.
    """
    if space == "w":
        return "lerp"
    if "w" not in generator.spaces:
        return "slerp"
    index = np.arange(_PROBED_SEEDS, dtype=np.int64)
    labels = labels_of(generator, 0, index)
    with torch.inference_mode():
        z = generator.latents(index)
        w = generator.mapping(z, labels=labels).double()
        unit = generator.mapping(z / z.norm(dim=1, keepdim=True), labels=labels).double()
    moved = float((unit - w).norm() / w.norm())
    return "slerp-unit" if moved < _SAME_DIRECTION else "slerp"


def interpolate(a: Tensor, b: Tensor, t: Float64Array, *, interpolation: Interpolation) -> Tensor:
    """Return the float32 points at ``t`` ``[n]`` of the paths from ``a`` to ``b``, float32 ``[n, d]``.

    Computed in float64 on the CPU and rounded once. In float32, as published, t + 1e-4 near t = 1 is off by
    up to 3e-4 of the step; single distances move by 1e-2, the mean of many by less than 1e-3.

    Raises:
        InvalidInputError: a latent is not finite, or two are antipodal.
    """
    start, end = (x.detach().cpu().double().numpy() for x in (a, b))
    straight = interpolation == "lerp"
    point = lerp(start, end, t) if straight else slerp(start, end, t, norm=_ARCS[interpolation])
    return torch.from_numpy(point).to(device=a.device, dtype=torch.float32)


def check_interpolation(interpolation: str, *, space: str) -> Interpolation:
    """Return the name if there is such a path, and if w is walked straight.

    Raises:
        UsageError: an unknown name, or a great circle in w.
    """
    found = next((name for name in _INTERPOLATIONS if name == interpolation), None)
    if found is None:
        raise UsageError(
            f"unknown interpolation {interpolation!r}",
            hint=did_you_mean(interpolation, _INTERPOLATIONS),
        )
    if space == "w" and interpolation != "lerp":
        raise UsageError(f"a path in w is straight: {interpolation!r} is for z", hint="use lerp")
    return found


def box_average(images: Tensor) -> Tensor:
    """Average images larger than 256 pixels over boxes of ``side // 256`` pixels; never scales up.

    Args:
        images: float ``[n, 3, h, w]``.

    Raises:
        InvalidInputError: the side is not a multiple of the box.
    """
    height, width = images.shape[2:]
    factor = height // IMAGE_SIDE
    if factor <= 1:
        return images
    if height % factor or width % factor:
        raise InvalidInputError(f"images of {height} x {width} cannot be averaged over boxes of {factor}")
    return torch.nn.functional.avg_pool2d(images, factor)
