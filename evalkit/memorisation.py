"""The memorisation search: samples and training images -> features -> nearest training image of every sample.

Features go through the same one pass and the same state folder as scores, so that a search after a score of
the same images extracts nothing anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.atomic import write_atomically
from evalkit.console import Console
from evalkit.core import Extractor, ImageSource, IndexArray
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.extraction import Job, default_batch_size, extract, state_store
from evalkit.extractors import FACTS, build_extractor
from evalkit.generators import SamplingOptions
from evalkit.lanes import Lane
from evalkit.numerics.memorisation import NEAR_QUANTILE, MemorisationTable, memorisation_table
from evalkit.pairs.contact_sheet import Triplet, draw_sheet
from evalkit.references import REGISTERED, Reference, load_reference, looks_like_statistics, reference_names
from evalkit.reporting.formatting import significant
from evalkit.reporting.memorisation import MemorisationReport
from evalkit.runtime import resolve_device
from evalkit.shards import ShardLayout
from evalkit.sources import open_source
from evalkit.sources.subset import SubsetSource
from evalkit.subjects import ImageOptions, identifier_from, open_generator

STATE_FOLDER = "state"
DEFAULT_SAMPLES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorisationRequest:
    """Everything that ``evalkit memorisation`` accepts.

    Attributes:
        training: what the model was trained on: images, a registered data set, or a reference with features.
        images: the samples, or ``model`` (with ``ckpt``) that makes ``num_samples`` of them.
        extractor: whose ``head`` distances are taken in; None is that for features, or one a reference keeps.
        near_quantile: see :func:`~evalkit.numerics.memorisation.memorisation_table`.
        out: folder of the state that a killed search resumes from.
    """

    training: str
    images: Path | None = None
    model: str | None = None
    ckpt: Path | None = None
    num_samples: int | None = None
    seed: int = 0
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    extractor: str = "efficientnet-lite0"
    head: str | None = None
    weights: Path | None = None
    image_options: ImageOptions = field(default_factory=ImageOptions)
    near_quantile: float = NEAR_QUANTILE
    device: str = "auto"
    batch_size: int | None = None
    out: Path = Path("evalkit-runs")

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: not exactly one subject, or a number out of range.
        """
        if (self.model is None) == (self.images is None):
            raise UsageError("name exactly one subject", hint="--images PATH, or --model NAME [--ckpt FILE]")
        if self.ckpt is not None and self.model is None:
            raise UsageError("--ckpt belongs to --model, not to --images")
        if self.num_samples is not None and self.num_samples < 1:
            raise UsageError(f"--num-samples must be at least 1, not {self.num_samples}")
        if not 0 < self.near_quantile < 1:
            raise UsageError(f"--near-quantile lies between 0 and 1, not at {self.near_quantile}")


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Images, or features that were kept of them, with their names.

    Attributes:
        label: what they are.
        source: the images; None where only features are at hand.
        features: float32 ``[m, d]``; ``index`` int64 ``[m]`` their numbers; ``count`` images that there are.
    """

    label: str
    source: ImageSource | None
    features: NDArray[np.float32]
    index: IndexArray
    count: int

    def name(self, number: int) -> str:
        """Name of image ``number``, or the number itself."""
        source = self.source
        if isinstance(source, SubsetSource):
            number = int(source.positions(np.array([number], dtype=np.int64))[0])
            source = source.source
        named = getattr(source, "name_of", None)
        return str(named(number)) if callable(named) else str(number)

    def image(self, number: int) -> NDArray[np.uint8]:
        """Pixels of image ``number``, uint8 ``[h, w, 3]``.

        Raises:
            UsageError: only features are at hand.
        """
        if self.source is None:
            raise UsageError(f"the images of {self.label} are not at hand")
        image = self.source.read(np.array([number], dtype=np.int64)).images[0]
        return np.asarray(image.permute(1, 2, 0).cpu().numpy(), dtype=np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Both sides of a search, and what it found."""

    generated: Side
    training: Side
    report: MemorisationReport

    def write_pairs(self, path: Path, *, count: int) -> int:
        """Write the closest pairs as a PNG file; return how many. The whole file or none.

        Raises:
            UsageError: the training images are not at hand, only features of them.
            TemporaryError: the disk is full or read-only.
        """
        table, report = self.report.table, self.report
        triplets = []
        for row in table.most_alike(count).tolist():
            generated = self.generated.image(row)
            training = self.training.image(int(table.nearest[row]))
            if training.shape != generated.shape:
                training = _resized(training, generated.shape[:2])
            name = f"{report.generated_names[row]} | {report.training_names[row]}"
            value = f"{report.kind(row)}, distance {significant(float(table.distance[row]), 4)}"
            triplets.append(Triplet(generated, training, name, value))
        title = f"{len(triplets)} samples most like a training image, of {len(table.distance)}"
        buffer = io.BytesIO()
        draw_sheet(triplets, title=title).save(buffer, format="png")
        write_atomically(path, buffer.getvalue())
        return len(triplets)


