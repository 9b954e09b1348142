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
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evalkit.atomic import write_atomically
from evalkit.core import IndexArray
from evalkit.errors import TemporaryError

_SMALLEST, _LARGEST, _WANTED = 8, 512, 16
_MOST_BLOCKS, _FEWEST_EVEN_BLOCKS = 20, 10
_HASH_LENGTH = 32


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

    def indices(self, shard: int) -> IndexArray:
        """Global indices of a shard, int64."""
        start = shard * self.shard_size
        return np.arange(start, min(start + self.shard_size, self.count), dtype=np.int64)

    def blocks(self) -> list[range]:
        """Return runs of shards that serve as jackknife blocks: at most 20, of equal size where possible."""
        even = (b for b in range(min(_MOST_BLOCKS, self.shards), 0, -1) if self.shards % b == 0)
        number = next(even)
        if number < min(_FEWEST_EVEN_BLOCKS, self.shards):
            number = min(_MOST_BLOCKS, self.shards)
        edges = [self.shards * b // number for b in range(number + 1)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """Features of one shard, head -> float32 ``[n, d]``, and what was measured while making them."""

    features: Mapping[str, NDArray[np.float32]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardStore:
    """The files of one state key (subject + extractor) below ``folder``."""

    folder: Path

    def read(self, shard: int, count: int) -> tuple[ShardResult | None, str | None]:
        """Return the whole shard of ``count`` images (or None), and a warning where a file was damaged.

        The last shard of a smaller run has fewer images: it is no shard of this one.
        """
        warning = None
        for path in sorted(self.folder.glob(f"{shard:06d}-*.safetensors")):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:_HASH_LENGTH] != path.stem.partition("-")[2]:
                warning = f"state file {path.name} was damaged and is computed again"
                path.unlink(missing_ok=True)
                continue
            result = _decode(content)
            if result is not None and all(len(rows) == count for rows in result.features.values()):
                return result, None
        return None, warning

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder, made where it is missing; the operating system frees it when the holder dies.

        Raises:
            TemporaryError: another process holds it, or it cannot be written to.
        """
        holder = self.folder / ".holder"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", blocking=False)
            lock.acquire()
        except Timeout as error:
            who = holder.read_text().strip() if holder.is_file() else "unknown"
            raise TemporaryError(
                f"another evalkit run works on {self.folder} ({who})",
                hint="wait for it, or choose another --out",
            ) from error
        except OSError as error:
            raise TemporaryError(
                f"cannot write to {self.folder}: {error.strerror}", hint="choose another --out"
            ) from error
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove every shard."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)

    def write(self, shard: int, result: ShardResult) -> None:
        """Write a shard atomically, replacing files of the same shard.

        Raises:
            TemporaryError: the disk is full or read-only; older files are untouched.
        """
        tensors = {head: np.ascontiguousarray(x, dtype=np.float32) for head, x in result.features.items()}
        content = save(tensors, metadata={"facts": json.dumps(dict(result.facts), sort_keys=True)})
        digest = hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
        path = self.folder / f"{shard:06d}-{digest}.safetensors"
        older = set(self.folder.glob(f"{shard:06d}-*.safetensors")) - {path}
        write_atomically(path, content)
        for stale in older:
            stale.unlink(missing_ok=True)


def _decode(content: bytes) -> ShardResult | None:
    try:
        features = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        return ShardResult(features=features, facts=json.loads(metadata.get("facts", "{}")))
    except (SafetensorError, ValueError):
        return None
