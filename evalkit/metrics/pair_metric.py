"""The frame of every metric of image pairs: the mean over pairs, with the standard error of the mean.

What such a metric reads is made by the measures of :mod:`evalkit.perceptual`: one float32 column of values,
a row a pair; ``head`` is the measure's name, and ``/region`` where the values are of a masked region.

Accepted trade-offs: a pair of equal images has an infinite PSNR. Its mean leaves such pairs out, counts
them in ``details["identical_pairs"]`` and warns, because a record holds finite numbers only and any cap in
their place would set the mean.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core import FeatureSet, Metric, Reads, ReferenceFeatures
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics.scoring import check_count
from evalkit.numerics.sample_mean import sample_mean
from evalkit.spec import Better, Interval, Scalar, Score, Spec


class PairMetric(Metric):
    """The mean of a pair measure over pairs, with the standard error of the mean.

    A subclass holds ``region``, a mask's name or None for whole images.
    """

    needs_reference: ClassVar[bool] = False  # every row already compares with its own reference image
    reads: ClassVar[Reads] = "pairs"
    any_count: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]] = frozenset({"ignores_reference", "order_invariant"})
    unbounded: ClassVar[bool] = False
    """Whether equal images give an infinite value."""

    region: str | None

    @property
    @abstractmethod
    def measure(self) -> str:
        """Name of the pair measure that it averages."""

    @property
    def parameters(self) -> dict[str, Scalar]:
        """What chooses the measure."""
        return {}

    @property
    def spec(self) -> Spec:
        """Name, region and what chooses the measure; the measure's own spec says the rest."""
        return Spec.of("metric", self.name, sha256=None, region=self.region, **self.parameters)

    @property
    def head(self) -> str:
        """The measure's name, with ``/region`` for a region."""
        return self.measure if self.region is None else f"{self.measure}/{self.region}"

    @property
    def minimum_images(self) -> int:
        """One pair; it has no error bar."""
        return 1

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - the rows hold both sides
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the mean over pairs.

        Raises:
            InvalidInputError: no pairs, rows of more than one column, or values that cannot be.
            NothingMeasuredError: no pair has a finite value: all are identical, or the region is empty.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name, what="pairs")
        columns = [self._column(block) for block in generated.blocks]
        identical = sum(int(np.isposinf(column).sum()) for column in columns)
        empty = sum(int(np.isnan(column).sum()) for column in columns)
        finite = [column[np.isfinite(column)] for column in columns]
        if identical + empty == generated.count:
            raise NothingMeasuredError(
                f"metric {self.head!r} has no finite value: {identical} of {generated.count} pairs are "
                f"identical, {empty} have no pixel in the region",
                hint="are the two sides the same files? other metrics tell, such as ssim = 1",
            )
        mean = sample_mean(finite)
        details: dict[str, float] = {} if mean.std is None else {"std": mean.std}
        if self.unbounded:
            details["identical_pairs"] = identical
        if self.region is not None:
            details["pairs_without_region"] = empty
        return Score(
            value=mean.value,
            better=self.better,
            n=generated.count,
            stderr=mean.stderr,
            ci=None if mean.stderr is None else Interval(mean.low, mean.high, mean.level, method="mean-t"),
            blocks=mean.without,
            block_sizes=generated.sizes if mean.without else (),
            warnings=_warnings(identical, empty, generated.count),
            details=details,
        )

    def _column(self, block: NDArray[np.float32]) -> NDArray[np.float64]:
        if block.ndim != 2 or block.shape[1] != 1:
            raise InvalidInputError(f"metric {self.name!r} reads [n, 1] values, not {list(block.shape)}")
        column = block[:, 0].astype(np.float64)
        impossible = np.isneginf(column) | (np.isposinf(column) & (not self.unbounded))
        if self.region is None:
            impossible |= np.isnan(column)
        if impossible.any():
            raise InvalidInputError(
                f"metric {self.name!r} got NaN or infinity for {int(impossible.sum())} pairs",
                hint="look for corrupt images or a network with broken weights",
            )
        return column


class ChannelPairMetric(PairMetric):
    """A pair metric of all channels or of luma alone; a subclass holds ``channels``."""

    channels: str

    @property
    def measure(self) -> str:
        """The name, with ``-y`` for luma.

        Raises:
            UsageError: channels that there are not.
        """
        if self.channels not in ("rgb", "y"):
            raise UsageError(f"channels of {self.name!r} are 'rgb' or 'y', not {self.channels!r}")
        return self.name if self.channels == "rgb" else f"{self.name}-{self.channels}"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The channels."""
        return {"channels": self.channels}


class NetworkPairMetric(PairMetric):
    """A pair metric whose measure reads a network; a subclass holds ``network``."""

    better: ClassVar[Better] = "lower"

    network: str

    @property
    def measure(self) -> str:
        """Name and network, such as ``lpips-alex``."""
        return f"{self.name}-{self.network}"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The network."""
        return {"network": self.network}


def _warnings(identical: int, empty: int, count: int) -> tuple[str, ...]:
    found = []
    if identical:
        found.append(f"{identical} of {count} pairs are identical; the mean leaves out their infinite value")
    if empty:
        found.append(f"{empty} of {count} pairs have no pixel in the region and are left out")
    return tuple(found)
