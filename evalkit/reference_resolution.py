"""From what the user wrote after ``--reference`` to the statistics of real images.

A bundled or registered name, a reference file, somebody's statistics file, or simply images: a folder or
archive, whose features go through the same one pass as everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from evalkit.core import Extractor, ImageSource
from evalkit.errors import UsageError
from evalkit.extraction import Extracted, Job
from evalkit.references import (
    REGISTERED,
    Reference,
    ReferenceBuilder,
    cached_reference,
    load_reference,
    looks_like_statistics,
    reference_names,
    store_reference,
)
from evalkit.registry import did_you_mean
from evalkit.shards import ShardLayout, ShardStore
from evalkit.sources import open_source
from evalkit.subjects import ImageOptions, identifier_from

ExtractImages = Callable[[Job, str], Extracted]
IMAGES_BANK = 10_000
"""Features kept of a reference that is a folder or archive of images (the 10 000 of ADM and PRDC)."""


def resolve_reference(
    name: str,
    *,
    extractor: Extractor,
    heads: Sequence[str],
    image_options: ImageOptions,
    state: Path,
    device: torch.device,
    extract_images: ExtractImages,
) -> Reference:
    """Return the reference called ``name``, built now where it has to be.

    Raises:
        UsageError: no such name or path.
        NotComparableError: it was made with another extractor.
        OfflineError: a registered recipe needs a download that is not possible now.
    """
    path = Path(name)

    def build(source: ImageSource, *, title: str, dataset: str, split: str | None) -> Reference:
        return build_reference(
            source, extractor=extractor, heads=tuple(heads), state=state, device=device,
            extract_images=extract_images, title=title, dataset=dataset, split=split,
        )  # fmt: skip

    if path.exists() and not looks_like_statistics(path):
        source = open_source(
            path,
            policy=image_options.policy,
            workers=image_options.workers,
            on_bad=image_options.on_bad,
            max_bad=image_options.max_bad,
        )
        identifier = identifier_from(path)
        return build(source, title=identifier, dataset=identifier, split=None)
    if name in REGISTERED:
        cached = cached_reference(name, extractor=extractor.spec)
        if cached is not None:
            return cached
        recipe = REGISTERED[name]
        built = build(recipe.open(), title=recipe.title, dataset=recipe.dataset, split=recipe.split)
        return store_reference(built, name=name)
    if not path.exists() and name not in reference_names():
        raise UsageError(
            f"no reference, file or folder called {name!r}", hint=did_you_mean(name, reference_names())
        )
    reference = load_reference(name, extractor=extractor.spec)
    reference.check_extractor(extractor.spec)
    return reference


def build_reference(
    source: ImageSource,
    *,
    extractor: Extractor,
    heads: tuple[str, ...],
    state: Path,
    device: torch.device,
    extract_images: ExtractImages,
    title: str,
    dataset: str,
    split: str | None,
    bank_size: int = IMAGES_BANK,
    bank_heads: tuple[str, ...] | None = None,
) -> Reference:
    """Extract all images of ``source`` once (resumable) and fold them into a reference."""
    layout = ShardLayout(len(source))
    key = f"{source.spec.digest()[:16]}-{extractor.spec.digest()[:16]}-{layout.shard_size}"
    job = Job(
        source=source, extractor=extractor, heads=heads, layout=layout, store=ShardStore(state / key),
        batch_size=64 if device.type == "cpu" else 512, device=device,
    )  # fmt: skip
    extracted = extract_images(job, f"reference {dataset}")
    builder = ReferenceBuilder(
        {head: extractor.heads[head] for head in heads}, bank_size=bank_size, bank_heads=bank_heads or heads
    )
    for shard, result in enumerate(extracted.shards):
        builder.update(result.features, layout.indices(shard))
    size = extracted.image_size()
    return builder.build(
        name=dataset,
        title=title,
        dataset=dataset,
        split=split,
        resolution=size[0] if size and size[0] == size[1] else None,
        images_sha256=source.spec.sha256 or source.spec.digest(),
        extractor=extractor.spec,
    )
