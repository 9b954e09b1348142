"""Names of images inside a folder or an archive: which count, in which order, and the labels they imply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError
from evalkit.sources.decode import IMAGE_SUFFIXES

LABEL_FILE = "dataset.json"  # the label list of StyleGAN and EDM data sets
_MOST_CLASSES = 2**31  # a class that int64 cannot hold is no class

Labels = tuple[IndexArray, tuple[str, ...] | None]


def name_bytes(name: str) -> bytes:
    """Return the bytes of a name as they are on disk, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def is_image_name(name: str) -> bool:
    """Tell whether ``name`` has an image suffix (in any case) and no part of it is a dotfile."""
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))
    return not hidden and name.lower().endswith(IMAGE_SUFFIXES)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return ``names`` in the order of their bytes."""
    return sorted(names, key=name_bytes)


def labels_from_folders(names: Sequence[str]) -> Labels | None:
    """Number the first-level folders in byte order; None where an image lies in no folder.

    Returns:
        int64 ``[n]`` labels and the class names.
    """
    folders = [name.rpartition("/")[0].partition("/")[0] for name in names]
    if not folders or not {"", ".", ".."}.isdisjoint(folders):
        return None
    classes = sorted_names(set(folders))
    number = {folder: position for position, folder in enumerate(classes)}
    labels = np.asarray([number[folder] for folder in folders], dtype=np.int64)
    return labels, tuple(name_bytes(folder).decode("utf-8", "backslashreplace") for folder in classes)


def labels_from_json(names: Sequence[str], text: bytes) -> Labels | None:
    """Read ``{"labels": [[name, label], ...]}``; None where ``labels`` is null or absent.

    Its presence also says that folders are not classes: such data sets number their folders by thousands.

    Raises:
        InvalidInputError: not of that form, or an image has no integer label of at least 0.
    """
    try:
        content: Any = json.loads(text)
        pairs = content.get("labels")
        labels = None if pairs is None else dict(pairs)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(f"{LABEL_FILE!r} is not a list of labels: {error}") from error
    if labels is None:
        return None
    for name in names:
        label = labels.get(name)
        if type(label) is not int or not 0 <= label < _MOST_CLASSES:
            raise InvalidInputError(f"{LABEL_FILE!r} has no class number for {name!r}, but {label!r}")
    return np.asarray([labels[name] for name in names], dtype=np.int64), None


def find_labels(names: Sequence[str], label_file: bytes | None) -> Labels | None:
    """Return the labels of ``names``: from the label file where there is one, else from the folders.

    Raises:
        InvalidInputError: the label file cannot be used.
    """
    return labels_from_folders(names) if label_file is None else labels_from_json(names, label_file)
