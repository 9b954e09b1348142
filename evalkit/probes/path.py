"""Steps along paths in a latent space, measured by a perceptual distance: the rows of the path length.

    probe = path_probe(generator, seed=0, space="w", sampling="end", epsilon=1e-4, crop=False, distance=lpips)
    rows = probe(np.arange(64), ["distance"])["distance"]

Facts of the protocol (stylegan2, metrics/perceptual_path_length.py): two latents, a point t of the path
between them and one epsilon further (beyond the end of the path is allowed), the same label and the same
noise for both images, float32 throughout, the centre cut out where asked, box-averaged down to 256,
**not rounded to 8 bits**, distance over epsilon squared. (The published code scales to 0..255 because its
LPIPS scales back from there; the distances of evalkit take [-1, 1], which is the same without two roundings.)

Accepted trade-offs: where both crop and down-sampling apply, the box is that of the cropped image, as in
stylegan and stylegan2; stylegan2-ada-pytorch takes the whole image's and so halves the side once more.
Noise is drawn for each pair; the published code draws it for each minibatch, so that its pairs depend on
the batch size. Float32 rounding of images and features adds about 1e-4 of the value at epsilon = 1e-4
(measured on the bundled cgan and vae with the distance on EfficientNet-Lite0), as it does in the published
code; a larger epsilon lowers that and measures a chord instead (1e-2: 3 to 8 % less).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.core import Float64Array, Generator, IndexArray, LatentGenerator
from evalkit.errors import InvalidInputError, UsageError
from evalkit.probes.latents import (
    Interpolation,
    box_average,
    check_interpolation,
    fitting_interpolation,
    interpolate,
    labels_of,
    require_latents,
)
from evalkit.runtime import strict_numerics
from evalkit.seeding import SEED_SCHEME, image_seeds
from evalkit.spec import Spec, sha256_of

HEAD = "distance"
# Pairs at a time; fixed, so that a row does not depend on the batch it comes in. On a CPU, few: LPIPS-VGG16
# holds 17 MB an image and layer at 256 pixels.
_CPU_CHUNK, _ACCELERATOR_CHUNK = 4, 32
_DRAWS = 4  # seeds of one index: start, end, position, noise


@runtime_checkable
class PathDistance(Protocol):
    """A distance between images, such as LPIPS; every :class:`evalkit.perceptual.ImageDistance` is one."""

    @property
    def spec(self) -> Spec:
        """Name, conventions and the digest of the weights."""
        ...

    def distance(self, generated: Tensor, reference: Tensor, /) -> Tensor:
        """Return ``[n]`` distances of float32 ``[n, 3, h, w]`` images in about [-1, 1], not quantised."""
        ...


@final
@dataclass(frozen=True, slots=True, eq=False)
class PathProbe:
    """Row i: the distance of two images an epsilon apart on path i, over epsilon squared.

    Build it with :func:`path_probe`, which checks the generator.
    """

    generator: LatentGenerator
    distance: PathDistance
    seed: int
    space: str
    sampling: str
    epsilon: float
    crop: bool
    interpolation: Interpolation
    chunk: int

    @property
    def spec(self) -> Spec:
        """Model, distance network and every choice of the protocol."""
        return Spec.of(
            "probe",
            "path",
            sha256=sha256_of([self.generator.spec.to_json(), self.distance.spec.to_json()]),
            distance=self.distance.spec.name,
            seed=self.seed,
            seeds=SEED_SCHEME,
            space=self.space,
            sampling=self.sampling,
            epsilon=self.epsilon,
            crop=self.crop,
            interpolation=self.interpolation,
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """One head of one column."""
        return {HEAD: 1}

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 ``[n, 1]`` rows for the paths ``index`` ``[n]``.

        Raises:
            UsageError: an unknown head.
            InvalidInputError: a distance is not finite.
        """
        for head in heads:
            if head != HEAD:
                raise UsageError(f"the path probe has no head {head!r}", hint=f"it has {HEAD!r}")
        rows = np.empty((len(index), 1), dtype=np.float32)
        with strict_numerics():
            for start in range(0, len(index), self.chunk):
                part = index[start : start + self.chunk]
                # The last chunk is filled up, so that every chunk runs the same kernels.
                filled = np.resize(part, self.chunk)
                rows[start : start + len(part), 0] = self._distances(filled)[: len(part)]
        if not np.isfinite(rows).all():
            raise InvalidInputError(
                "a path distance is not finite", hint="does the generator give images in [-1, 1]?"
            )
        return dict.fromkeys(heads, rows)

    def endpoints(self, index: IndexArray) -> tuple[Tensor, Tensor]:
        """Return the two latents of each step, float32 ``[n, d]`` in ``space``."""
        seeds = self._seeds(index)
        labels = labels_of(self.generator, self.seed, index)
        ends = self.generator.latents(np.concatenate([seeds[0], seeds[1]]))
        if self.space == "w":
            both = None if labels is None else np.concatenate([labels, labels])
            ends = self.generator.mapping(ends, labels=both)
        a, b = ends[: len(index)], ends[len(index) :]
        t = self._positions(seeds[2])
        return (
            interpolate(a, b, t, interpolation=self.interpolation),
            interpolate(a, b, t + self.epsilon, interpolation=self.interpolation),
        )

    def _distances(self, index: IndexArray) -> Float64Array:
        here, there = self.endpoints(index)
        labels = labels_of(self.generator, self.seed, index)
        noise = self._seeds(index)[3]
        images = self.generator.synthesis(
            torch.cat([here, there]),
            space=self.space,
            noise_seeds=np.concatenate([noise, noise]),
            labels=None if labels is None else np.concatenate([labels, labels]),
        )
        if not images.is_floating_point():
            raise UsageError(
                f"synthesis gave {images.dtype} images; the path length needs them in float",
                hint="quantising to 8 bits inflates it many times over",
            )
        a, b = prepare(images.float(), crop=self.crop).chunk(2)
        return self.distance.distance(a, b).double().cpu().numpy() / self.epsilon**2

    def _seeds(self, index: IndexArray) -> IndexArray:
        """Return int64 ``[4, n]``: seeds of start, end, position and noise of each path."""
        counters = _DRAWS * index[None, :] + np.arange(_DRAWS, dtype=np.int64)[:, None]
        return image_seeds(self.seed, counters.ravel(), name="path").reshape(counters.shape)

    def _positions(self, seeds: IndexArray) -> Float64Array:
        if self.sampling == "end":
            return np.zeros(len(seeds))
        return (seeds >> 10).astype(np.float64) / 2.0**53  # the upper 53 of 63 bits: uniform on [0, 1)


