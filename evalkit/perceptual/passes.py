"""One pass of a network for all measures that read it.

first, second = build_pair_measures(["pd-vgg16", "style-vgg16"], weights={}, device="cuda")
(both,) = in_shared_passes([first, second])
values = both(generated, reference, masks={})  # {"pd-vgg16": [n], "style-vgg16": [n]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from evalkit.perceptual.chunks import Masks, check_pairs, measure_in_chunks
from evalkit.perceptual.networks import StageNetwork, in_unit_range
from evalkit.spec import Spec, sha256_of

if TYPE_CHECKING:
    from evalkit.perceptual import PairMeasure

_ACCELERATOR_CHUNK = 16


@runtime_checkable
class StageMeasure(Protocol):
    """A pair measure that compares the stages of a network."""

    network: StageNetwork
    minimum_size: int

    @property
    def spec(self) -> Spec:
        """As of every pair measure."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """As of every pair measure."""
        ...

    def compare(self, stages: Sequence[Tensor], masks: Masks, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return float64 ``[n]`` values for each name and region.

        Args:
            stages: of the network, for n generated images followed by their n reference images.
            masks: bool ``[n, 1, height, width]`` for each region.
            size: height and width of the images.
        """
        ...


@final
class SharedPass:
    """Several measures of one network as one measure, which runs the network once on each image."""

    def __init__(self, measures: Sequence[StageMeasure]) -> None:
        self._measures = tuple(measures)

    @property
    def spec(self) -> Spec:
        """The digest of the measures' specs."""
        return Spec.of(
            "pair-measure", "shared-pass", sha256=sha256_of([m.spec.to_json() for m in self._measures])
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all."""
        return tuple(name for measure in self._measures for name in measure.names)

    def __call__(self, generated: Tensor, reference: Tensor, *, masks: Masks) -> Mapping[str, Tensor]:
        """Return the values of all measures; see :class:`~evalkit.perceptual.PairMeasure`."""
        return measure_stages(self._measures, generated, reference, masks=masks)


def measure_stages(
    measures: Sequence[StageMeasure], generated: Tensor, reference: Tensor, *, masks: Masks
) -> dict[str, Tensor]:
    """Return the values of ``measures``, which read one network, from one pass over the images.

    Raises:
        UsageError: images are not uint8 or masks not bool.
        InvalidInputError: shapes differ or are too small for one of the measures.
    """
    for measure in measures:
        check_pairs(generated, reference, masks, measure=measure.names[0], minimum=measure.minimum_size)
    network = measures[0].network
    height, width = generated.shape[-2:]

    def run(ours: Tensor, theirs: Tensor, regions: Masks) -> dict[str, Tensor]:
        stages = _stages(network, ours, theirs)
        values: dict[str, Tensor] = {}
        for measure in measures:
            values |= measure.compare(stages, regions, size=(height, width))
        return values

    on_cpu = network.device.type == "cpu"
    chunk = network.pairs_at_once(height, width) if on_cpu else _ACCELERATOR_CHUNK
    return measure_in_chunks(generated, reference, masks, measure=run, device=network.device, chunk=chunk)


def _stages(network: StageNetwork, generated: Tensor, reference: Tensor) -> list[Tensor]:
    """Return the stages of n generated images, then of their n reference images.

    A reference image that the next pair has too, as where several samples of one model are compared with
    one picture, goes through the network once.
    """
    changes = (reference[1:] != reference[:-1]).flatten(1).byte().amax(1).bool()
    group = torch.cat((changes.new_zeros(1), changes)).cumsum(0)
    first = torch.cat((changes.new_ones(1), changes)).nonzero().flatten()
    if len(first) == len(reference):
        return network.stages(in_unit_range(torch.cat((generated, reference))))
    stages = network.stages(in_unit_range(torch.cat((generated, reference[first]))))
    count = len(generated)
    every = torch.cat((torch.arange(count, device=group.device), group + count))
    return [stage[every] for stage in stages]


def in_shared_passes(measures: Sequence[PairMeasure]) -> tuple[PairMeasure, ...]:
    """Return measures of the same values, those that hold one network joined to a :class:`SharedPass`."""
    joined: list[PairMeasure] = []
    by_network: dict[int, list[StageMeasure]] = {}
    for measure in measures:
        if isinstance(measure, StageMeasure):
            by_network.setdefault(id(measure.network), []).append(measure)
        else:
            joined.append(measure)
    return (*joined, *(SharedPass(group) for group in by_network.values()))
