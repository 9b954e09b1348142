"""A grid of a run's samples as one small WebP picture: from a picture, or from a folder of samples.

Samples keep their own pixels: a page can enlarge them, nothing can bring back what scaling lost.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError

MOST_PIXELS = 512
"""Of either side of a grid."""

MOST_BYTES = 60_000
COLUMNS, ROWS = 8, 4

_SUFFIXES = {".png", ".webp"}
_FORMATS = ("PNG", "WEBP")
_LARGEST = 64_000_000  # pixels; more is no grid of samples, and would take gigabytes to decode
_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20)


def sample_grid(path: Path) -> bytes:
    """Return the WebP bytes of a grid: ``path`` is the grid, or a folder whose first 32 samples make one.

    At most 512 pixels a side and 60 kB; files of a folder come in the order of the numbers in their names.

    Raises:
        UsageError: there is no such file, or it ends in neither .png nor .webp.
        NothingMeasuredError: the folder holds no picture.
        InvalidInputError: not a still picture, too large, or samples of several sizes.
    """
    if path.is_dir():
        return _encoded(_arranged(path))
    if not path.is_file():
        raise UsageError(
            f"no picture or folder at {path}", hint="evalkit sample --model NAME -n 32 --out DIR"
        )
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path.name} ends in neither .png nor .webp", hint="or name a folder of samples")
    return _encoded(_opened(path))


def _arranged(folder: Path) -> Image.Image:
    files = sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file()),
        key=_natural,
    )[: COLUMNS * ROWS]
    if not files:
        raise NothingMeasuredError(f"{folder} holds no .png or .webp picture", hint="give its samples")
    tiles = [_opened(file) for file in files]
    for file, tile in zip(files, tiles, strict=True):
        if tile.size != tiles[0].size:
            raise InvalidInputError(f"{file} is {_size(tile)}, but {files[0].name} is {_size(tiles[0])}")
    return _tiled(tiles)


def _tiled(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    # Tiles are made small first: 32 large samples side by side need not fit into memory.
    share = min(1.0, MOST_PIXELS / (columns * width), MOST_PIXELS / (-(-len(tiles) // columns) * height))
    size = max(1, int(width * share)), max(1, int(height * share))
    grid = Image.new("RGB", (columns * size[0], -(-len(tiles) // columns) * size[1]), "white")
    for place, tile in enumerate(tiles):
        small = tile if tile.size == size else tile.resize(size, Image.Resampling.LANCZOS)
        grid.paste(small, (place % columns * size[0], place // columns * size[1]))
    return grid


def _opened(path: Path) -> Image.Image:
    """Return a still picture as RGB over white, decoded within bounds."""
    try:
        with warnings.catch_warnings():
            # Of a size that Pillow warns of, ours is the word.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                _check(picture, path)
                picture.load()
                return _over_white(picture)
    except Image.DecompressionBombError as error:
        raise InvalidInputError(f"{path} is too large for a grid of samples") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"{path} is not a PNG or WebP picture: {error}") from error


def _check(picture: Image.Image, path: Path) -> None:
    if picture.width * picture.height > _LARGEST:
        raise InvalidInputError(f"{path} is {_size(picture)}: too large for a grid of samples")
    if getattr(picture, "n_frames", 1) > 1:
        raise InvalidInputError(f"{path} is animated", hint="give a still picture")


def _over_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _encoded(picture: Image.Image) -> bytes:
    """Return WebP bytes of the best quality that fits; a new picture carries no metadata of the old one."""
    grid = Image.frombytes("RGB", picture.size, picture.tobytes())
    grid.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    for quality in _QUALITIES:
        stream = io.BytesIO()
        grid.save(stream, "WEBP", quality=quality, method=6)
        if stream.tell() <= MOST_BYTES:
            return stream.getvalue()
    raise InvalidInputError(f"a grid of {_size(grid)} does not fit into {MOST_BYTES} bytes")


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} pixels"
