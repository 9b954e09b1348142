"""Perceptual path length: how fast the image changes along a path in latent space."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, Reads, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, score_with_jackknife
from evalkit.numerics.path_length import (
    DISCARDS_FROM,
    HIGHER,
    LOWER,
    path_length,
    path_length_without_blocks,
)
from evalkit.spec import Better, Score, Spec

# Two float32 distances of a continuous spread are equal by chance in about n^2 / 2^25 cases, which is 0.15 %
# of the published 50 000; more than this share are the same path twice.
_EQUAL_BY_CHANCE = 0.01


@METRICS.register("ppl")
@dataclass(frozen=True, slots=True)
class PerceptualPathLength(Metric):
    """Mean perceptual distance over epsilon^2 of two images a step apart (Karras et al. 2019, section 4.1).

    The rows are made by :class:`~evalkit.probes.path.PathProbe`, which takes these parameters; the default
    is the published ``ppl2_wend``.

    Attributes:
        space: ``w`` or ``z``.
        sampling: ``end`` (steps leave from a sampled latent) or ``full`` (from anywhere on the path).
        epsilon: length of the step, of a path of length 1.
        crop: whether the centre of a face data set is cut out.
        interpolation: path in z; None takes what fits the generator.
        lower: percentile below which a distance is discarded.
        higher: percentile above which one is.
    """

    name: ClassVar[str] = "ppl"
    title: ClassVar[str] = "Perceptual path length"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = False
    reads: ClassVar[Reads] = "paths"
    any_count: ClassVar[bool] = False
    laws: ClassVar[frozenset[str]] = frozenset({"ignores_reference", "order_invariant", "non_negative"})
    about: ClassVar[About] = About(
        meaning="How much the image changes, to the eye of a network, for a small step in latent space. A "
        "low value means that the images change smoothly and evenly; a high one that they jump, which goes "
        "with deformed images between the good ones.",
        values="0 to infinity; 0 only for a generator that ignores its latent. Published StyleGAN2 on FFHQ: "
        "145 (w, end, LPIPS-VGG16); other networks, spaces and image sizes have other scales.",
        pitfalls="Says nothing of realism or diversity: a collapsed generator has a low one. The scale is "
        "the latent space's own, so w compares only between models with alike mappings. Quantising the "
        "images before the distance, as some tools do by default, inflates it many times over. Space, "
        "sampling, crop and distance network change it: compare within one protocol.",
        cost="Two images and two passes of the distance network for each of the n paths; then a sort.",
        source="Karras, Laine & Aila 2019 (StyleGAN), section 4.1; Karras et al. 2020 (StyleGAN2), section 3",
    )

    space: str = "w"
    sampling: str = "end"
    epsilon: float = 1e-4
    crop: bool = False
    interpolation: str | None = None
    lower: float = LOWER
    higher: float = HIGHER

    def __post_init__(self) -> None:
        if self.space not in {"z", "w"} or self.sampling not in {"full", "end"}:
            raise UsageError(
                f"no path length of space {self.space!r} and sampling {self.sampling!r}",
                hint="space is z or w, sampling is full or end",
            )
        if not 0 < self.epsilon < 1:
            raise UsageError(f"epsilon of ppl lies between 0 and 1, not at {self.epsilon}")
        if not 0 <= self.lower < self.higher <= 100:
            raise UsageError(
                f"ppl keeps no distances between percentiles {self.lower} and {self.higher}",
                hint="lower and higher rise within 0 and 100",
            )

    @property
    def spec(self) -> Spec:
        """Name, path and percentiles."""
        return Spec.of(
            "metric",
            self.name,
            space=self.space,
            sampling=self.sampling,
            epsilon=self.epsilon,
            crop=self.crop,
            interpolation=self.interpolation,
            lower=self.lower,
            higher=self.higher,
        )

    @property
    def variant(self) -> str:
        """The published name of this path: ``ppl2_wend`` without crop, ``ppl_zfull`` with it."""
        return f"{'ppl' if self.crop else 'ppl2'}_{self.space}{self.sampling}"

    @property
    def head(self) -> str:
        """It reads the one column of a path probe."""
        return "distance"

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - none is used
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the mean of the distances between the percentiles; ``generated`` has one column.

        Raises:
            InvalidInputError: fewer than 2 paths, more than one column, or a distance that is negative or not
                finite.
        """
        check_count(generated.count, minimum=2, metric=self.name, what="paths")
        rows = generated.stacked()
        if rows.ndim != 2 or rows.shape[1] != 1:
            raise InvalidInputError(f"metric {self.name!r} reads one column of distances, not {rows.shape}")
        whole = path_length(rows[:, 0], lower=self.lower, higher=self.higher)
        edges, sizes = (0, *accumulate(generated.sizes)), generated.sizes
        resampled = len(sizes) > 1 and generated.count - max(sizes) >= 2
        without = (
            path_length_without_blocks(rows[:, 0], edges, lower=self.lower, higher=self.higher)
            if resampled
            else ()
        )
        details = {"median": whole.median, "discarded": float(whole.discarded)}
        return score_with_jackknife(
            Estimate(whole.mean, [part.mean for part in without], details=details),
            generated=generated,
            better=self.better,
            warnings=self._warnings(generated, rows),
        )

    def _warnings(
        self, generated: FeatureSet, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> tuple[str, ...]:
        found = []
        still = int((rows == 0).sum())
        if still:
            found.append(f"{still} of {len(rows)} paths do not change the image at all")
        if len(rows) < DISCARDS_FROM:
            found.append(
                f"small sample: of {len(rows)} paths no extremes are discarded, as the protocol wants "
                f"({DISCARDS_FROM} or more; 50 000 published)"
            )
        distinct = len(np.unique(rows))
        if len(rows) - distinct > _EQUAL_BY_CHANCE * len(rows):
            found += duplicate_warnings(generated)
        return tuple(found)
