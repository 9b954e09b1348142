"""Edits that a manifest lists: source and edited image with a caption each.

    probe = open_edits(Path("edits.csv"), extractor=build_extractor("clip-vit-l-14"))
    rows = probe(np.arange(8), ["clip-directional"])  # what METRICS["clip-directional"] reads

The manifest needs the columns ``source``, ``source_prompt`` and ``prompt`` in every row beside ``edited`` (or
``generated``); see :mod:`evalkit.pairs.manifest`.
"""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import InvalidInputError
from evalkit.pairs.listed_files import open_side
from evalkit.pairs.opening import read_manifest
from evalkit.probes.directional import DirectionalProbe, EditedImages, ImageTextExtractor
from evalkit.sources.decode import DEFAULT_POLICY
from evalkit.sources.formats import ReadSettings

_CAPTIONS = ("source_prompt", "prompt")
_SHOWN = 10


def open_edits(
    path: Path,
    *,
    extractor: ImageTextExtractor,
    settings: ReadSettings | None = None,
    allow_outside: bool = False,
) -> DirectionalProbe:
    """Return the probe of the edits in the manifest at ``path``; row i is its i-th row.

    Args:
        path: CSV, JSON lines or parquet; image paths are relative to its folder.
        extractor: maps images and captions to one space.
        settings: how images are decoded; strict by default.
        allow_outside: let paths leave the manifest's folder.

    Raises:
        UsageError: there is no such file, or the network encodes no text.
        InvalidInputError: the manifest is malformed, an image does not exist, or a row lacks its source or a
            caption.
    """
    manifest = read_manifest(path, allow_outside=allow_outside)
    for column in _CAPTIONS:
        if lines := manifest.lines_without(column):
            shown = ", ".join(map(str, lines[:_SHOWN])) + (" …" if len(lines) > _SHOWN else "")
            raise InvalidInputError(
                f"{path.name}: {len(lines)} of {len(manifest)} rows have no {column}: line {shown}",
                hint="the directional similarity compares the captions before and after the edit",
            )
    reading = settings or ReadSettings(DEFAULT_POLICY, None)
    edited, source = (
        open_side(manifest, side, root=path.parent, settings=reading) for side in ("generated", "source")
    )
    return DirectionalProbe(
        EditedImages(edited, source),
        [row.source_prompt or "" for row in manifest.rows],
        [row.prompt or "" for row in manifest.rows],
        extractor=extractor,
    )
