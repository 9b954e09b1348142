"""Accuracy of the condition: whether a classifier sees in each image the class that was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.linear_classifier import LinearClassifier, load_classifier
from evalkit.metrics.per_image import score_of_mean
from evalkit.metrics.scoring import check_count, duplicate_warnings
from evalkit.numerics.logistic import true_class_rank
from evalkit.numerics.sample_mean import sample_mean
from evalkit.spec import Better, Score, Spec

_LONGEST_NAME = 100


@METRICS.register("accuracy")
@dataclass(frozen=True, slots=True)
class ClassAccuracy(Metric):
    """Share of images whose condition is among the ``k`` largest logits.

    Attributes:
        classifier: empty where the head's own logits are the classes of the condition; else the name or the
            path of a linear classifier of the head's features (see :mod:`evalkit.metrics.linear_classifier`).
        k: how many guesses the classifier has.
    """

    name: ClassVar[str] = "accuracy"
    title: ClassVar[str] = "Accuracy of the condition"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    step: ClassVar[float] = 1.0
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ignores_reference", "order_invariant", "non_negative", "at_most_one"}
    )
    about: ClassVar[About] = About(
        meaning="How often a classifier trained on real images sees in a generated image the class that it "
        "was made for. A model that ignores its condition scores by chance, 1 / classes.",
        values="0 to 1; a perfect model reaches the classifier's accuracy on real images, not 1: the bundled "
        "cifar10 classifier states it in its header. More than that means that samples are more typical of "
        "their class than real images, as strong guidance makes them.",
        pitfalls="Rewards one safe image for each class: read it beside recall. Errors of the classifier "
        "count as errors of the model. It is not the classification accuracy score of Ravuri and Vinyals, "
        "which trains a classifier on generated images.",
        cost="n x d x classes operations.",
        source="Odena et al. 2017 (AC-GAN), section 4.2",
    )

    classifier: str = ""
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"accuracy needs at least one guess, not k={self.k}")

    @property
    def spec(self) -> Spec:
        """Name and parameters; of a classifier in a file the file's name and digest, not its path."""
        chosen = self._classifier
        digest = chosen.sha256 if chosen else None
        return Spec.of("metric", self.name, sha256=digest, classifier=self._file_name, k=self.k)

    @property
    def variant(self) -> str:
        """The classifier, and the number of guesses beyond one: ``cifar10``, ``cifar10-top5``, ``top5``."""
        # A record takes identifiers only: a letter or digit first, then few other characters.
        stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", self._file_name.removesuffix(".safetensors")).lstrip("._+-")
        name = stem[:_LONGEST_NAME] or ("classifier" if self.classifier else "")
        return "-".join(filter(None, (name, f"top{self.k}" if self.k > 1 else "")))

    @property
    def head(self) -> str:
        """It reads logits, or the features that its classifier was trained on."""
        return "features" if self.classifier else "logits"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the classifier."""
        return self._classifier.classes if self._classifier else ()

    @property
    def _file_name(self) -> str:
        return self.classifier.replace("\\", "/").rpartition("/")[2]

    @property
    def _classifier(self) -> LinearClassifier | None:
        return _loaded(self.classifier) if self.classifier else None

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - the labels are the reference
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the share of images with the right class, with its standard error, and the share by class.

        Raises:
            NothingMeasuredError: the images have no labels.
            InvalidInputError: fewer than 2 images, labels that the classifier does not know, features of
                another head, or not finite.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        if generated.labels is None:
            raise NothingMeasuredError(
                f"metric {self.name!r} needs the class that each image was made for",
                hint="sample a class-conditional model, or give images in one folder for each class",
            )
        if [len(labels) for labels in generated.labels] != list(generated.sizes):
            raise InvalidInputError("labels and images are not in the same blocks")
        right = [
            (true_class_rank(self._logits(block), labels) < self.k).astype(np.float64)
            for block, labels in zip(generated.blocks, generated.labels, strict=True)
            if len(block)
        ]
        return score_of_mean(
            sample_mean(right),
            generated=generated,
            better=self.better,
            details=self._by_class(np.concatenate(right), np.concatenate(generated.labels)),
            warnings=duplicate_warnings(generated),
        )

    def _logits(self, block: NDArray[np.float32]) -> NDArray[np.generic]:
        chosen = self._classifier
        if chosen is None:
            return block
        if block.ndim != 2 or block.shape[1] != chosen.model.weight.shape[1]:
            raise InvalidInputError(
                f"classifier {self.classifier!r} reads {chosen.model.weight.shape[1]} features, not "
                f"{block.shape[-1]}",
                hint=f"it was trained on {chosen.extractor}: ask for accuracy@{chosen.head}",
            )
        return chosen.model.logits(block)

    def _by_class(self, right: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
        names = self._classifier.classes if self._classifier else ()
        return {
            f"class {names[label] if names else label}": float(right[labels == label].mean())
            for label in np.unique(labels).tolist()
        }


@lru_cache(maxsize=8)
def _loaded(name: str) -> LinearClassifier:
    return load_classifier(name)
