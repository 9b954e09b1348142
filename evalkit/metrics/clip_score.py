"""CLIP score: how well each image fits its own prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final, Literal

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.per_image import score_of_mean
from evalkit.metrics.scoring import check_count, duplicate_warnings
from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.cosine import cosine_rows
from evalkit.numerics.sample_mean import sample_mean
from evalkit.registry import did_you_mean
from evalkit.spec import Better, Scalar, Score, Spec

Clamp = Literal["each", "mean", "none"]

CONVENTIONS: Final[Mapping[str, Mapping[str, Scalar]]] = MappingProxyType(
    {
        # Hessel et al. 2021, eq. 1, and the prefix of section 3; with ViT-B/32.
        "hessel": {"scale": 2.5, "clamp": "each", "prefix": "A photo depicts "},
        # torchmetrics 1.9: the mean, not the single cosine, is cut at 0; with ViT-L/14 unless told otherwise.
        "torchmetrics": {"scale": 100.0, "clamp": "mean", "prefix": ""},
        # "CLIP-T" and "CLIP similarity" of papers on editing and personalisation.
        "clip-t": {"scale": 1.0, "clamp": "none", "prefix": ""},
    }
)
"""Published conventions by name: the parameters of :class:`ClipScore`."""


@METRICS.register("clip-score")
@dataclass(frozen=True, slots=True)
class ClipScore(Metric):
    """Mean over images of ``scale * cos(image, prompt)``; the defaults are those of Hessel et al. 2021.

    Attributes:
        scale: what the cosine is multiplied by.
        clamp: ``each`` cuts negative cosines to 0, ``mean`` only a negative mean, ``none`` nothing.
        prefix: text put before every prompt when the prompts are encoded (by whoever fills ``texts``).
    """

    name: ClassVar[str] = "clip-score"
    title: ClassVar[str] = "CLIP score"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]] = frozenset({"ignores_reference", "order_invariant"})
    about: ClassVar[About] = About(
        meaning="How well each image fits the text that it was made from, judged by CLIP: the cosine between "
        "the embeddings of image and prompt, averaged. It says nothing of realism or variety.",
        values="0 to 2.5 (hessel), 0 to 100 (torchmetrics) or -1 to 1 (clip-t); in practice the cosine of "
        "real photographs with their captions is about 0.25 to 0.35, and no model comes near 1.",
        pitfalls="Never compare across CLIP networks, prefixes or scales. Prompts beyond 77 tokens are cut. "
        "CLIP reads text in images, so writing the prompt on the image scores high; it counts badly and "
        "ignores word order. Models trained against CLIP are flattered.",
        cost="One text embedding for each different prompt and n d operations.",
        source="Hessel et al. 2021, eq. 1",
    )

    scale: float = 2.5
    clamp: Clamp = "each"
    prefix: str = "A photo depicts "

    def __post_init__(self) -> None:
        if self.clamp not in {"each", "mean", "none"}:
            raise UsageError(
                f"clip-score cannot clamp {self.clamp!r}",
                hint=did_you_mean(self.clamp, ["each", "mean", "none"]),
            )
        if not 0 < self.scale < float("inf"):
            raise UsageError(f"the scale of clip-score must be a positive number, not {self.scale}")

    @property
    def spec(self) -> Spec:
        """Name and parameters."""
        return Spec.of("metric", self.name, scale=self.scale, clamp=self.clamp, prefix=self.prefix)

    @property
    def convention(self) -> str:
        """The published convention that its parameters are, or ``custom``."""
        own = dict(self.spec.params)
        return next((name for name, params in CONVENTIONS.items() if own == params), "custom")

    @property
    def head(self) -> str:
        """It reads features of a network that also encodes text."""
        return "features"

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - the prompts are the reference
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the mean over images, with the standard error of the mean.

        Raises:
            NothingMeasuredError: the images have no prompts.
            InvalidInputError: fewer than 2 images, features that do not pair up or are not finite, or an
                embedding of length zero.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        cosines = self._cosines(generated)
        kept = [np.maximum(block, 0.0) if self.clamp == "each" else block for block in cosines]
        mean = sample_mean([self.scale * block for block in kept])
        if self.clamp == "mean":
            cut = tuple(max(value, 0.0) for value in mean.without)
            mean = replace(mean, value=max(mean.value, 0.0), without=cut)
        details = {
            "cosine": float(np.concatenate(cosines).mean()),
            "negative_cosines": sum(int((block < 0).sum()) for block in cosines),
        }
        return score_of_mean(
            mean,
            generated=generated,
            better=self.better,
            details=details,
            warnings=duplicate_warnings(generated),
        )

    def _cosines(self, generated: FeatureSet) -> list[Float64Array]:
        if generated.texts is None:
            raise NothingMeasuredError(
                f"metric {self.name!r} needs the features of each image's prompt",
                hint="--prompts FILE, one line an image, with a network that encodes text (clip-vit-b-32)",
            )
        if len(generated.texts) != len(generated.blocks):
            raise InvalidInputError("prompts and images are not in the same blocks")
        cosines = [
            cosine_rows(images, texts)
            for images, texts in zip(generated.blocks, generated.texts, strict=True)
        ]
        undefined = sum(int(np.isnan(block).sum()) for block in cosines)
        if undefined:
            raise InvalidInputError(
                f"{undefined} of {generated.count} embeddings are zero and have no direction",
                hint="are the weights of the network whole?",
            )
        return cosines
