"""From a request to pairs: two image sets that are matched, or the rows of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.pairs.edits import Edits, check_edits, is_of_edits, open_edits
from evalkit.pairs.listed_files import open_side
from evalkit.pairs.manifest import PairManifest, parse_manifest
from evalkit.pairs.matching import Pairing, choose_rule, match_by_index, match_by_name, match_masks
from evalkit.pairs.request import PairsRequest
from evalkit.pairs.sources import MatchedPairs, PairSource
from evalkit.record import ModelInfo, check_identifier
from evalkit.seeding import stream
from evalkit.sources import OpenedSource, Rejected, open_source
from evalkit.sources.encoded import EncodedImages, rejection_error
from evalkit.sources.formats import ReadSettings
from evalkit.subjects import ImageOptions, identifier_from

_NAMED_FORMATS = frozenset({"folder", "zip", "tar"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedPairs:
    """Pairs, and what the record says about where they come from.

    Attributes:
        info: the generated side, which is judged.
        dataset: name of the reference side.
        found: pairs before any was left out as unreadable or by a subset.
        rejected: ``name: reason`` of each pair that was left out.
        edits: the same pairs as edits with their sources and captions, where they were asked for.
    """

    pairs: PairSource
    info: ModelInfo
    dataset: str
    found: int
    rejected: tuple[str, ...] = ()
    edits: Edits | None = None


def open_pairs(request: PairsRequest) -> OpenedPairs:
    """Open both sides of a request and settle who belongs to whom.

    Raises:
        UsageError: a path does not exist, or names were asked for where there are none.
        InvalidInputError: the sides do not match, the manifest is malformed, or more images are bad than
            allowed.
    """
    if request.manifest is not None:
        return _open_manifest(request, request.manifest)
    if request.generated is None or request.reference is None:
        raise UsageError("two image sets are needed")
    generated, reference = (
        _open_images(path, request.image_options) for path in (request.generated, request.reference)
    )
    masks = _open_images(request.masks, request.image_options) if request.masks else None
    pairing = _match(request, generated, reference, masks)
    return _opened(
        request, pairing, (generated, reference, masks), identifier_from(request.generated),
        dataset=identifier_from(request.reference),
    )  # fmt: skip


def read_manifest(path: Path, *, allow_outside: bool) -> PairManifest:
    """Return the manifest at ``path``; errors name the file.

    Raises:
        UsageError: there is no such file.
        InvalidInputError: see :func:`~evalkit.pairs.manifest.parse_manifest`.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{str(path)!r} is not a file", hint="a manifest is CSV, JSON lines or parquet")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be opened: {error.strerror}") from error
    try:
        return parse_manifest(data, allow_outside=allow_outside)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path.name}: {error.message}", hint=error.hint) from error


def subset(pairing: Pairing, count: int | None, *, seed: int) -> Pairing:
    """Return a fixed random subset of ``count`` pairs in their order; all where None.

    Raises:
        InvalidInputError: there are fewer.
    """
    if count is None or count == len(pairing):
        return pairing
    if count > len(pairing):
        raise InvalidInputError(
            f"there are {len(pairing)} pairs, fewer than the {count} asked for",
            hint=f"--num-samples {len(pairing)}",
        )
    chosen = stream(seed, "subset").choice(len(pairing), count, replace=False)
    return pairing.take(np.sort(chosen).astype(np.int64))


def _open_manifest(request: PairsRequest, path: Path) -> OpenedPairs:
    manifest = read_manifest(path, allow_outside=request.allow_outside)
    settings = ReadSettings(request.image_options.policy, request.image_options.workers)
    root = path.parent
    asked_measures = request.measuring.measures
    of_edits = [is_of_edits(name) for name in asked_measures]
    generated = open_side(manifest, "generated", root=root, settings=settings)
    source = None
    if any(of_edits):
        check_edits(manifest)
        source = open_side(manifest, "source", root=root, settings=settings)
    if source is not None and all(of_edits):
        reference = source
    else:
        _check_references(manifest)
        reference = open_side(manifest, "reference", root=root, settings=settings)
    without = manifest.lines_without("mask")
    asked = {"inside", "outside"} & set(request.measuring.regions)
    has_masks = len(without) < len(manifest) and request.measuring.regions != ("whole",)
    masks = None
    if has_masks or asked:  # raises where some rows lack one
        masks = open_side(manifest, "mask", root=root, settings=settings)
    positions = np.arange(len(manifest), dtype=np.int64)
    pairing = Pairing("manifest", positions, positions, None if masks is None else positions)
    opened = _opened(
        request, pairing, (generated, reference, masks), identifier_from(path),
        dataset=identifier_from(path), source=source,
    )  # fmt: skip
    if source is None:
        return opened
    used = manifest.take(opened.pairs.pairing.generated.tolist())
    return replace(opened, edits=open_edits(used, root=root, settings=settings))


