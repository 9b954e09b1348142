"""Rows of numbers for pairs: every measure on every region, from one reading of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError
from evalkit.pairs.ahead import parts_of, read_ahead
from evalkit.pairs.sources import PairBatch, PairSource
from evalkit.probes.directional import IMAGE_SIZE
from evalkit.spec import Spec, sha256_of

if TYPE_CHECKING:
    from evalkit.perceptual import PairMeasure


def head_name(value: str, region: str) -> str:
    """Return the head of a measure's value in a region: ``ssim`` for whole images, ``ssim/inside``."""
    return value if region == "whole" else f"{value}/{region}"


@final
class PairProbe:
    """Index -> one row for each measure and region; a :class:`~evalkit.core.Probe`.

    A region without any pixel that the measure reads gives NaN; PSNR of equal pixels is infinite. Nothing
    else may be non-finite.
    """

    def __init__(
        self,
        pairs: PairSource,
        measures: Sequence[PairMeasure],
        *,
        regions: Sequence[str],
        device: torch.device,
    ) -> None:
        self._pairs = pairs
        self._measures = tuple(measures)
        self._regions = tuple(regions)
        self._device = device

    @property
    def spec(self) -> Spec:
        """The digest of the pairs (both sides' content, masks, matching), the measures and the regions."""
        parts = {
            "pairs": self._pairs.spec.to_json(),
            "measures": [measure.spec.to_json() for measure in self._measures],
            "regions": list(self._regions),
        }
        return Spec.of("probe", "pairs", sha256=sha256_of(parts))

    @property
    def heads(self) -> Mapping[str, int]:
        """A column for each measure and region, and two for the size of the images."""
        columns = {
            head_name(name, region): 1
            for measure in self._measures
            for name in measure.names
            for region in self._regions
        }
        return {**columns, IMAGE_SIZE: 2}

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 rows for int64 ``index`` ``[n]``.

        Raises:
            InvalidInputError: an image cannot be used, the two of a pair differ in size, or a measure
                fails on a pair.
        """
        rows = {head: np.empty((len(index), self.heads[head]), dtype=np.float32) for head in heads}
        parts = parts_of(index, self._pairs, device=self._device)
        start = 0
        for part, batch in zip(parts, read_ahead(self._pairs, parts), strict=True):
            self._add({head: rows[head][start : start + len(part)] for head in heads}, batch)
            start += len(part)
        return rows

    def _add(self, rows: Mapping[str, NDArray[np.float32]], batch: PairBatch) -> None:
        """Write the rows of a batch."""
        for positions, generated, reference, masks in batch.same_size_groups():
            regions = self._masks(masks)
            index = batch.index[positions]
            values = self._measured(generated, reference, regions, first=int(index[0]))
            for head, row in rows.items():
                if head == IMAGE_SIZE:
                    row[positions] = reference.shape[2:]
                    continue
                column = values[head].detach().float().cpu()
                self._check(column, head=head, index=index)
                row[positions, 0] = column.numpy()

    def _masks(self, masks: Tensor | None) -> dict[str, Tensor]:
        if masks is None:
            return {}
        both = {"inside": masks, "outside": ~masks}
        return {region: mask.to(self._device) for region, mask in both.items() if region in self._regions}

    def _measured(
        self, generated: Tensor, reference: Tensor, regions: Mapping[str, Tensor], *, first: int
    ) -> dict[str, Tensor]:
        ours, theirs = generated.to(self._device), reference.to(self._device)
        values: dict[str, Tensor] = {}
        for measure in self._measures:
            try:
                values.update(measure(ours, theirs, masks=regions))
            except InvalidInputError as error:
                name = self._pairs.names(first)[0]
                raise InvalidInputError(f"{name!r}: {error.message}", hint=error.hint) from error
        return values

    def _check(self, column: Tensor, *, head: str, index: IndexArray) -> None:
        """Refuse NaN but of a region, and infinities but of the PSNR of equal pixels."""
        wrong = torch.isnan(column) if "/" not in head else torch.zeros_like(column, dtype=torch.bool)
        if not head.startswith("psnr"):
            wrong |= torch.isinf(column)
        if bool(wrong.any()):
            pair = int(index[int(wrong.nonzero()[0, 0])])
            raise InvalidInputError(
                f"{head!r} of {self._pairs.names(pair)[0]!r} is not a finite number",
                hint="are the weights of its network whole?",
            )
