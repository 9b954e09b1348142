"""From what the user wrote after ``--reference`` to the statistics of real images.

A bundled or registered name, a reference file, somebody's statistics file, or simply images: a folder or
archive, whose features go through the same one pass as everything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evalkit.core import Extractor, ImageSource, IndexArray
from evalkit.errors import NotComparableError, NothingMeasuredError, UsageError
from evalkit.extraction import Extracted, Job, default_batch_size, state_store
from evalkit.lanes import Lane
from evalkit.references import (
    REGISTERED,
    Reference,
    ReferenceBuilder,
    cached_path,
    cached_reference,
    holds_sample_images,
    load_reference,
    looks_like_statistics,
    reference_names,
    store_reference,
)
from evalkit.references.builder import default_class_heads
from evalkit.references.heads import BankDtype
from evalkit.registry import did_you_mean
from evalkit.shard_locks import Waiting, alone
from evalkit.shards import ShardLayout
from evalkit.sources import open_source
from evalkit.subjects import ImageOptions, identifier_from

ExtractImages = Callable[[Job, str], Extracted]
IMAGES_BANK = 10_000
"""Features kept of a reference that is a folder or archive of images (the 10 000 of ADM and PRDC)."""
_READ_AT_ONCE = 64
_MOMENT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a reference will say about itself; ``name`` is None where the user has to give one."""

    name: str | None
    title: str
    dataset: str
    split: str | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOrder:
    """What to keep of the features: moments of ``heads``, and some features of ``bank_heads``.

    Moments by class are kept of ``class_heads``; None chooses the smallest bank head where that makes sense.
    """

    about: About
    heads: tuple[str, ...]
    bank_heads: tuple[str, ...]
    bank_size: int = IMAGES_BANK
    bank_dtype: BankDtype = "float32"
    class_heads: tuple[str, ...] | None = ()
    command: str = ""


def open_named_source(
    source: str, *, name: str | None, title: str | None, dataset: str | None, split: str | None
) -> tuple[ImageSource, About]:
    """Open a registered recipe or a path of images, and say what it is.

    Raises:
        UsageError: neither a recipe nor a path.
        OfflineError: the recipe needs a download that is not possible now.
    """
    if source in REGISTERED:
        recipe = REGISTERED[source]
        return recipe.open(), About(
            name=name or source, title=title or recipe.title, dataset=dataset or recipe.dataset,
            split=split or recipe.split,
        )  # fmt: skip
    if not Path(source).exists():
        raise UsageError(
            f"no recipe, file or folder called {source!r}", hint=did_you_mean(source, REGISTERED)
        )
    opened = open_source(source)
    dataset = dataset or name or identifier_from(Path(source))
    return opened, About(
        name=name, title=title or dataset, dataset=dataset, split=split, class_names=opened.class_names or ()
    )


