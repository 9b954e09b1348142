"""The worst pairs as one picture: generated, reference and their absolute difference, with name and value."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evalkit.atomic import write_atomically
from evalkit.pairs.matching import stem
from evalkit.pairs.per_pair import PairTable, find_heading
from evalkit.pairs.sources import PairSource
from evalkit.reporting.formatting import significant, to_ascii

_TILE = 192
_GAP, _MARGIN, _LINE, _TEXT_SIZE = 4, 16, 18, 13
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_MOST_GAIN = 16
_ONE_COLUMN = 4  # up to so many pairs stand in one column


@dataclass(frozen=True, slots=True)
class Shown:
    """What a contact sheet shows: so many pairs, ranked by this column."""

    count: int
    by: str


@dataclass(frozen=True, slots=True, eq=False)
class Triplet:
    """One pair on the sheet: uint8 ``[h, w, 3]`` images, and what is written above them."""

    generated: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    name: str
    value: str

    @property
    def difference(self) -> NDArray[np.uint8]:
        """Absolute difference, uint8; an edit's source of another size is resized for this picture alone."""
        reference = self.reference
        if reference.shape != self.generated.shape:
            height, width = self.generated.shape[:2]
            resized = Image.fromarray(reference).resize((width, height), Image.Resampling.BICUBIC)
            reference = np.asarray(resized)
        change = self.generated.astype(np.int16) - reference.astype(np.int16)
        return np.abs(change).astype(np.uint8)


def write_worst(path: Path, pairs: PairSource, table: PairTable, *, by: str | None, count: int) -> Shown:
    """Write the ``count`` worst pairs by the column ``by`` (None chooses) as a PNG file; whole or none.

    Raises:
        UsageError: nothing of that name was measured.
        TemporaryError: the disk is full or read-only.
    """
    heading = find_heading(by, tuple(table.columns))
    chosen = table.worst(heading, count)
    triplets = []
    for index in chosen:  # one at a time: sixteen large images need not be in memory at once with their batch
        batch = pairs.read(np.asarray([index], dtype=np.int64))
        generated, reference = (
            side[0].permute(1, 2, 0).cpu().numpy() for side in (batch.generated, batch.reference)
        )
        name, other = table.names[index]
        text = name if stem(name) == stem(other) else f"{name} | {other}"
        value = f"{heading} {significant(float(table.columns[heading][index]), 4)}"
        triplets.append(Triplet(generated, reference, text, value))
    title = (
        f"{len(chosen)} worst of {len(table.names)} pairs by {heading} ({table.better[heading]} is better)"
    )
    buffer = io.BytesIO()
    draw_sheet(triplets, title=title).save(buffer, format="png")
    write_atomically(path, buffer.getvalue())
    return Shown(len(chosen), heading)


def draw_sheet(triplets: Sequence[Triplet], *, title: str) -> Image.Image:
    """Return the picture: triplets worst first, left to right, then down.

    Images are fitted into square tiles; small ones are enlarged by a whole factor, pixel by pixel. All
    differences are brightened by one factor, which the title names.
    """
    gain = _gain(triplets)
    columns = 1 if len(triplets) <= _ONE_COLUMN else 2
    rows = math.ceil(len(triplets) / columns)
    width = 3 * _TILE + 2 * _GAP
    height = 2 * _LINE + _TILE
    head = 2 * _LINE + _GAP
    sheet = Image.new(
        "RGB",
        (columns * (width + _MARGIN) + _MARGIN, head + rows * (height + _MARGIN) + 2 * _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT_SIZE)
    space = sheet.width - 2 * _MARGIN
    legend = f"left to right: generated, reference, absolute difference x {gain}"
    draw.text((_MARGIN, _MARGIN), _fitted(title, font, space), fill=_INK, font=font)
    draw.text((_MARGIN, _MARGIN + _LINE), _fitted(legend, font, space), fill=_FAINT, font=font)
    for number, triplet in enumerate(triplets):
        left = _MARGIN + (number % columns) * (width + _MARGIN)
        top = _MARGIN + head + (number // columns) * (height + _MARGIN)
        name = _fitted(f"{number + 1}. {triplet.name}", font, width)
        draw.text((left, top), name, fill=_INK, font=font)
        draw.text((left, top + _LINE), _fitted(triplet.value, font, width), fill=_FAINT, font=font)
        brightened = np.clip(triplet.difference.astype(np.uint16) * gain, 0, 255).astype(np.uint8)
        for place, image in enumerate((triplet.generated, triplet.reference, brightened)):
            tile = _tile(image)
            x = left + place * (_TILE + _GAP) + (_TILE - tile.width) // 2
            sheet.paste(tile, (x, top + 2 * _LINE + (_TILE - tile.height) // 2))
    return sheet


def _gain(triplets: Sequence[Triplet]) -> int:
    """The whole factor that makes the hundredth brightest value of the middle triplet about white."""
    levels = [float(np.percentile(triplet.difference, 99)) for triplet in triplets]
    typical = float(np.median(levels)) if levels else 255.0
    return int(min(max(255 / max(typical, 1.0), 1), _MOST_GAIN))


def _tile(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest * 2 <= _TILE:
        factor = _TILE // longest
        size = (picture.width * factor, picture.height * factor)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    return picture


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return ``text`` in ASCII, which the built-in font can draw, its middle cut out where it is too long."""
    plain = "".join(c if c.isprintable() else "?" for c in to_ascii(text))
    if font.getlength(plain) <= width:
        return plain
    fitting = bisect_right(
        range(len(plain)), width, key=lambda keep: math.ceil(font.getlength(_shortened(plain, keep)))
    )
    return _shortened(plain, max(fitting - 1, 0))


def _shortened(text: str, keep: int) -> str:
    """Return the first and last characters of ``text``, ``keep`` in all."""
    return f"{text[: keep // 2]}...{text[len(text) - (keep - keep // 2) :]}"
