"""CLIP directional similarity: whether an edit changed the image as the captions say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from evalkit.core import About, FeatureSet, Metric, Reads, ReferenceFeatures
from evalkit.errors import InvalidInputError
from evalkit.metrics import METRICS
from evalkit.metrics.per_image import score_of_mean
from evalkit.metrics.scoring import check_count
from evalkit.numerics.arrays import checked_features
from evalkit.numerics.sample_mean import sample_mean
from evalkit.spec import Better, Score, Spec

COLUMNS: Final = ("direction", "defined", "image_similarity", "text_similarity")
"""Columns of a row: the cosine of the two changes (0 where undefined), 1 where it is defined, the cosine of
the images before and after, and the cosine of the edited image with its caption."""


@METRICS.register("clip-directional")
@dataclass(frozen=True, slots=True)
class ClipDirectional(Metric):
    """Mean over edits of ``cos(change of the image, change of the caption)`` in CLIP's space.

    The rows are made by :class:`~evalkit.probes.directional.DirectionalProbe`; see :data:`COLUMNS`.
    """

    name: ClassVar[str] = "clip-directional"
    title: ClassVar[str] = "CLIP directional similarity"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = True
    reads: ClassVar[Reads] = "pairs"
    any_count: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]] = frozenset({"ignores_reference", "order_invariant", "at_most_one"})
    about: ClassVar[About] = About(
        meaning="Whether an edit moved the image, in CLIP's space, the way in which the captions before and "
        "after it differ. Read it beside image_similarity in the details: a strong edit that ignores the "
        "source can score well here and keep nothing of the image.",
        values="-1 to 1, 1 where both changes point the same way; published editing models reach 0.1 to 0.3",
        pitfalls="Undefined where image or caption did not change; such edits are left out and counted. Tiny "
        "changes have noisy directions. Depends on the CLIP network and on how captions are worded.",
        cost="Two image and two text embeddings for each edit.",
        source="Gal et al. 2021 (StyleGAN-NADA), eq. 2; Brooks et al. 2023 (InstructPix2Pix), section 4.1",
    )

    @property
    def spec(self) -> Spec:
        """Name; there are no parameters."""
        return Spec.of("metric", self.name)

    @property
    def head(self) -> str:
        """The probe's head of the same name."""
        return self.name

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - a row holds everything
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the mean over the edits whose direction is defined, with the standard error of the mean.

        Raises:
            InvalidInputError: fewer than 2 edits have a direction, rows of other columns, or not finite.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name, what="edits")
        rows = [checked_features(block, "rows", minimum=0) for block in generated.blocks]
        if any(block.shape[1] != len(COLUMNS) for block in rows):
            raise InvalidInputError(f"metric {self.name!r} reads rows of {', '.join(COLUMNS)}")
        kept = [block[block[:, 1] > 0, 0] for block in rows]
        defined = sum(len(block) for block in kept)
        what = "edits that changed image and caption"
        check_count(defined, minimum=self.minimum_images, metric=self.name, what=what)
        similarities = np.concatenate(rows)[:, 2:].astype(np.float64).mean(axis=0)
        left_out = generated.count - defined
        told = f"{left_out} of {generated.count} edits did not change image or caption and are left out"
        return score_of_mean(
            sample_mean(kept),
            generated=generated,
            better=self.better,
            details={
                "undefined": left_out,
                "image_similarity": float(similarities[0]),
                "text_similarity": float(similarities[1]),
            },
            warnings=(told,) if left_out else (),
        )