def resolve_reference(  # noqa: PLR0913 - what a reference must hold, by keyword
    name: str,
    *,
    extractor: Extractor,
    heads: Sequence[str],
    image_options: ImageOptions,
    state: Path,
    device: torch.device,
    extract_images: ExtractImages,
    class_heads: Sequence[str] = (),
    bank_heads: Sequence[str] = (),
    waiting: Waiting = lambda _holder: time.sleep(_MOMENT_S),
) -> Reference:
    """Return the reference called ``name``, built now where it has to be, with moments by class where asked.

    A registered one is built by one process of a machine: the others are ``waiting``, and read what it kept.

    A file of the ADM evaluator holds sample images beside its moments: where features of ``bank_heads`` are
    wanted, they are those of these images, as that evaluator computes precision and recall.

    Raises:
        NothingMeasuredError: moments by class are wanted of images without labels.
        UsageError: no such name or path.
        NotComparableError: it was made with another extractor.
        OfflineError: a registered recipe needs a download that is not possible now.
    """
    resolving = _Resolving(
        extractor=extractor, heads=tuple(heads), class_heads=tuple(class_heads), state=state, device=device,
        extract_images=extract_images,
    )  # fmt: skip
    if name in REGISTERED:
        return resolving.registered(name, waiting=waiting)
    path, known = Path(name), reference_names()
    if name not in known and not path.exists():
        raise UsageError(f"no reference, file or folder called {name!r}", hint=did_you_mean(name, known))
    if name not in known and not looks_like_statistics(path):
        return resolving.of_images(path, image_options)
    return resolving.of_statistics(name, bank_heads=bank_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolving:
    """What a reference must hold, and what it is built with."""

    extractor: Extractor
    heads: tuple[str, ...]
    class_heads: tuple[str, ...]
    state: Path
    device: torch.device
    extract_images: ExtractImages

    def registered(self, name: str, *, waiting: Waiting) -> Reference:
        """Return what this machine keeps of a recipe, built now by one of its processes."""
        if (kept := self._kept(name)) is not None:
            return kept
        path = cached_path(name, extractor=self.extractor.spec)
        with alone(path.with_name(f".{path.name}.lock"), waiting=waiting):
            if (kept := self._kept(name)) is not None:
                return kept
            source, about = open_named_source(name, name=None, title=None, dataset=None, split=None)
            return store_reference(self.build(source, about), name=name)

    def _kept(self, name: str) -> Reference | None:
        return cached_reference(
            name, extractor=self.extractor.spec, heads=self.heads, class_heads=self.class_heads
        )

    def of_images(self, path: Path, options: ImageOptions) -> Reference:
        """Return the statistics of a folder or archive of images."""
        opened = open_source(
            path, policy=options.policy, workers=options.workers, on_bad=options.on_bad,
            max_bad=options.max_bad,
        )  # fmt: skip
        name = identifier_from(path)
        return self.build(
            opened, About(name=name, title=name, dataset=name, class_names=opened.class_names or ())
        )

    def of_statistics(self, name: str, *, bank_heads: Sequence[str]) -> Reference:
        """Return a named reference or a file; of one by the ADM evaluator with features of its samples."""
        reference = load_reference(name, extractor=self.extractor.spec)
        reference.check_extractor(self.extractor.spec)
        if reference.extractor is None and self.extractor.spec.name != "inception-v3":
            raise NotComparableError(
                f"{name} holds statistics of another tool, which are InceptionV3's, not "
                f"{self.extractor.spec.name}'s",
                hint="add --protocol standard (or pytorch-fid, clean-fid, adm: as the file was made)",
            )
        path = Path(name)
        without = tuple(h for h in bank_heads if h in reference.heads and not reference.heads[h].has_bank)
        if reference.extractor is not None or not without or not holds_sample_images(path):
            return reference
        about = About(name=path.stem, title=path.stem, dataset=path.stem)
        samples = replace(self, heads=without, class_heads=()).build(open_source(path), about)
        banks = {head: samples.heads[head].kept for head in without}
        return reference.with_banks({head: bank for head, bank in banks.items() if bank is not None})

    def build(self, source: ImageSource, about: About) -> Reference:
        """Extract all images, and keep features of every head."""
        return build_reference(
            source,
            ReferenceOrder(
                about=about, heads=self.heads, bank_heads=self.heads, class_heads=self.class_heads
            ),
            extractor=self.extractor,
            state=self.state,
            device=self.device,
            extract_images=self.extract_images,
        )


def images_identity(source: ImageSource) -> str:
    """Return the content's digest; where decoding was told to change pixels, the digest of the whole spec."""
    spec = source.spec
    plain = spec.sha256 is not None and {name for name, _ in spec.params} <= {"count"}
    return spec.sha256 if plain and spec.sha256 else spec.digest()


def build_reference(
    source: ImageSource,
    order: ReferenceOrder,
    *,
    extractor: Extractor,
    state: Path,
    device: torch.device,
    extract_images: ExtractImages,
    batch_size: int | None = None,
) -> Reference:
    """Extract all images of ``source`` once (resumable) and fold them into a reference."""
    layout = ShardLayout(len(source))
    lane = Lane.of_extractor(extractor, order.heads, state_store(state, source, extractor, layout))
    job = Job(
        source=source,
        lanes=(lane,),
        layout=layout,
        batch_size=batch_size or default_batch_size(device),
        device=device,
        patient=True,  # who else computes it, a part of the same run for example, does it for us too
    )
    about = order.about
    extracted = extract_images(job, f"reference {about.dataset}")
    labels = _labels(source, extracted) if order.class_heads != () else None
    size = extracted.image_size()
    return _folded(extracted, order, extractor, labels).build(
        name=about.name or about.dataset,
        title=about.title,
        dataset=about.dataset,
        split=about.split,
        resolution=size[0] if size and size[0] == size[1] else None,
        images_sha256=images_identity(source),
        extractor=extractor.spec,
        class_names=about.class_names,
        command=order.command,
    )


def _folded(
    extracted: Extracted, order: ReferenceOrder, extractor: Extractor, labels: IndexArray | None
) -> ReferenceBuilder:
    builder = ReferenceBuilder(
        {head: extractor.heads[head] for head in order.heads},
        bank_size=order.bank_size,
        bank_heads=order.bank_heads,
        bank_dtype=order.bank_dtype,
        class_heads=_class_heads(order, extractor, labels),
    )
    for shard, result in enumerate(extracted.shards):
        index = extracted.layout.indices(shard)
        features = {head: result.features[head] for head in order.heads}  # read once
        builder.update(features, index, None if labels is None else labels[index])
    return builder


def _class_heads(order: ReferenceOrder, extractor: Extractor, labels: IndexArray | None) -> tuple[str, ...]:
    if order.class_heads is None:
        banked = order.bank_heads if order.bank_size else order.heads
        return default_class_heads({head: extractor.heads[head] for head in banked}, labels)
    if order.class_heads and labels is None:
        raise NothingMeasuredError(
            f"moments by class are wanted, but the images of {order.about.dataset} have no labels",
            hint="a folder for each class gives every image one",
        )
    return order.class_heads


def _labels(source: ImageSource, extracted: Extracted) -> IndexArray | None:
    labels = extracted.labels()
    if labels is not None or source.read(np.zeros(1, dtype=np.int64)).labels is None:
        return labels
    # Shards from before labels were noted: reading the images once more is far cheaper than their features.
    count, parts = len(source), []
    for start in range(0, count, _READ_AT_ONCE):
        part = source.read(np.arange(start, min(start + _READ_AT_ONCE, count), dtype=np.int64)).labels
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts)
