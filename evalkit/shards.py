"""Shards: fixed ranges of indices, the only unit of work; one whole file for each, or none.

A shard's result is the float32 features of its images (for fewer images than dimensions these are far
smaller than any moments of them, and every metric can be added later). A file is named by its content
hash, written to a temporary name, synced and renamed: a process may be killed at any point and only whole
shards remain. Moments and banks are folded from the files in shard order.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evalkit.atomic import write_atomically
from evalkit.core import IndexArray
from evalkit.shard_facts import are_facts
from evalkit.shard_locks import Waiting, held
from evalkit.stored_features import HASH_LENGTH, StoredFeatures, is_named_by

_SMALLEST, _LARGEST, _WANTED = 8, 512, 16
_MOST_BLOCKS, _FEWEST_EVEN_BLOCKS = 20, 10
_CLEARED = ".cleared-"


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """How ``count`` indices are cut: a function of the count alone.

    A shard is the largest power of two that leaves at least 16 shards, within 8..512 images.
    """

    count: int

    @property
    def shard_size(self) -> int:
        """Images in every shard but the last."""
        wanted = max(self.count // _WANTED, 1)
        return min(max(1 << (wanted.bit_length() - 1), _SMALLEST), _LARGEST)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_size)

    def shards_of(self, part: Part | None) -> range:
        """Return the numbers of the shards of a part; of all where there are no parts."""
        return range(self.shards) if part is None else range(part.index, self.shards, part.count)

    def indices(self, shard: int) -> IndexArray:
        """Global indices of a shard, int64."""
        start = shard * self.shard_size
        return np.arange(start, min(start + self.shard_size, self.count), dtype=np.int64)

    def range_of(self, shard: int) -> str:
        """Return ``first..last`` of the indices of a shard, for messages."""
        index = self.indices(shard)
        return f"{index[0]}..{index[-1]}"

    def blocks(self) -> list[range]:
        """Return runs of shards that serve as jackknife blocks: at most 20, of equal size where possible."""
        even = (b for b in range(min(_MOST_BLOCKS, self.shards), 0, -1) if self.shards % b == 0)
        number = next(even)
        if number < min(_FEWEST_EVEN_BLOCKS, self.shards):
            number = min(_MOST_BLOCKS, self.shards)
        edges = [self.shards * b // number for b in range(number + 1)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True)
class Part:
    """Which shards one of ``count`` workers takes: every ``count``-th one from ``index`` on.

    All parts together are every shard once, whatever their number; some are empty where there are more parts
    than shards.

    Raises:
        ValueError: not ``0 <= index < count``.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no part {self.index} of {self.count}")

    @property
    def key(self) -> str:
        """A plain file name that no other part has."""
        return f"{self.index}-of-{self.count}"

    def owns(self, shard: int) -> bool:
        """Whether ``shard`` is one of this part's."""
        return shard % self.count == self.index


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """Features of one shard, head -> float32 ``[n, d]``, and what was measured while making them.

    ``path`` is where it lies; None while it is not written.
    """

    features: Mapping[str, NDArray[np.float32]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def left_in_file(self) -> ShardResult:
        """Return the same shard without its features in memory, where it has a file to read them from.

        Raises:
            TemporaryError: the file is gone.
        """
        return self if self.path is None else replace(self, features=StoredFeatures(self.path))

    def shape(self, head: str) -> tuple[int, int]:
        """Return ``(n, d)`` of a head, without reading it."""
        kept = self.features
        n, d = kept.shape(head) if isinstance(kept, StoredFeatures) else kept[head].shape
        return n, d

    def rows(self, head: str, chosen: IndexArray) -> NDArray[np.float32]:
        """Return the ``chosen`` rows of a head, float32 ``[m, d]``.

        Raises:
            TemporaryError: they lay in a file that is gone.
        """
        kept = self.features
        return kept.rows(head, chosen) if isinstance(kept, StoredFeatures) else kept[head][chosen]


@dataclass(frozen=True, slots=True)
class ShardStore:
    """The files of one state key (subject + extractor) below ``folder``."""

    folder: Path

    def read(
        self, shard: int, count: int, heads: Collection[str] = ()
    ) -> tuple[ShardResult | None, str | None]:
        """Return the whole shard of ``count`` images (or None), and a warning where a file was damaged.

        Of several files the first that has ``heads`` is taken, or the first where none has. The last shard of
        a smaller run has fewer images: it is no shard of this one.
        """
        warning, found = None, None
        for path in sorted(self.folder.glob(f"{shard:06d}-*.safetensors")):
            content = path.read_bytes()
            if not is_named_by(content, path):
                warning = f"state file {path.name} was damaged"
                path.unlink(missing_ok=True)
                continue
            result = _decode(content)
            if result is not None and all(len(rows) == count for rows in result.features.values()):
                found = found or replace(result, path=path)
                if set(heads) <= set(result.features):
                    return replace(result, path=path), None
        return found, None if found else warning

    def exclusive(
        self, part: Part | None = None, *, waiting: Waiting | None = None
    ) -> AbstractContextManager[None]:
        """Hold the folder, or a part of it, made where it is missing; see :func:`evalkit.shard_locks.held`.

        Raises:
            TemporaryError: another process holds it, or it cannot be written to.
        """
        return held(self.folder, part=None if part is None else part.key, waiting=waiting)

    def clear(self, part: Part | None = None, *, launch: str = "") -> None:
        """Remove every shard, or those of a part; where ``launch`` is named, once for it.

        Raises:
            TemporaryError: it cannot be noted that this was done.
        """
        if self.is_cleared(part, launch):
            return
        for path in self.folder.glob("*.safetensors"):
            number = path.name.partition("-")[0]
            if part is None or (number.isdecimal() and part.owns(int(number))):
                path.unlink(missing_ok=True)
        if launch:
            write_atomically(self._cleared(part), launch)

    def is_cleared(self, part: Part | None, launch: str) -> bool:
        """Whether an earlier process of this ``launch`` has forgotten what older runs left."""
        mark = self._cleared(part)
        return bool(launch) and mark.is_file() and mark.read_text(encoding="utf-8") == launch

    def forget_launches(self) -> None:
        """Remove what :meth:`clear` noted: the launch is over."""
        for mark in self.folder.glob(f"{_CLEARED}*"):
            mark.unlink(missing_ok=True)

    def _cleared(self, part: Part | None) -> Path:
        return self.folder / f"{_CLEARED}{part.key if part else 'whole'}"

    def write(self, shard: int, result: ShardResult) -> Path:
        """Write a shard atomically, replacing files of the same shard; return its path.

        Raises:
            TemporaryError: the disk is full or read-only; older files are untouched.
        """
        tensors = {head: np.ascontiguousarray(x, dtype=np.float32) for head, x in result.features.items()}
        content = save(tensors, metadata={"facts": json.dumps(dict(result.facts), sort_keys=True)})
        digest = hashlib.sha256(content).hexdigest()[:HASH_LENGTH]
        path = self.folder / f"{shard:06d}-{digest}.safetensors"
        older = set(self.folder.glob(f"{shard:06d}-*.safetensors")) - {path}
        write_atomically(path, content)
        for stale in older:
            stale.unlink(missing_ok=True)
        return path

    def adopt(self, path: Path, shard: int) -> None:
        """Take the file of a shard of another folder, replacing others of the same shard; linked if possible.

        Raises:
            TemporaryError: it cannot be written.
        """
        own = self.folder / path.name
        older = set(self.folder.glob(f"{shard:06d}-*.safetensors")) - {own}
        if not own.exists():
            try:
                own.hardlink_to(path)
            except OSError:  # another file system, or one without links
                write_atomically(own, path.read_bytes())
        for stale in older:
            stale.unlink(missing_ok=True)


def read_state(path: Path) -> ShardResult | None:
    """Return what a state file holds, or None where it is damaged."""
    content = path.read_bytes()
    result = _decode(content) if is_named_by(content, path) else None
    return None if result is None else replace(result, path=path)


def _decode(content: bytes) -> ShardResult | None:
    try:
        features = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        facts = json.loads(metadata.get("facts", "{}"))
    except (SafetensorError, ValueError, RecursionError):
        return None
    plain = all(rows.dtype == np.float32 and rows.ndim == 2 for rows in features.values())
    count = len(next(iter(features.values()), ()))
    return ShardResult(features=features, facts=facts) if plain and are_facts(facts, count) else None