def _check_references(manifest: PairManifest) -> None:
    if len(manifest.lines_without("reference")) == len(manifest):
        raise InvalidInputError(
            "the manifest has no column 'reference', which pairs are compared with",
            hint="add it (or 'target'); only --metrics clip-directional does without",
        )


def _open_images(path: Path, options: ImageOptions) -> OpenedSource:
    # A bad image takes its partner with it, so that neither side may skip images on its own.
    return open_source(path, policy=options.policy, workers=options.workers)


def _match(
    request: PairsRequest, generated: OpenedSource, reference: OpenedSource, masks: OpenedSource | None
) -> Pairing:
    named = {id(s): s.spec.name in _NAMED_FORMATS for s in (generated, reference, masks) if s is not None}
    rule = choose_rule(
        request.match, generated_named=named[id(generated)], reference_named=named[id(reference)]
    )
    if rule == "index":
        pairing = match_by_index(len(generated), len(reference))
    else:
        pairing = match_by_name(_names(generated), _names(reference), allow_unmatched=request.allow_unmatched)
    if masks is None:
        return pairing
    if rule == "name" and named[id(masks)]:
        return match_masks(pairing, _names(generated), _names(masks), allow_unmatched=request.allow_unmatched)
    if len(masks) != len(generated):
        raise InvalidInputError(f"{len(masks)} masks for {len(generated)} generated images")
    return Pairing(pairing.rule, pairing.generated, pairing.reference, pairing.generated, pairing.unmatched)


def _opened(
    request: PairsRequest,
    pairing: Pairing,
    sides: tuple[OpenedSource, OpenedSource, OpenedSource | None],
    identifier: str,
    *,
    dataset: str,
    source: EncodedImages | None = None,
) -> OpenedPairs:
    generated, reference, masks = sides
    found = len(pairing)
    more = [] if source is None or source is reference else [(source, pairing.generated)]
    used = [(generated, pairing.generated), (reference, pairing.reference), (masks, pairing.masks), *more]
    pairing, rejected = without_bad(pairing, used, request.image_options)
    measuring = request.measuring
    pairing = subset(pairing, measuring.num_samples, seed=measuring.seed)
    info = ModelInfo(
        id=check_identifier(request.name or identifier),
        family="images",
        format=generated.spec.name,
        sha256=generated.spec.sha256,
    )
    return OpenedPairs(
        pairs=MatchedPairs(generated, reference, pairing, masks=masks, same_size=reference is not source),
        info=info,
        dataset=dataset,
        found=found,
        rejected=tuple(f"{image.name}: {image.reason}" for image in rejected),
    )


def without_bad(
    pairing: Pairing,
    sides: Sequence[tuple[OpenedSource | None, IndexArray | None]],
    options: ImageOptions,
) -> tuple[Pairing, list[Rejected]]:
    """Leave out the pairs of which an image cannot be used, where that is allowed.

    ``sides`` are sets of images, each with the position of every pair's image in it.
    """
    if options.on_bad == "fail":
        if options.max_bad:
            raise UsageError("--max-bad belongs to --on-bad skip")
        return pairing, []
    keep = np.ones(len(pairing), dtype=bool)
    rejected: list[Rejected] = []
    for source, positions in sides:
        if source is None or positions is None:
            continue
        bad = {image.name: image for image in source.check()}
        for pair, position in enumerate(positions.tolist()):
            if keep[pair] and (name := source.name_of(position)) in bad:
                keep[pair] = False
                rejected.append(bad[name])
    if len(rejected) > options.max_bad:
        raise rejection_error(rejected, checked=len(pairing))
    if not keep.any():
        raise NothingMeasuredError("no pair is left")
    return pairing.take(np.flatnonzero(keep).astype(np.int64)), rejected


def _names(source: OpenedSource) -> list[str]:
    return [source.name_of(position) for position in range(len(source))]
