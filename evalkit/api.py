"""The Python entry point: :func:`score`, the same run as ``evalkit score``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from evalkit.console import Console, Silent
from evalkit.evaluate import run
from evalkit.extractors.facts import Backend
from evalkit.generators import SamplingOptions
from evalkit.protocol import Precision
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.spec import Scalar
from evalkit.subjects import ImageOptions


def score(  # noqa: PLR0913 - the flags of the command, all by keyword
    *,
    model: str | None = None,
    ckpt: str | Path | None = None,
    preset: str | None = None,
    checkpoint_weights: Literal["ema", "raw"] = "ema",
    images: str | Path | None = None,
    name: str | None = None,
    reference: str | Path | None = None,
    protocol: str = "auto",
    metrics: Sequence[str] = (),
    params: Mapping[str, Mapping[str, Scalar]] | None = None,
    report_at: int | None = None,
    held_out: str | Path | None = None,
    prompts: str | Path | None = None,
    attributes: str | None = None,
    attribute_names: Sequence[str] = (),
    num_samples: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    strict: bool = False,
    precision: Precision = "exact",
    backend: Backend = "auto",
    sampling: SamplingOptions | None = None,
    device: str = "auto",
    weights: Mapping[str, str | Path] | None = None,
    image_options: ImageOptions | None = None,
    out: str | Path = "evalkit-runs",
    fresh: bool = False,
    console: Console | None = None,
) -> RunRecord:
    """Score a model's samples or a set of images; returns the record that is also written below ``out``.

    Args:
        model: registered name or ``pkg.mod:obj``.
        ckpt: checkpoint of the model; the bundled one where None.
        preset: name of what the checkpoint's tensors do not reveal.
        checkpoint_weights: averaged weights where there are any, or those as trained.
        images: folder, zip, tar, npz or parquet file to score instead of a model.
        name: name of the subject in tables.
        reference: listed name, statistics file, or images; needed unless the model is a bundled one.
        protocol: listed name, or ``auto``: ``standard`` where all it needs is here, otherwise ``embedded``.
        metrics: names as after ``--metrics``; those of the protocol where empty, every one for ``["all"]``.
        params: parameters of metrics by metric name: ``{"kd": {"subsets": 10}}``.
        report_at: number of images at which the Fréchet distance is predicted too.
        held_out: real images that the model was not trained on, named like ``reference``.
        prompts: text file with one line for each image of ``images``.
        attributes: ``pkg.mod:obj`` or a file of classifiers for ``separability``.
        attribute_names: names of the attributes, in the order of their logits.
        num_samples: images to score; the protocol's number where None.
        seed: base seed of the samples.
        batch_size: never moves a score beyond float32 rounding; None chooses.
        strict: equal to the last bit on every run of this machine, at about half the speed on two cores.
        precision: ``fast`` runs the networks that measure in bfloat16 and TF32, a protocol of its own.
        backend: what runs those networks; it never moves a score beyond float32 rounding.
        sampling: sampler, steps, guidance and dtype of the model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        weights: weights files by extractor.
        image_options: how files of images are decoded.
        out: folder of records and resumable state.
        fresh: forget earlier state of the same subject.
        console: told of progress; silent where None.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request = ScoreRequest(
        model=model,
        ckpt=None if ckpt is None else Path(ckpt),
        preset=preset,
        checkpoint_weights=checkpoint_weights,
        images=None if images is None else Path(images),
        name=name,
        reference=None if reference is None else str(reference),
        protocol=protocol,
        metrics=tuple(metrics),
        params=params or {},
        report_at=report_at,
        held_out=None if held_out is None else str(held_out),
        prompts=None if prompts is None else Path(prompts),
        attributes=attributes,
        attribute_names=tuple(attribute_names),
        num_samples=num_samples,
        seed=seed,
        batch_size=batch_size,
        strict=strict,
        precision=precision,
        backend=backend,
        sampling=sampling or SamplingOptions(),
        device=device,
        weights={key: Path(value) for key, value in (weights or {}).items()},
        image_options=image_options or ImageOptions(),
        out=Path(out),
        fresh=fresh,
        command=("evalkit.score",),
    )
    return run(request, console=console or Silent())