def search(request: MemorisationRequest, *, console: Console, stop: Callable[[], int] = lambda: 0) -> Search:
    """Find the nearest training image of every sample; resumes what an earlier search began.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request.check()
    device = resolve_device(request.device)
    extractor = build_extractor(request.extractor, weights=request.weights, device=str(device))
    reference = _reference(request.training, extractor)
    head = request.head or _default_head(request.extractor, reference, console)
    if head not in extractor.heads:
        raise UsageError(
            f"{request.extractor!r} has no head {head!r}", hint=f"one of {', '.join(extractor.heads)}"
        )
    work = _Work(request, extractor, head, reference, device, console, stop)
    training = work.training()
    label, source = work.samples()
    generated = work.extracted(label, source)
    if len(training.features) < training.count:
        console.note(
            f"{request.training} keeps features of {len(training.features)} of its {training.count} images: "
            "copies of the others go unseen; give the images themselves"
        )
    table = memorisation_table(
        generated.features, training.features, training.index, near_quantile=request.near_quantile
    )
    report = MemorisationReport(
        table=table,
        generated_names=tuple(generated.name(row) for row in range(generated.count)),
        training_names=tuple(training.name(int(number)) for number in table.nearest),
        identical=_identical(generated, training, table),
        subject=generated.label,
        training=training.label,
        training_count=training.count,
        extractor=extractor.spec,
        head=head,
        near_quantile=request.near_quantile,
    )
    return Search(generated, training, report)


def _reference(name: str, extractor: Extractor) -> Reference | None:
    """The reference that ``name`` stands for; None where there are images to read."""
    path = Path(name)
    images = name not in reference_names() and path.exists() and not looks_like_statistics(path)
    return None if images or name in REGISTERED else load_reference(name, extractor=extractor.spec)


def _default_head(extractor: str, reference: Reference | None, console: Console) -> str:
    """The head for features, or where a reference keeps none of it, the first that it keeps features of."""
    facts = FACTS[extractor]
    usual, known = facts.head_for("features"), reference.heads if reference else {}
    kept = [name for name, _ in facts.heads if name in known and known[name].has_bank]
    if kept and usual not in kept:
        console.note(f"--head {kept[0]}: the reference keeps no features of head {usual!r}")
        return kept[0]
    return usual


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What stays the same through a search."""

    request: MemorisationRequest
    extractor: Extractor
    head: str
    reference: Reference | None
    device: torch.device
    console: Console
    stop: Callable[[], int]

    def samples(self) -> tuple[str, ImageSource]:
        """The samples, and what they are called."""
        request = self.request
        if request.model is not None:
            options = replace(request.sampling, device=str(self.device))
            count = request.num_samples or DEFAULT_SAMPLES
            subject = open_generator(
                request.model, ckpt=request.ckpt, options=options, name=None, count=count, seed=request.seed
            )
            return subject.info.id, subject.source
        if request.images is None:
            raise UsageError("no subject")
        source = self._opened(request.images)
        wanted = request.num_samples or len(source)
        if wanted > len(source):
            few = f"{request.images} holds {len(source)} images, fewer than the {wanted} asked for"
            raise UsageError(few, hint=f"--num-samples {len(source)}")
        used = source if wanted == len(source) else SubsetSource(source, wanted, request.seed)
        return identifier_from(request.images), used

    def training(self) -> Side:
        """The training images through the network, or the features that a reference keeps of them."""
        name = self.request.training
        if name in REGISTERED:
            return self.extracted(name, REGISTERED[name].open())
        if (reference := self.reference) is None:
            return self.extracted(identifier_from(Path(name)), self._opened(Path(name)))
        kept = reference.head(self.head).kept
        if kept is None:
            others = [head for head, known in reference.heads.items() if known.has_bank]
            raise NothingMeasuredError(
                f"reference {name!r} keeps no features of head {self.head!r}",
                hint=f"--head {others[0]}" if others else "give the training images themselves",
            )
        return Side(reference.name, None, kept.features, kept.index, max(reference.count, len(kept.features)))

    def extracted(self, label: str, source: ImageSource) -> Side:
        """All images of ``source`` through the network."""
        layout = ShardLayout(len(source))
        store = state_store(self.request.out / STATE_FOLDER, source, self.extractor, layout)
        job = Job(
            source=source,
            lanes=(Lane.of_extractor(self.extractor, (self.head,), store),),
            layout=layout,
            batch_size=self.request.batch_size or default_batch_size(self.device),
            device=self.device,
        )
        with self.console.progress(f"reading {label}", layout.count) as progress:
            (done,) = extract(job, progress=progress, stop=self.stop)
        for warning in done.warnings:
            self.console.note(warning)
        index = np.arange(layout.count, dtype=np.int64)
        return Side(label, source, done.features(self.head), index, layout.count)

    def _opened(self, path: Path) -> ImageSource:
        o = self.request.image_options
        return open_source(path, policy=o.policy, workers=o.workers, on_bad=o.on_bad, max_bad=o.max_bad)


def _identical(generated: Side, training: Side, table: MemorisationTable) -> NDArray[np.bool_] | None:
    """Whether all pixels of a sample equal its training image's; only equal features need a look."""
    if training.source is None:
        return None
    flags = np.zeros(len(table.exact), dtype=np.bool_)
    for row in np.flatnonzero(table.exact).tolist():
        flags[row] = np.array_equal(generated.image(row), training.image(int(table.nearest[row])))
    return flags


def _resized(image: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """``image`` at the height and width ``size``, for the eye only."""
    from PIL import Image  # noqa: PLC0415 - only where sizes differ

    scaled = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(scaled, dtype=np.uint8)