def prepare(images: Tensor, *, crop: bool) -> Tensor:
    """Return images as the distance sees them: cut, averaged down to 256, in [-1, 1], not rounded.

    The cut takes rows 3/8 to 7/8 and columns 2/8 to 6/8: the face, in aligned portraits.

    Args:
        images: float32 ``[n, 3, h, w]`` in [-1, 1].
        crop: whether to cut.

    Raises:
        InvalidInputError: they are too small to cut, or not square.
    """
    if crop:
        height, width = images.shape[2:]
        if height != width or height < 8:
            raise InvalidInputError(
                f"the crop wants square images of 8 pixels or more, not {height} x {width}"
            )
        eighth = height // 8
        images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    return box_average(images)


def path_probe(
    generator: Generator,
    *,
    seed: int,
    space: str,
    sampling: str,
    epsilon: float,
    crop: bool,
    distance: PathDistance,
    interpolation: str | None = None,
) -> PathProbe:
    """Return the probe of a generator's paths.

    Args:
        generator: a model with a latent space.
        seed: base seed of the paths, independent of the images that ``score`` draws from it.
        space: ``z`` or ``w``.
        sampling: ``end`` or ``full``.
        epsilon: length of the step; 1e-4 as published.
        crop: whether to cut out the centre.
        distance: a distance of float images in [-1, 1].
        interpolation: a :data:`~evalkit.probes.latents.Interpolation`; None takes what fits the generator.

    Raises:
        UsageError: the generator has no latent space or no such one, or a parameter is out of range.
    """
    latent = require_latents(generator, spaces=(space,), metric="the perceptual path length")
    if sampling not in {"full", "end"}:
        raise UsageError(f"unknown sampling {sampling!r}", hint="use full or end")
    if not 0 < epsilon < 1:
        raise UsageError(f"epsilon is a small part of the path, between 0 and 1, not {epsilon}")
    chosen = fitting_interpolation(latent, space=space) if interpolation is None else interpolation
    on_cpu = latent.latents(np.zeros(1, dtype=np.int64)).device.type == "cpu"
    return PathProbe(
        latent,
        distance,
        seed=seed,
        space=space,
        sampling=sampling,
        epsilon=epsilon,
        crop=crop,
        interpolation=check_interpolation(chosen, space=space),
        chunk=_CPU_CHUNK if on_cpu else _ACCELERATOR_CHUNK,
    )
