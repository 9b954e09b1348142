"""What a run reads from the rows of its pairs: a score, and a column of the table of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core import FeatureSet, Metric
from evalkit.extraction import Extracted
from evalkit.pairs.probe import head_name
from evalkit.record import MetricResult
from evalkit.seeding import stream
from evalkit.spec import Spec

_UNITS = {"psnr": "dB"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reading:
    """One head of rows, and the metric that makes a score of it.

    Attributes:
        label: the printed name, without the region: ``ssim``, ``lpips:alex``.
        region: ``whole``, ``inside`` or ``outside``.
        head: of the probe's rows.
        metric: averages the rows.
        measure: what made the rows.
        prompts_sha256: digest of the captions that rows were made with, where they were.
        warnings: added to those of the score.
    """

    label: str
    region: str
    head: str
    metric: Metric
    measure: Spec
    prompts_sha256: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Heading of its column in the table of pairs: ``ssim``, ``lpips:alex/inside``."""
        return head_name(self.label, self.region)

    def column(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of each pair, float32 ``[n]``, from its rows; NaN where it has none."""
        if rows.shape[1] == 1:
            return rows[:, 0]
        # Rows of several columns say in the second whether the first is defined.
        return np.where(rows[:, 1] > 0, rows[:, 0], np.float32(np.nan))

    def result(self, rows: FeatureSet) -> MetricResult:
        """Return the score of rows in blocks.

        Raises:
            NothingMeasuredError: no row has a finite value.
            InvalidInputError: too few rows, or values that cannot be.
        """
        rng = np.random.Generator(np.random.Philox(stream(0, "metric").integers(2**63)))
        score = self.metric.compute(rows, None, rng=rng)
        score = replace(score, warnings=(*score.warnings, *self.warnings))
        unit = _UNITS.get(self.metric.name, "")
        return MetricResult.from_score(score, metric=self.label, variant=self.region, unit=unit)

    def to_json(self) -> dict[str, Any]:
        """Return its part of the protocol's fields."""
        fields = {**self.metric.spec.to_json(), "head": self.head, "measure": self.measure.to_json()}
        return fields if self.prompts_sha256 is None else {**fields, "prompts_sha256": self.prompts_sha256}


def by_head(lanes: Sequence[Extracted]) -> Mapping[str, Extracted]:
    """Return which lane holds the rows of each head."""
    return {head: lane for lane in lanes for shard in lane.shards[:1] for head in shard.features}
