"""A list of prompts: a UTF-8 text file, one line for each image, in the order of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from evalkit.core import ImageSource, IndexArray
from evalkit.errors import InvalidInputError, UsageError
from evalkit.sources.encoded import EncodedImages
from evalkit.sources.generated import GeneratedSource
from evalkit.sources.subset import SubsetSource

_LONGEST = 10_000


def read_prompts(path: Path | None, source: ImageSource, *, found: int) -> tuple[str, ...]:
    """Return the prompt of each image of ``source``; a random subset of the images takes its own lines.

    Args:
        path: the file.
        source: the images that are scored.
        found: number of images that the file must have a line for.

    Raises:
        UsageError: there is no such file.
        InvalidInputError: it is not UTF-8, has an empty or absurdly long line, or not ``found`` lines.
    """
    lines = _lines(path)
    if len(lines) != found:
        raise InvalidInputError(
            f"{path.name if path else ''} has {len(lines)} prompts for {found} images",
            hint="one line for each image, in order",
        )
    index = np.arange(len(source), dtype=np.int64)
    return tuple(lines[position] for position in _positions(source, index))


def drawn_with_prompts(source: ImageSource, path: Path) -> GeneratedSource:
    """Return ``source`` drawing image i from line ``i mod k`` of a file of k prompts.

    Raises:
        UsageError: there is no such file, or the model is not told in words what to draw.
        InvalidInputError: the file is not UTF-8, or has no line, an empty one or an absurdly long one.
    """
    if not (isinstance(source, GeneratedSource) and source.prompted):
        raise UsageError("this model takes no prompts", hint="drop --prompts; text pipelines take them")
    lines = _lines(path)
    if not lines:
        raise InvalidInputError(f"{path.name} has no prompts", hint="one line for each image, in order")
    return replace(source, prompts=tuple(lines[i % len(lines)] for i in range(source.count)))


def _lines(path: Path | None) -> list[str]:
    if path is None or not path.is_file():
        raise UsageError(f"there is no file of prompts {str(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path.name} is not UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or len(line) > _LONGEST:
            raise InvalidInputError(f"{path.name}, line {number}: a prompt of {len(line)} characters")
    return lines


def _positions(source: ImageSource, index: IndexArray) -> IndexArray:
    """Where the images lie among all that were found: before rejects and subsets were taken out."""
    if isinstance(source, SubsetSource):
        return _positions(source.source, source.positions(index))
    return source.positions(index) if isinstance(source, EncodedImages) else index
