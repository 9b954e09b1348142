"""Images in a numpy array: ``.npz`` (``arr_0`` images, ``arr_1`` labels) or ``.npy``.

Shapes: ``[N, H, W, 3]``, ``[N, 3, H, W]``, and grayscale ``[N, H, W]``, ``[N, H, W, 1]``, ``[N, 1, H, W]``,
which is repeated to RGB. The dtype is uint8: a float array has no agreed range, so none is guessed.

An ``.npy`` and an array in an ``.npz`` without compression (``np.savez``) are memory-mapped; a compressed one
(``np.savez_compressed``) is unpacked into memory as a whole when it is opened.

Accepted trade-off: the checksum of a mapped array is not verified, which would read all of it; the digest in
``spec`` changes with any byte all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evalkit.core import ImageBatch, IndexArray
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, UsageError
from evalkit.sources.archive import first_member_name
from evalkit.sources.array_file import StoredArray, list_arrays
from evalkit.sources.encoded import valid_index
from evalkit.sources.formats import FORMATS, ReadSettings, Rejected, SourceFormat
from evalkit.spec import Spec

Layout = Literal["NHWC", "NCHW", "NHW"]

_IMAGE_KEY = "arr_0"  # np.savez(path, images, labels), the sample batches of guided-diffusion
_LABEL_KEYS = ("arr_1", "labels", "label", "y")
_SCANNED_FOR_NAN = 1024  # images of a float array, which is refused either way


@final
class ArrayImages:
    """The uint8 images of an ``.npy`` or ``.npz``.

    Raises:
        UsageError: the images are not uint8.
        InvalidInputError: no array of images, an ambiguous shape, objects, non-finite pixels, labels that do
            not fit, or a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        arrays = list_arrays(path)
        chosen = _choose_images(arrays, file=path.name)
        _check_dtype(chosen)
        self._layout: Layout = image_layout(chosen.shape)
        self._images: NDArray[np.uint8] = chosen.load()
        self._labels = _read_labels(arrays, count=len(self._images))

    @cached_property
    def spec(self) -> Spec:
        """Digest of the file, and count."""
        name = "npz" if first_member_name(_read_head(self._path)) else "npy"
        return Spec.of("source", name, sha256=file_sha256(self._path), count=len(self))

    @property
    def class_names(self) -> None:
        """Arrays carry no names."""
        return

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """No image of an array can be rejected on its own."""
        return ()

    def __len__(self) -> int:
        return len(self._images)

    def name_of(self, index: int) -> str:
        """Return ``image i``."""
        return f"image {index}"

    def read(self, index: IndexArray) -> ImageBatch:
        """Return the images at ``index`` as uint8 ``[n, 3, h, w]``.

        Raises:
            IndexError: an index lies outside ``0..len-1``.
        """
        checked = valid_index(index, count=len(self))
        pixels = np.asarray(self._images[checked])
        if self._layout == "NHW":
            pixels = pixels[:, None]
        elif self._layout == "NHWC":
            pixels = pixels.transpose(0, 3, 1, 2)
        height, width = pixels.shape[2:]
        rgb = np.array(np.broadcast_to(pixels, (len(checked), 3, height, width)), order="C")
        return ImageBatch(
            torch.from_numpy(rgb), checked, None if self._labels is None else self._labels[checked]
        )

    def check(self) -> tuple[Rejected, ...]:
        """Return nothing: the whole array was checked when it was opened."""
        return ()

    def usable(self, *, max_bad: int) -> ArrayImages:  # noqa: ARG002  # part of OpenedSource
        """Return this set."""
        return self


def image_layout(shape: tuple[int, ...]) -> Layout:
    """Return what the axes of an array of images mean.

    Raises:
        InvalidInputError: they could mean two things, or nothing.
    """
    text = f"shape {list(shape)}"
    if len(shape) == 3 and shape[2] not in {3, 4}:
        return "NHW"
    if len(shape) == 3:
        raise InvalidInputError(f"{text} looks like one image", hint="an array of images is [N, H, W, 3]")
    if len(shape) != 4:
        raise InvalidInputError(f"{text} is not that of images", hint="expected [N, H, W, 3] or [N, 3, H, W]")
    channels_first, channels_last = shape[1] in {1, 3}, shape[3] in {1, 3}
    if channels_first and channels_last:
        raise InvalidInputError(f"{text} can be read channels first or last", hint="store [N, H, W]")
    if not channels_first and not channels_last:
        raise InvalidInputError(f"{text} has neither 1 nor 3 channels", hint="alpha must be composited first")
    return "NCHW" if channels_first else "NHWC"


def _choose_images(arrays: Mapping[str, StoredArray], *, file: str) -> StoredArray:
    if _IMAGE_KEY in arrays:
        return arrays[_IMAGE_KEY]
    for axes in (4, 3):
        candidates = [array for array in arrays.values() if len(array.shape) == axes]
        if len(candidates) == 1:
            return candidates[0]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if {"mu", "sigma"} <= arrays.keys():
        raise InvalidInputError(f"{file!r} holds statistics, not images", hint="give it as the reference")
    known = ", ".join(f"{array.name} {list(array.shape)}" for array in arrays.values())
    raise InvalidInputError(
        f"{file!r} has no array that is clearly the images: {known}", hint=f"name the images {_IMAGE_KEY!r}"
    )


def _check_dtype(array: StoredArray) -> None:
    if array.dtype == np.uint8:
        return
    if array.dtype.hasobject:
        raise InvalidInputError(
            f"array {array.name!r} holds pickled objects, which can run code", hint="save one uint8 array"
        )
    if array.dtype.kind != "f":
        raise UsageError(
            f"array {array.name!r} is {array.dtype}, not uint8", hint="save images as uint8, 0..255"
        )
    first = array.load()[:_SCANNED_FOR_NAN]
    if not bool(np.isfinite(first).all()):
        raise InvalidInputError(f"array {array.name!r} holds NaN or infinite pixels")
    span = f" in {first.min():.3g}..{first.max():.3g}" if first.size else ""
    raise UsageError(
        f"array {array.name!r} is {array.dtype}{span}, not uint8",
        hint="quantise it yourself, by the rule your model was published with, and save uint8 in 0..255",
    )


def _read_labels(arrays: Mapping[str, StoredArray], *, count: int) -> IndexArray | None:
    name = next((key for key in _LABEL_KEYS if key in arrays), None)
    if name is None:
        return None
    stored = arrays[name]
    if stored.dtype.kind not in "iu" or stored.shape != (count,):
        raise InvalidInputError(
            f"labels {name!r} are {stored.dtype} {list(stored.shape)}, not integers [{count}]"
        )
    labels: NDArray[Any] = stored.load()
    if labels.size and labels.min() < 0:
        raise InvalidInputError(f"labels {name!r} contain the negative class {labels.min()}")
    return np.array(labels, dtype=np.int64)


def _read_head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(512)


def _open(path: Path, settings: ReadSettings) -> ArrayImages:  # noqa: ARG001  # nothing to decode
    return ArrayImages(path)


def _matches(_path: Path, head: bytes) -> bool:
    return head.startswith(npy_format.MAGIC_PREFIX) or first_member_name(head).endswith(b".npy")


FORMATS.register("numpy")(
    SourceFormat(accepts="an .npz or .npy array of uint8 images", matches=_matches, open=_open)
)
