"""What a run of ``evalkit score`` was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import UsageError
from evalkit.extractors.facts import Backend
from evalkit.generators import SamplingOptions
from evalkit.generators.checkpoint import Weights
from evalkit.mirror import NO_MIRROR, Mirror
from evalkit.protocol import Precision
from evalkit.spec import Scalar
from evalkit.subjects import ImageOptions

_NO_MODEL = "name a --model to score, or leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Everything that ``evalkit score`` and :func:`score` accept; see the README for what each means.

    ``strict`` asks for results that are equal to the last bit on every run of one machine: batches are fixed
    then, and ``batch_size`` is not used. ``precision``: ``fast`` runs the networks that measure in bfloat16,
    which is a protocol of its own. ``backend``: what runs those networks. ``translate``: the model turns
    ``images`` into the images to score. ``mirror`` keeps the state below ``out`` equal to that elsewhere.
    ``launch`` names what began several processes: ``fresh`` forgets older shards once for it.
    """

    model: str | None = None
    ckpt: Path | None = None
    preset: str | None = None
    checkpoint_weights: Weights = "ema"
    images: Path | None = None
    name: str | None = None
    reference: str | None = None
    protocol: str = "auto"
    metrics: tuple[str, ...] = ()
    params: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    report_at: int | None = None
    held_out: str | None = None
    prompts: Path | None = None
    attributes: str | None = None
    attribute_names: tuple[str, ...] = ()
    num_samples: int | None = None
    seed: int = 0
    batch_size: int | None = None
    strict: bool = False
    precision: Precision = "exact"
    backend: Backend = "auto"
    translate: bool = False
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    device: str = "auto"
    weights: Mapping[str, Path] = field(default_factory=dict)
    image_options: ImageOptions = field(default_factory=ImageOptions)
    out: Path = Path("evalkit-runs")
    fresh: bool = False
    command: tuple[str, ...] = ()
    mirror: Mirror = field(default=NO_MIRROR, metadata={"key": None})
    launch: str = field(default="", metadata={"key": None})

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: not exactly one subject, or a number out of range.
        """
        if self.translate and (self.model is None or self.images is None):
            raise UsageError(
                "--task translate needs a model and images",
                hint="evalkit score --task translate --model cyclegan --ckpt G.pth --images photos/ "
                "--reference paintings/",
            )
        if not self.translate and (self.model is None) == (self.images is None):
            raise UsageError("name exactly one subject", hint="--model NAME [--ckpt FILE], or --images PATH")
        if self.strict and self.precision == "fast":
            raise UsageError(
                "--precision fast does not go with --determinism strict",
                hint="the same bits on every run need exact float32",
            )
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, not {self.seed}", hint="0 is the default")
        if self.model is None and self.sampling != SamplingOptions():
            raise UsageError(
                "--sampler, --steps, --guidance, --eta, --truncation, --reference-factor and --dtype "
                "belong to --model",
                hint="leave them out: the images of --images are drawn already",
            )
        if self.model is None and self.ckpt is not None:
            raise UsageError("--ckpt belongs to --model, not to --images", hint=_NO_MODEL)
        if self.model is None and (self.preset is not None or self.checkpoint_weights != "ema"):
            raise UsageError("--preset and --weights raw belong to --model, not to --images", hint=_NO_MODEL)
        for value, flag in (
            (self.num_samples, "--num-samples"),
            (self.batch_size, "--batch-size"),
            (self.report_at, "--report-at"),
        ):
            if value is not None and value < 1:
                raise UsageError(
                    f"{flag} must be at least 1, not {value}", hint="leave it out for the default"
                )
