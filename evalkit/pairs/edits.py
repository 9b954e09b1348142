"""CLIP directional similarity of edits: rows of a manifest with source and edited image, and a caption each.

    edits = open_edits(manifest, root=Path("."), settings=settings)
    probe = edits.probe(build_extractor("clip-vit-b-32"))
    rows = probe(np.arange(8), ["clip-directional"])  # what METRICS["clip-directional"] reads

Every row needs ``source``, ``source_prompt`` and ``prompt`` beside ``edited`` (or ``generated``); see
:mod:`evalkit.pairs.manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from evalkit.errors import OfflineError, UsageError
from evalkit.extractors import FACTS, build_extractor
from evalkit.metrics import METRICS
from evalkit.pairs.listed_files import open_side, require_column
from evalkit.pairs.manifest import PairManifest
from evalkit.pairs.readings import Reading
from evalkit.probes.directional import HEAD, DirectionalProbe, EditedImages, ImageTextExtractor
from evalkit.registry import did_you_mean
from evalkit.sources.formats import ReadSettings
from evalkit.spec import sha256_of

if TYPE_CHECKING:
    from evalkit.core import Extractor

METRIC = HEAD
DEFAULT_NETWORK = "clip-vit-b-32"
_COLUMNS = ("source", "source_prompt", "prompt")


@dataclass(frozen=True, slots=True, eq=False)
class Edits:
    """Edited images with what they were made from, and the captions of both, row by row."""

    images: EditedImages
    source_prompts: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def source_sha256(self) -> str:
        """Digest of the images that were edited."""
        return self.images.source_sha256

    @property
    def prompts_sha256(self) -> str:
        """Digest of the captions, in order."""
        return sha256_of([list(self.source_prompts), list(self.prompts)])

    def probe(self, extractor: ImageTextExtractor) -> DirectionalProbe:
        """Return the probe whose row i is edit i; all captions are encoded now.

        Raises:
            UsageError: the network encodes no text.
        """
        return DirectionalProbe(self.images, self.source_prompts, self.prompts, extractor=extractor)


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredEdits:
    """The probe of a run, and how its rows become a score."""

    probe: DirectionalProbe
    reading: Reading


def open_edits(manifest: PairManifest, *, root: Path, settings: ReadSettings) -> Edits:
    """Open the edits in the rows of ``manifest``, whose paths are relative to ``root``.

    Raises:
        InvalidInputError: a row lacks its source or a caption, or a file does not exist; names the lines.
    """
    check_edits(manifest)
    edited, source = (
        open_side(manifest, side, root=root, settings=settings) for side in ("generated", "source")
    )
    return Edits(
        EditedImages(edited, source),
        tuple(row.source_prompt or "" for row in manifest.rows),
        tuple(row.prompt or "" for row in manifest.rows),
    )


def check_edits(manifest: PairManifest) -> None:
    """Raise InvalidInputError with the lines of those rows that lack their source or a caption."""
    for column in _COLUMNS:
        require_column(manifest, column)


def is_of_edits(name: str) -> bool:
    """Whether a name in ``--metrics`` is ``clip-directional`` or ``clip-directional:NETWORK``."""
    return name.partition(":")[0] == METRIC


def edit_network(asked: Sequence[str]) -> str | None:
    """Return the network of the directional similarity in ``asked``, or None where it is not asked for.

    Raises:
        UsageError: two networks, an unknown one, or one that encodes no text.
    """
    networks = {name.partition(":")[2] or DEFAULT_NETWORK for name in asked if is_of_edits(name)}
    if not networks:
        return None
    if len(networks) > 1:
        raise UsageError(
            f"{METRIC} by {' and by '.join(sorted(networks))}", hint="one network a run; run it once for each"
        )
    network = networks.pop()
    if not FACTS[network].encodes_text:
        able = [name for name in FACTS if FACTS[name].encodes_text]
        raise UsageError(f"extractor {network!r} encodes no text", hint=did_you_mean(network, able))
    return network


def measure_edits(
    edits: Edits, network: str, *, weights: Mapping[str, Path], device: torch.device
) -> MeasuredEdits:
    """Build ``network`` and encode the captions.

    Raises:
        CheckpointError: a weights file does not fit.
        OfflineError: the published weights are not on this machine and cannot be fetched; says how to get or
            give them.
    """
    extractor = cast("ImageTextExtractor", _built(network, weights.get(network), str(device)))
    cut = len(_cut(extractor, [*edits.source_prompts, *edits.prompts]))
    told = (f"{cut} captions are longer than the text encoder reads, and were cut",) if cut else ()
    digest = extractor.spec.sha256 or extractor.spec.digest()
    reading = Reading(
        label=f"{METRIC}:{network}" + ("" if extractor.published else f"@{digest[:8]}"),
        region="whole",
        head=HEAD,
        metric=METRICS[METRIC](),
        measure=extractor.spec,
        prompts_sha256=edits.prompts_sha256,
        warnings=told,
    )
    return MeasuredEdits(edits.probe(extractor), reading)


def _built(network: str, weights: Path | None, device: str) -> Extractor:
    try:
        return build_extractor(network, weights=weights, device=device)
    except OfflineError as error:
        flag = f"--weights {network}=FILE"
        hint = error.hint or ""
        raise OfflineError(
            error.message, hint=hint if flag in hint else f"{hint}\n   or: give the file with {flag}".strip()
        ) from error


def _cut(extractor: ImageTextExtractor, captions: Sequence[str]) -> tuple[int, ...]:
    truncated = getattr(extractor, "truncated", None)
    return truncated(captions) if truncated is not None else ()
