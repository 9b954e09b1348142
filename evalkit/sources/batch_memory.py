"""Memory for batches of images, used again for the next batch once nobody holds the last one.

    memory = BatchMemory()
    batch = memory.array((64, 3, 512, 512))     # uint8, holding anything
    del batch                                    # and every view of it: the next array may lie there

A batch of megabytes comes from the system as pages that it clears first and takes back when the batch goes.

Accepted trade-offs: up to 256 MB of the last batch are kept as long as this is. Larger batches give theirs
back, which the numerics that follow a pass may need.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES: Final = 2**28


@final
class BatchMemory:
    """Arrays one after the other in the same memory; several threads may ask for them."""

    def __init__(self) -> None:
        # One: of two batches that exist side by side the older goes before the next is asked for.
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=1)

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a uint8 array of ``shape`` that holds anything."""
        size = math.prod(shape)
        if size > KEPT_BYTES:
            return np.empty(shape, np.uint8)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        # numpy's views keep the array alive that they were made of, and look through it for whose memory it
        # is only as far as arrays go: with a buffer between, all views of ``lent`` keep ``lent``.
        lent = np.frombuffer(memory[:size].data, np.uint8)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent.reshape(shape)
