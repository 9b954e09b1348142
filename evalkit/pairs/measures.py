"""Which measures a run takes, how each is named in results, and which metric averages its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evalkit.asset_catalogue import ASSETS
from evalkit.assets import cached
from evalkit.core import Metric
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.pairs.edits import METRIC, edit_network, is_of_edits
from evalkit.pairs.probe import head_name
from evalkit.pairs.readings import Reading
from evalkit.perceptual import PAIR_MEASURES, PairMeasure, PairMeasureFacts, build_pair_measures
from evalkit.registry import did_you_mean

DEFAULTS = ("psnr", "ssim", "ms-ssim", "lpips-alex", "pd-efficientnet-lite0", "style-efficientnet-lite0")
"""What is measured unless told otherwise: of these, those that need no download and fit the images."""

_SHORT = {"lpips": "lpips-alex", "pd": "pd-efficientnet-lite0", "style": "style-efficientnet-lite0"}


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One column of values: the registered name of the measure that makes it, and that measure."""

    facts: PairMeasureFacts
    measure: PairMeasure

    @property
    def name(self) -> str:
        """The measure's name, which is that of its column."""
        return self.facts.name

    @property
    def variant(self) -> str:
        """What follows the metric's name: ``alex``, ``efficientnet-lite0``, ``y``; empty for none."""
        return self.name.removeprefix(self.facts.metric).removeprefix("-")

    @property
    def label(self) -> str:
        """The printed name: ``ssim``, ``lpips:alex``, ``lpips:alex@1a2b3c4d`` for other weights."""
        if not self.variant:
            return self.facts.metric
        published = getattr(self.measure, "published", True)
        digest = self.measure.spec.sha256 or self.measure.spec.digest()
        return f"{self.facts.metric}:{self.variant}" + ("" if published else f"@{digest[:8]}")

    def reading(self, region: str) -> Reading:
        """Return what is read of ``region``."""
        return Reading(
            label=self.label,
            region=region,
            head=head_name(self.name, region),
            metric=self.metric(region),
            measure=self.measure.spec,
        )

    def metric(self, region: str) -> Metric:
        """Return the metric that averages the values of ``region``."""
        params: dict[str, str | None] = {"region": None if region == "whole" else region}
        if self.variant:
            params["network" if self.facts.network else "channels"] = self.variant
        return METRICS[self.facts.metric](**params)


def choose_measures(
    asked: Sequence[str], *, smallest_side: int, weights: Mapping[str, Path], notify: Callable[[str], None]
) -> tuple[PairMeasureFacts, ...]:
    """Return the measures of a run: those asked for, or of the default those that this machine can take.

    Args:
        asked: names such as ``psnr``, ``lpips`` or ``lpips:vgg``; empty for the default. Those of edits are
            left to :mod:`evalkit.pairs.edits`.
        smallest_side: of the first image, in pixels.
        weights: weights files by measure (``lpips-alex``) or network (``alexnet``).
        notify: told what was left out of the default, and why.

    Raises:
        UsageError: an unknown measure, or weights that none of them reads.
        InvalidInputError: the first image is too small for a measure that was asked for.
    """
    chosen = tuple(dict.fromkeys(_find(name) for name in asked if not is_of_edits(name)))
    for facts in chosen:
        if smallest_side < facts.minimum_size:
            raise InvalidInputError(_too_small(facts, smallest_side))
    if not asked:
        chosen = tuple(
            facts
            for facts in map(PAIR_MEASURES.__getitem__, DEFAULTS)
            if _is_at_hand(facts, weights, notify) and _fits(facts, smallest_side, notify)
        )
    used = {name for facts in chosen for name in (facts.name, facts.network) if name and facts.network}
    if (network := edit_network(asked)) is not None:
        used.add(network)
    for name, path in weights.items():
        if not path.is_file():
            raise UsageError(f"--weights {name}={path}: there is no such file")
        if name not in used:
            raise UsageError(
                f"--weights {name}=… is not used",
                hint=did_you_mean(name, used) if used else "none of the measures has weights",
            )
    return chosen


def build_values(
    chosen: Sequence[PairMeasureFacts], *, weights: Mapping[str, Path], device: torch.device
) -> tuple[Value, ...]:
    """Build the measures.

    Raises:
        CheckpointError: a weights file does not fit.
        OfflineError: published weights are not on this machine and cannot be fetched; says how to get them.
    """
    measures = build_pair_measures([facts.name for facts in chosen], weights=weights, device=str(device))
    return tuple(Value(facts, measure) for facts, measure in zip(chosen, measures, strict=True))


def check_names(asked: Sequence[str]) -> None:
    """Raise UsageError where one of ``asked`` is no measure, with the name that may be meant."""
    edit_network(asked)
    for name in asked:
        if not is_of_edits(name):
            _find(name)


def _find(name: str) -> PairMeasureFacts:
    full = full_name(name)
    if full not in PAIR_MEASURES:
        raise UsageError(f"unknown pair measure {full!r}", hint=did_you_mean(full, [*PAIR_MEASURES, METRIC]))
    return PAIR_MEASURES[full]


def full_name(name: str) -> str:
    """Return the full name of a measure: ``lpips`` and ``lpips:alex`` mean ``lpips-alex``."""
    return _SHORT.get(name, name.replace(":", "-"))


def _is_at_hand(facts: PairMeasureFacts, weights: Mapping[str, Path], notify: Callable[[str], None]) -> bool:
    network = facts.network
    if not facts.downloads or network is None or facts.name in weights or network in weights:
        return True
    if cached(ASSETS[network].asset) is not None:
        return True
    notify(f"left out {facts.name}: its weights are not on this machine; --metrics {facts.name} fetches them")
    return False


def _fits(facts: PairMeasureFacts, smallest_side: int, notify: Callable[[str], None]) -> bool:
    if smallest_side >= facts.minimum_size:
        return True
    notify(f"left out: {_too_small(facts, smallest_side)}")
    return False


def _too_small(facts: PairMeasureFacts, smallest_side: int) -> str:
    least = facts.minimum_size
    return f"{facts.name} needs images of at least {least} x {least} pixels, the first has {smallest_side}"
