"""Linear separability: whether attributes of the image are directions of the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core import About, FeatureSet, Metric, Reads, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import (
    Estimate,
    bound_warnings,
    check_count,
    duplicate_warnings,
    score_with_jackknife,
)
from evalkit.numerics import jackknife
from evalkit.numerics.separability import (
    Separability,
    fewest_kept,
    half_sample_variance,
    separability_by_blocks,
)
from evalkit.spec import Better, Score, Spec

# Labels that have nothing to do with the latent seem separable while the rows are few: at this many rows
# kept for each dimension, less than a tenth of the entropy of a fair coin is lost to over-fitting.
COMFORTABLE = 10


@METRICS.register("separability")
@dataclass(frozen=True, slots=True)
class LinearSeparability(Metric):
    """``exp(sum over attributes of H(attribute | linear SVM))`` (Karras et al. 2019, section 4.2).

    The rows are made by :class:`~evalkit.probes.separability.SeparabilityProbe`: the latent, and in the
    last ``attributes`` columns the logits of the attributes.

    The entropies come from counts, which are not smooth in the rows: a jackknife of 20 blocks is 1.2 to 1.6
    times the spread of repeated runs. The error bar is that of balanced halves of the images, 0.97 to 1.1
    times the spread (:func:`~evalkit.numerics.separability.half_sample_variance`), and the jackknife's where
    half of the images are too few. The blocks are the values without each block, as everywhere.

    Attributes:
        space: ``w`` or ``z``; the head that it reads.
        attributes: number of logit columns.
        keep: share of the images that each attribute keeps, those of which its classifier is surest.
        c: weight of the SVM's loss.
    """

    name: ClassVar[str] = "separability"
    title: ClassVar[str] = "Linear separability"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = False
    reads: ClassVar[Reads] = "latents"
    any_count: ClassVar[bool] = False
    laws: ClassVar[frozenset[str]] = frozenset({"ignores_reference", "order_invariant", "at_least_one"})
    about: ClassVar[About] = About(
        meaning="How much is left to know of an image's attributes after a straight cut through the latent "
        "space has predicted them. Near 1, each attribute is a direction that can be turned on its own; a "
        "high value says that the attributes are tangled.",
        values="1 (each attribute is cut off exactly) to 2^k for k attributes of equal halves. Published "
        "StyleGAN on FFHQ, 40 attributes: 3.74 in w, 165 in z, at 200 000 images.",
        pitfalls="Depends on the attributes and their classifiers as much as on the model: compare with the "
        "same ones only. Biased low while images are few for the latent's dimensions. A rare attribute "
        "adds next to nothing, one that never varies adds nothing at all. Where the cut errs on fewer than "
        "ten images, a score next to 1, the interval is too short, and of no length where it errs on none: "
        "a warning says so.",
        cost="One SVM for each attribute: about ten passes over n x d and one product n d^2 / 2; a few more "
        "passes for each block of the error bar, and for each of its 38 halves.",
        source="Karras, Laine & Aila 2019 (StyleGAN), section 4.2 and appendix C",
    )

    space: str = "w"
    attributes: int = 1
    keep: float = 0.5
    c: float = 1.0

    def __post_init__(self) -> None:
        if self.space not in {"z", "w"} or self.attributes < 1:
            raise UsageError(
                f"no separability of {self.attributes} attributes in space {self.space!r}",
                hint="space is z or w; there must be an attribute",
            )
        if not 0 < self.keep <= 1:
            raise UsageError(f"keep of separability lies above 0 and up to 1, not at {self.keep}")
        if not 0 < self.c < np.inf:
            raise UsageError(f"c of separability must be a positive number, not {self.c}")

    @property
    def spec(self) -> Spec:
        """Name and parameters."""
        return Spec.of(
            "metric",
            self.name,
            space=self.space,
            attributes=self.attributes,
            keep=self.keep,
            c=self.c,
        )

    @property
    def minimum_images(self) -> int:
        """What one latent dimension needs; more are needed where there are more."""
        return int(np.ceil(fewest_kept(1) / self.keep))

    @property
    def head(self) -> str:
        """It reads the rows of its space."""
        return self.space

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - none is used
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the score of rows ``[latent, logits]``.

        Raises:
            InvalidInputError: too few images for the latent's dimensions, rows without a latent, values that
                are not finite, or attributes of which none varies.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        rows = generated.stacked()
        if rows.ndim != 2 or rows.shape[1] <= self.attributes:
            raise InvalidInputError(
                f"metric {self.name!r} reads a latent and {self.attributes} logits, not {rows.shape}"
            )
        whole, without = separability_by_blocks(
            rows[:, : -self.attributes],
            rows[:, -self.attributes :],
            edges=(0, *accumulate(generated.sizes)),
            keep=self.keep,
            c=self.c,
        )
        if len(whole.constant) == self.attributes:
            raise InvalidInputError(
                "no attribute varies over these images, so there is nothing to separate",
                hint="are the classifiers of this kind of image?",
            )
        values = [part.score for part in without]
        entropies = {f"entropy_{i}": float(value) for i, value in enumerate(whole.entropies)}
        return score_with_jackknife(
            Estimate(
                whole.score,
                values,
                share=self._share(whole.score, values, rows, generated.sizes),
                details=entropies | {"kept": whole.kept},
            ),
            generated=generated,
            better=self.better,
            warnings=self._warnings(whole, rows.shape[1] - self.attributes) + duplicate_warnings(generated),
        )

    def _share(
        self, value: float, without: Sequence[float], rows: NDArray[np.float32], sizes: Sequence[int]
    ) -> float:
        """Variance by balanced halves over that of the jackknife; 1 where one of them is nothing."""
        if not without:
            return 1.0
        left_out = jackknife(value, without, sizes=sizes).stderr ** 2
        relative = half_sample_variance(
            rows[:, : -self.attributes], rows[:, -self.attributes :], keep=self.keep, c=self.c
        )
        return value**2 * relative / left_out if relative and left_out else 1.0

    def _warnings(self, whole: Separability, dimension: int) -> tuple[str, ...]:
        found = []
        if whole.constant:
            names = ", ".join(str(i) for i in whole.constant)
            found.append(f"attributes that never vary among the images kept, and add nothing: {names}")
        if whole.kept < COMFORTABLE * (dimension + 1):
            found.append(
                f"small sample: {whole.kept} images kept for {dimension} latent dimensions; chance cuts look "
                "like knowledge, and the score is too low"
            )
        return (*found, *bound_warnings(whole.wrong, "images on the wrong side of the cut"))
