"""Reading ahead: while a network works on one batch of images, a thread reads the next.

    with ReadAhead(source) as images:
        images.read(index, then=following)      # starts on ``following``, which the next call asks for

At most two batches exist: the one that was returned and the one that is being read. An error belongs to the
batch that it was met in, and is raised when that batch is asked for.

Accepted trade-offs: only images that lie in files are read ahead. A generator or a translator computes on
the device that the network computes on: on a CPU the two would only take each other's cores, on a GPU their
memory, and how fast a model samples, which the record states, would be measured while it shares the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
from torch import Tensor

from evalkit.core import ImageBatch, ImageSource, IndexArray
from evalkit.sources.arrays import ArrayImages
from evalkit.sources.encoded import EncodedImages
from evalkit.sources.subset import SubsetSource


@dataclass(frozen=True, slots=True, eq=False)
class TimedBatch:
    """Images, and the seconds that it took to read them, whoever waited for that."""

    images: ImageBatch
    seconds: float


@final
class ReadAhead:
    """The batches of ``source`` in the order in which they are asked for, the next one read meanwhile.

    To be closed by ``with``: no thread is left behind then, nor a batch that nobody asked for.

    Args:
        source: where the images come from.
        pin: put what is read ahead into pinned memory, from where a GPU copies it without waiting.
        finished: waits until a batch that is computed on a device is there, so that its time is true.
    """

    def __init__(
        self, source: ImageSource, *, pin: bool = False, finished: Callable[[], object] = lambda: None
    ) -> None:
        self._source = source
        self._pin = pin
        self._finished = finished
        self._pool = ThreadPoolExecutor(1, "evalkit-read") if lies_in_files(source) else None
        self._next: tuple[IndexArray, Future[TimedBatch]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._next = None
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def read(self, index: IndexArray, *, then: IndexArray | None = None) -> TimedBatch:
        """Return the images at int64 ``index``, and begin on those that will probably be wanted ``then``.

        Raises:
            Exception: whatever the source raises for ``index``.
        """
        batch = self._taken(index) or self._read(index)
        if self._pool is not None and then is not None and len(then):
            self._next = then, self._pool.submit(self._read, then)
        return batch

    def _taken(self, index: IndexArray) -> TimedBatch | None:
        """Return what was read ahead where that is ``index``; something else is waited for and dropped."""
        if self._next is None:
            return None
        (ahead, future), self._next = self._next, None
        if np.array_equal(ahead, index):
            return future.result()
        future.cancel()
        wait([future])
        return None

    def _read(self, index: IndexArray) -> TimedBatch:
        start = time.perf_counter()
        batch = self._source.read(index)
        if self._pool is None:
            self._finished()
        elif self._pin and isinstance(batch.images, Tensor):
            batch = replace(batch, images=batch.images.pin_memory())
        return TimedBatch(batch, time.perf_counter() - start)


def lies_in_files(source: ImageSource) -> bool:
    """Tell whether reading these images computes nothing but their pixels from their files."""
    while isinstance(source, SubsetSource):
        source = source.source
    return isinstance(source, EncodedImages | ArrayImages)
