"""Registered references: official data sets that are downloaded and measured on the user's machine.

A recipe is the torch-free fact of one data set and the function that opens its images; a new one is one
``REGISTERED.register``. Data comes from its publisher through torchvision, which checks its own MD5 of every
file before anything is read from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from evalkit.assets import cache_folder, is_offline
from evalkit.errors import OfflineError, UsageError
from evalkit.registry import Registry
from evalkit.spec import Spec

if TYPE_CHECKING:
    from evalkit.core import ImageBatch, ImageSource, IndexArray


@dataclass(frozen=True, slots=True)
class ReferenceRecipe:
    """A data set that a reference can be built from; ``open`` downloads it where need be."""

    name: str
    title: str
    dataset: str
    split: str | None
    open: Callable[[], ImageSource]


REGISTERED: Registry[ReferenceRecipe] = Registry("reference")


@final
class DatasetImages:
    """Images and labels of a data set in memory; the digest in ``spec`` is that of pixels and labels.

    Args:
        name: what the data set is.
        images: uint8 ``[n, h, w, 3]``.
        labels: int64 ``[n]``.
    """

    def __init__(self, name: str, images: NDArray[np.uint8], labels: IndexArray) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(labels) != len(images):
            raise ValueError(f"expected uint8 [n, h, w, 3] and [n], not {images.dtype} {images.shape}")
        self._images, self._labels = images, np.asarray(labels, dtype=np.int64)
        digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
        digest.update(self._labels.tobytes())
        self._spec = Spec.of("source", name, sha256=digest.hexdigest(), count=len(images))

    @property
    def spec(self) -> Spec:
        """Name, count, and the digest of pixels and labels."""
        return self._spec

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: IndexArray) -> ImageBatch:
        """Return the images at ``index``.

        Raises:
            IndexError: an index lies outside ``0..len-1``.
        """
        import torch  # noqa: PLC0415 - the facts of a recipe are listed without it

        from evalkit.core import ImageBatch  # noqa: PLC0415

        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"indices must lie in 0..{len(self) - 1}")
        pixels = np.ascontiguousarray(self._images[index].transpose(0, 3, 1, 2))
        return ImageBatch(torch.from_numpy(pixels), index, self._labels[index])


def open_cifar10(*, train: bool, load: Callable[..., Any] | None = None) -> ImageSource:
    """Open CIFAR-10 from the cache, or from its publisher.

    Args:
        train: the 50 000 training images, or the 10 000 test images.
        load: makes the data set, as ``torchvision.datasets.CIFAR10``; tests replace it.

    Raises:
        OfflineError: it is not in the cache and cannot be downloaded now.
    """
    folder = cache_folder() / "datasets"
    maker = load or _torchvision_cifar10()
    split = "train" if train else "test"
    try:
        # A damaged or missing copy is a RuntimeError of torchvision; a lost connection is an OSError.
        data = maker(root=os.fspath(folder), train=train, download=not is_offline())
    except (OSError, RuntimeError) as error:
        reason = "EVALKIT_OFFLINE is set" if is_offline() else str(error)
        raise _cannot_download(folder, split=split, reason=reason) from error
    return DatasetImages(f"cifar10-{split}", data.data, np.asarray(data.targets, dtype=np.int64))


def _torchvision_cifar10() -> Callable[..., Any]:
    try:
        from torchvision.datasets import CIFAR10  # noqa: PLC0415 - only when images are really wanted
    except ImportError as error:
        raise UsageError("torchvision is not installed", hint="pip install torchvision") from error
    maker: Callable[..., Any] = CIFAR10
    return maker


def _cannot_download(folder: Path, *, split: str, reason: str) -> OfflineError:
    return OfflineError(
        f"CIFAR-10 (170 MB) is needed and cannot be downloaded now: {reason}",
        hint="put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html into "
        f"{folder} and unpack it there, or build from images of your own: "
        f"evalkit reference build FOLDER --name cifar10 --split {split}",
    )


REGISTERED.register("cifar10")(
    ReferenceRecipe(
        name="cifar10",
        title="CIFAR-10, 50 000 training images, as published",
        dataset="cifar10",
        split="train",
        open=lambda: open_cifar10(train=True),
    )
)
REGISTERED.register("cifar10-test")(
    ReferenceRecipe(
        name="cifar10-test",
        title="CIFAR-10, 10 000 test images, as published",
        dataset="cifar10",
        split="test",
        open=lambda: open_cifar10(train=False),
    )
)
