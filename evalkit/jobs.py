"""What a pass is asked for: which rows, through which lanes, in which shards, and where these are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from evalkit.core import Extractor, ImageSource, Probe
from evalkit.lanes import Lane
from evalkit.shards import Part, ShardLayout, ShardStore
from evalkit.sources.fixed_blocks import BLOCK
from evalkit.spec import sha256_of

_KEY = 16


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """What to extract: rows ``0 .. layout.count - 1`` of every lane.

    ``source`` gives the images that the lanes' extractors see; None where probes make their own.
    ``needs_labels`` says that shards without the labels of their images are not enough. ``fresh`` forgets the
    shards of earlier runs, once for each ``launch`` of several processes. ``bitwise`` asks for the same bits
    on every run: one thread, and never another batch size than ``batch_size`` (:meth:`strictly`). ``part``:
    only its shards, while others compute theirs in the same folders. ``patient`` waits for whoever computes
    the same rows instead of refusing. ``only_stored`` computes nothing: what is not there is an error.
    """

    lanes: tuple[Lane, ...]
    layout: ShardLayout
    batch_size: int
    device: torch.device
    source: ImageSource | None = None
    needs_labels: bool = False
    fresh: bool = False
    launch: str = ""
    bitwise: bool = False
    part: Part | None = None
    patient: bool = False
    only_stored: bool = False

    @property
    def images(self) -> int:
        """How many images its shards hold."""
        shards = self.layout.shards_of(self.part)
        return sum(len(self.layout.indices(shard)) for shard in shards)

    def strictly(self) -> Self:
        """Return the job that makes the same bits on every run, in state folders of its own (``b-…``)."""
        lanes = tuple(
            replace(lane, store=ShardStore(lane.store.folder.with_name(f"b-{lane.store.folder.name}")))
            for lane in self.lanes
        )
        return replace(self, lanes=lanes, batch_size=BLOCK, bitwise=True)

    @classmethod
    def of_probe(
        cls, probe: Probe, *, heads: Sequence[str], count: int, state: Path, device: torch.device,
        batch_size: int | None = None, fresh: bool = False, subject: str = "",
    ) -> Self:  # fmt: skip
        """Return the job of ``count`` rows of a probe, whose shards lie below ``state``.

        ``subject`` tells apart what the probe's own spec may not: the digest of the source that it looks at.
        """
        layout = ShardLayout(count)
        key = sha256_of([probe.spec.to_json(), subject])[: 2 * _KEY]
        store = ShardStore(state / f"{key}-{layout.shard_size}")
        return cls(
            lanes=(Lane.of_probe(probe, tuple(heads), store),),
            layout=layout,
            batch_size=batch_size or default_batch_size(device),
            device=device,
            fresh=fresh,
        )


def default_batch_size(device: torch.device) -> int:
    """Return the batch size of ``--batch-size auto``; a batch never crosses a shard."""
    return 64 if device.type == "cpu" else 512


def state_store(state: Path, source: ImageSource, extractor: Extractor, layout: ShardLayout) -> ShardStore:
    """Return where the shards of these images through this extractor lie: keyed by content, not by name."""
    images, network = source.spec.digest()[:_KEY], extractor.spec.digest()[:_KEY]
    return ShardStore(state / f"{images}-{network}-{layout.shard_size}")
