"""Image files in a container (folder, archive, table), decoded by threads in a fixed order.

Accepted trade-offs: the files of a folder are read once more for their digest, a tenth of the time that
decoding takes at 32 x 32 pixels and a twentieth at 256 x 256; checking each file for damage that Pillow
passes over costs 5 to 15 us, less than what is saved by handing plain files to Pillow's decoder directly.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, cached_property
from threading import Lock
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from evalkit.core import ImageBatch, IndexArray
from evalkit.errors import InvalidInputError
from evalkit.sources.batch_memory import BatchMemory
from evalkit.sources.decode import Pixels, decode_pixels
from evalkit.sources.formats import ReadSettings, Rejected
from evalkit.spec import Scalar, Spec

Loader = Callable[[], bytes]

_SHOWN = 20  # offenders listed in one message
_CHECK_CHUNK = 256  # images whose bytes are in memory at once while checking
_MAX_DEFAULT_WORKERS = 8
# Of smaller images the decoder is so soon done that threads would only wait for the interpreter's lock.
_THREADS_FROM_PIXELS = 24 * 24
# A first image far larger than the others must not claim the memory of a whole batch of its like.
_MAX_BATCH_BYTES = 2**32


class Container(Protocol):
    """Encoded images in a fixed order. Holds no open file, so that threads and forks may share it."""

    @property
    def format(self) -> str:
        """Name of the format."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Name of each image, in index order."""
        ...

    @property
    def labels(self) -> IndexArray | None:
        """int64 ``[n]`` labels where known."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes where known."""
        ...

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return one function for each position that gives the bytes of that file, from any thread.

        What must be read in sequence is read here; what may be read in parallel, in the loader.
        """
        ...

    def sha256(self) -> str:
        """Return a digest of names and bytes, free of the container's own path."""
        ...


