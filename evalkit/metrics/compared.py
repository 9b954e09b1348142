"""Metrics that read one pass over generated x reference distances: precision to authenticity."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evalkit.core import FeatureSet, ReferenceFeatures
from evalkit.errors import InvalidInputError
from evalkit.metrics.scoring import check_count, duplicate_warnings, required
from evalkit.metrics.shared import SharedMetric
from evalkit.numerics.comparison import Compared, compare
from evalkit.numerics.manifolds import Balls


@dataclass(frozen=True, slots=True)
class Asked:
    """What a metric reads of the pass: kinds of balls, neighbours of realism scores, authentic rows."""

    balls: tuple[Balls, ...] = ()
    realism: tuple[int, ...] = ()
    authentic: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What the pass gave, and what the scores need to know of its inputs."""

    found: Compared
    generated: FeatureSet
    reference: ReferenceFeatures
    warnings: tuple[str, ...]

    @property
    def n_reference(self) -> int:
        """Number of reference images."""
        return len(self.reference.bank)


class ComparedMetric(SharedMetric[Comparison]):
    """One view of the pass."""

    reference_images: ClassVar[str] = "reference images"

    @property
    @abstractmethod
    def asked(self) -> Asked:
        """What it reads of the pass."""

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    @property
    def computation(self) -> tuple[object, ...]:
        """What it reads of the pass."""
        return ("neighbours", self.asked)

    def check(self, generated: FeatureSet, reference: ReferenceFeatures | None) -> ReferenceFeatures:
        """Return the reference.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: too few images on a side.
        """
        real = required(reference, self.name)
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        check_count(len(real.bank), minimum=self.minimum_images, metric=self.name, what=self.reference_images)
        return real

    def measure(self, generated: FeatureSet, reference: ReferenceFeatures | None) -> Comparison:
        """Compare every generated image with every reference image.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: too few images on a side, or features that are not finite.
        """
        return self._pass([self], generated, self.check(generated, reference))

    def measure_together(
        self,
        others: Sequence[SharedMetric[Any]],
        generated: FeatureSet,
        reference: ReferenceFeatures | None,
    ) -> Mapping[tuple[object, ...], Comparison]:
        """Compare once for this metric and for those of ``others`` that read it and have images enough."""
        real = self.check(generated, reference)
        family: dict[tuple[object, ...], ComparedMetric] = {self.computation: self}
        for other in others:
            if isinstance(other, ComparedMetric):
                try:
                    other.check(generated, reference)
                except InvalidInputError:
                    continue  # its own turn tells
                family.setdefault(other.computation, other)
        return dict.fromkeys(family, self._pass(list(family.values()), generated, real))

    @staticmethod
    def _pass(
        family: Sequence[ComparedMetric], generated: FeatureSet, reference: ReferenceFeatures
    ) -> Comparison:
        asked = [metric.asked for metric in family]
        found = compare(
            generated.in_memory(),
            reference.bank,
            balls=[balls for each in asked for balls in each.balls],
            realism=list(dict.fromkeys(k for each in asked for k in each.realism)),
            authentic=any(each.authentic for each in asked),
        )
        return Comparison(found, generated, reference, duplicate_warnings(generated))
