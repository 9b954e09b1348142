"""Image sets on disk, each an :class:`~evalkit.core.ImageSource`.

    source = open_source("samples.zip")
    batch = source.read(np.arange(64))      # uint8 [64, 3, h, w]

The same files give the same batches from a folder, a zip, a tar or a parquet table: the order is that of the
bytes of the names, first-level folders are the classes, dotfiles and whatever is not an image are left out.
A new format is one file with one ``FORMATS.register``, imported below.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.sources import archive, arrays, folder, parquet, tar_archive  # noqa: F401  # they register
from evalkit.sources.decode import DEFAULT_POLICY, IMAGE_SUFFIXES, DecodePolicy, decode_image
from evalkit.sources.formats import FORMATS, OpenedSource, ReadSettings, Rejected, SourceFormat

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "DecodePolicy",
    "OpenedSource",
    "Rejected",
    "SourceFormat",
    "decode_image",
    "open_source",
]

OnBad = Literal["fail", "skip"]


def open_source(
    path: str | os.PathLike[str],
    *,
    policy: DecodePolicy = DEFAULT_POLICY,
    workers: int | None = None,
    on_bad: OnBad = "fail",
    max_bad: int = 0,
) -> OpenedSource:
    """Open the image set at ``path``, told by its content rather than its name.

    Args:
        path: a folder, zip, tar (also packed), ``.npz``, ``.npy`` or parquet file.
        policy: what to do with alpha, CMYK, animation and orientation; refuses all by default.
        workers: decoding threads; never changes a result. By default one for each core, at most 8. Images
            below 64 x 64 pixels are decoded by one: more would only wait for the interpreter's lock.
        on_bad: ``fail``: an image that cannot be used makes ``read`` raise. ``skip``: one full decoding pass
            now leaves such images out, lists them in ``rejected`` and fixes the indices of the others.
        max_bad: most images that ``skip`` may leave out.

    Raises:
        UsageError: there is no such path, its kind is unknown, or the arguments contradict each other.
        InvalidInputError: the container is damaged or hostile, or more than ``max_bad`` images are bad.
        NothingMeasuredError: it holds no image.
    """
    if on_bad not in {"fail", "skip"} or max_bad < 0 or (max_bad and on_bad == "fail"):
        raise UsageError(
            f"on_bad={on_bad!r} with max_bad={max_bad}", hint="--on-bad skip --max-bad K, K >= 0"
        )
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    location = Path(path)
    source = _find_format(location).open(location, ReadSettings(policy, workers))
    _require_images(source, location)
    if on_bad == "skip":
        source = source.usable(max_bad=max_bad)
        _require_images(source, location)
    return source


def _find_format(path: Path) -> SourceFormat:
    try:
        head = b"" if path.is_dir() else _read_head(path)
    except FileNotFoundError as error:
        raise UsageError(f"{str(path)!r} does not exist", hint=f"give {_accepted()}") from error
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be opened: {error.strerror}") from error
    if not head and not path.is_dir():
        raise InvalidInputError(f"{path.name!r} is empty")
    for name in FORMATS:
        if FORMATS[name].matches(path, head):
            return FORMATS[name]
    raise UsageError(f"{path.name!r} is not a known kind of image set", hint=f"give {_accepted()}")


def _read_head(path: Path) -> bytes:
    if not path.is_file() and path.exists():
        raise UsageError(f"{str(path)!r} is neither a file nor a folder")  # a pipe would block
    with path.open("rb") as stream:
        return stream.read(512)


def _accepted() -> str:
    return ", ".join(FORMATS[name].accepts for name in FORMATS)


def _require_images(source: OpenedSource, path: Path) -> None:
    if len(source) == 0:
        raise NothingMeasuredError(
            f"{path.name!r} holds no image that can be used",
            hint=f"known suffixes: {' '.join(IMAGE_SUFFIXES)}",
        )