@final
class EncodedImages:
    """The image source over a :class:`Container`."""

    def __init__(
        self,
        container: Container,
        settings: ReadSettings,
        *,
        rejected: tuple[tuple[int, Rejected], ...] = (),
    ) -> None:
        self._container = container
        self._settings = settings
        self._rejected = rejected
        bad = np.asarray([position for position, _ in rejected], dtype=np.int64)
        self._kept = np.setdiff1d(np.arange(len(container.names), dtype=np.int64), bad)
        self._memory = BatchMemory()
        self._shape: tuple[int, ...] | None = None  # of an image of the last batch: most are of one size

    @cached_property
    def spec(self) -> Spec:
        """Format, digest, count and every decoding choice that can change pixels; reads every byte once."""
        params: dict[str, Scalar] = {"count": len(self), **self._settings.policy.params()}
        if self._rejected:
            params["rejected"] = len(self._rejected)
        return Spec.of("source", self._container.format, sha256=self._container.sha256(), **params)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes 0..k-1 where known."""
        return self._container.class_names

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """Images left out by :meth:`usable`."""
        return tuple(image for _, image in self._rejected)

    def __len__(self) -> int:
        return len(self._kept)

    def positions(self, index: IndexArray) -> IndexArray:
        """Return int64 ``[n]``: where the images at ``index`` lie in the container, rejects counted."""
        return self._kept[index]

    def name_of(self, index: int) -> str:
        """Return the name of image ``index`` inside its container."""
        return self._container.names[int(self._kept[index])]

    def read(self, index: IndexArray) -> ImageBatch:
        """Return the images at ``index``: uint8 ``[n, 3, h, w]``, or a list of ``[3, h, w]`` of mixed sizes.

        Raises:
            IndexError: an index lies outside ``0..len-1``.
            InvalidInputError: images cannot be used; up to 20 are named.
        """
        checked = valid_index(index, count=len(self))
        positions = self._kept[checked]
        results, array = self._decode(positions.tolist(), keep=True)
        bad = [result for result in results if isinstance(result, Rejected)]
        if bad:
            raise rejection_error(bad, checked=len(positions))
        labels = self._container.labels
        images = [result for result in results if isinstance(result, np.ndarray)]
        return ImageBatch(_joined(images, array), checked, None if labels is None else labels[positions])

    def check(self) -> tuple[Rejected, ...]:
        """Decode every image once and return those that cannot be used."""
        return tuple(image for _, image in self._failures())

    def usable(self, *, max_bad: int) -> EncodedImages:
        """Return this set without the images that fail :meth:`check`; the others keep their order.

        Raises:
            InvalidInputError: more than ``max_bad`` images fail.
        """
        failures = self._failures()
        if len(failures) > max_bad:
            raise rejection_error([image for _, image in failures], checked=len(self))
        return EncodedImages(self._container, self._settings, rejected=(*self._rejected, *failures))

    def _failures(self) -> tuple[tuple[int, Rejected], ...]:
        found: list[tuple[int, Rejected]] = []
        for start in range(0, len(self), _CHECK_CHUNK):
            positions = self._kept[start : start + _CHECK_CHUNK].tolist()
            results, _ = self._decode(positions, keep=False)
            found += [(p, r) for p, r in zip(positions, results, strict=True) if isinstance(r, Rejected)]
        return tuple(found)

    def _decode(
        self, positions: Sequence[int], *, keep: bool
    ) -> tuple[list[Pixels | Rejected | None], Pixels | None]:
        """Return the result for each position, and the array ``[n, 3, h, w]`` that holds those of one size.

        An image of the last batch, or else the first, shows how large they may be: each is decoded straight
        into its row of the array where it has that size. The calling thread decodes too.
        """
        if not positions:
            return [], None
        names = [self._container.names[position] for position in positions]
        loaders = self._container.loaders(positions)
        results: list[Pixels | Rejected | None] = [None] * len(positions)
        rows, shape = iter(range(len(positions))), self._shape
        if shape is None:
            first = results[next(rows)] = self._decode_one(names[0], loaders[0], None)
            shape = None if isinstance(first, Rejected) else first.shape
        array = self._array(len(positions), shape) if keep else None
        if array is not None and isinstance(results[0], np.ndarray):
            array[0] = results[0]

        def decode(row: int) -> None:
            result = self._decode_one(names[row], loaders[row], None if array is None else array[row])
            results[row] = result if keep or isinstance(result, Rejected) else None

        others = min(self._settings.workers or default_workers(), len(positions)) - 1
        small = shape is not None and math.prod(shape[1:]) < _THREADS_FROM_PIXELS
        _each(decode, rows, others=0 if small else others)
        loaders.clear()  # a thread that comes too late for its turn must not keep a file open
        self._shape = next((result.shape for result in results if isinstance(result, np.ndarray)), shape)
        return results, array

    def _array(self, count: int, shape: tuple[int, ...] | None) -> Pixels | None:
        """Return memory for ``count`` images of ``shape``; None where that is unknown or unwise."""
        if shape is None or math.prod(shape) * count > _MAX_BATCH_BYTES:
            return None
        return self._memory.array((count, *shape))

    def _decode_one(self, name: str, load: Loader, room: Pixels | None) -> Pixels | Rejected:
        try:
            return decode_pixels(load(), name=name, policy=self._settings.policy, room=room)
        except InvalidInputError as error:
            return Rejected(name, error.message, error.hint)
        except OSError as error:
            return Rejected(name, f"{name!r} cannot be read: {error.strerror or error}")


@cache
def _decoders(count: int) -> ThreadPoolExecutor:
    """Return threads that decode and wait for nothing else; idle ones end with the program."""
    return ThreadPoolExecutor(count, "evalkit-decode")


os.register_at_fork(after_in_child=_decoders.cache_clear)  # threads do not live on in a fork


def _each(do: Callable[[int], None], rows: Iterator[int], *, others: int) -> None:
    """Do each of ``rows`` here and in ``others`` threads, until none of them is at work any more.

    The threads are kept: those born for each batch would have the system clear memory for them each time.
    """
    lock = Lock()

    def work() -> None:
        while True:
            with lock:
                row = next(rows, None)
            if row is None:
                return
            do(row)

    running = [_decoders(others).submit(work) for _ in range(others)]
    try:
        work()
    finally:
        # Nothing is left to do for one that has not begun, because another source has the threads.
        begun = [future for future in running if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()


def _joined(images: list[Pixels], array: Pixels | None) -> Tensor | list[Tensor]:
    """Return uint8 ``[n, 3, h, w]`` where all have one size, else a list of ``[3, h, w]``."""
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        return [torch.from_numpy(image) for image in images]
    in_array = array is not None and array.shape[1:] in shapes
    return torch.from_numpy(array if in_array else np.stack(images))


def default_workers() -> int:
    """Return the number of decoding threads where none is given."""
    return min(_MAX_DEFAULT_WORKERS, os.cpu_count() or 1)


def valid_index(index: IndexArray, *, count: int) -> IndexArray:
    """Return ``index`` as int64 ``[n]``.

    Raises:
        IndexError: not one-dimensional integers, or outside ``0..count-1``.
    """
    array = np.asarray(index)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(f"image indices must be integers [n], not {array.dtype} {list(array.shape)}")
    if array.size and not (array.min() >= 0 and array.max() < count):
        raise IndexError(f"image indices must lie in 0..{count - 1}, not {array.min()}..{array.max()}")
    return array.astype(np.int64)


def rejection_error(bad: Sequence[Rejected], *, checked: int) -> InvalidInputError:
    """Return the error that lists up to 20 of the ``bad`` images among ``checked``."""
    lines = [f"  {image.reason}" for image in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN} more")
    hints = dict.fromkeys(image.hint for image in bad if image.hint)
    hints["leave such images out: --on-bad skip --max-bad K"] = None
    head = f"{len(bad)} of {checked} images cannot be used:"
    return InvalidInputError("\n".join([head, *lines]), hint="; or ".join(hints))
