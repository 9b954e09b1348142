"""C_T: the three-sample data-copying test of generated, training and held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.authenticity import part_of_training
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics.data_copying import CellDistances, cell_distances
from evalkit.spec import Better, Score, Spec


@METRICS.register("ct")
@dataclass(frozen=True, slots=True)
class DataCopying(Metric):
    """Data-copying statistic C_T (Meehan, Chaudhuri & Dasgupta 2020); the reference is the training set.

    Attributes:
        cells: cells that k-means of the training features cuts space into.
        components: principal components that distances are taken in.
        more_than: a cell takes part if it holds more generated images than this.
    """

    name: ClassVar[str] = "ct"
    title: ClassVar[str] = "C_T"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    needs_held_out: ClassVar[bool] = True
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="Whether generated images lie closer to the training images than held-out real images do, "
        "as a z score. Clearly negative: training images were copied. Clearly positive: samples lie "
        "farther out than real images, so the model underfits.",
        values="Any real number; 0, give or take one, for a perfect model. Higher is better up to 0: above "
        "it a higher value is no merit. Below -3 copying is all but certain.",
        pitfalls="It grows with the square root of the number of images, and compares only at equal "
        "numbers of all three sets. It measures copying alone: noise scores high. Cells with 20 generated "
        "images or fewer are left out, so that dropped modes go unpunished. k-means is seeded: another "
        "seed moves it a little.",
        cost="m d^2 for the principal components, then n m 64 multiplications for n generated and m "
        "training images.",
        source="Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), sections 4.1-4.2; 64 components, 3 "
        "cells and tau = 20 / n as in dgm-eval and the fld package",
    )
    laws: ClassVar[frozenset[str]] = frozenset({"needs_reference", "order_invariant", "detects_copies"})

    cells: int = 3
    components: int = 64
    more_than: int = 20

    def __post_init__(self) -> None:
        if self.cells < 1 or self.components < 1 or self.more_than < 0:
            raise UsageError(
                f"ct has no {self.cells} cells of {self.components} components with more than "
                f"{self.more_than} images",
                hint="cells and components are at least 1, more_than at least 0",
            )

    @property
    def spec(self) -> Spec:
        """Name, partition and the size of a cell that takes part."""
        return Spec.of(
            "metric", self.name, cells=self.cells, components=self.components, more_than=self.more_than
        )

    @property
    def minimum_images(self) -> int:
        """So many that one cell takes part wherever they lie."""
        return self.cells * self.more_than + 1

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return C_T of ``generated``; partition and training distances are the same without a block.

        Raises:
            NothingMeasuredError: there is no reference, it holds moments only, or there is no held-out one.
            InvalidInputError: too few images, features that are not finite, or a cell without held-out
                images.
        """
        training = required(reference, self.name)
        held_out = training.held_out.bank
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        for bank, what in ((training.bank, "training images"), (held_out, "held-out images")):
            check_count(len(bank), minimum=self.cells, metric=self.name, what=what)
        distances = cell_distances(
            generated.stacked(),
            training.bank,
            held_out,
            cells=self.cells,
            components=self.components,
            rng=rng,
        )
        value = distances.statistic(more_than=self.more_than)
        if value is None:  # impossible from minimum_images on
            raise InvalidInputError(f"no cell holds more than {self.more_than} generated images")
        z_scores = distances.z_scores()
        return score_with_jackknife(
            Estimate(
                value,
                self._without_blocks(distances, generated.sizes),
                details={f"z_cell_{cell}": float(z) for cell, z in enumerate(z_scores) if np.isfinite(z)},
            ),
            generated=generated,
            better=self.better,
            n_reference=len(training.bank),
            warnings=self._warnings(distances) + part_of_training(training) + duplicate_warnings(generated),
        )

    def _without_blocks(self, distances: CellDistances, sizes: Sequence[int]) -> Sequence[float]:
        """C_T without each block; nothing where one would leave no cell with enough images."""
        if len(sizes) < 2:
            return ()
        block_of = np.repeat(np.arange(len(sizes)), sizes)
        values = [
            distances.statistic(more_than=self.more_than, kept=block_of != block)
            for block in range(len(sizes))
        ]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else ()

    def _warnings(self, distances: CellDistances) -> tuple[str, ...]:
        counts = np.bincount(distances.generated_cell, minlength=self.cells)
        left_out = int((counts <= self.more_than).sum())
        if not left_out:
            return ()
        return (
            f"{left_out} of {self.cells} cells hold {self.more_than} generated images or fewer: left out",
        )
