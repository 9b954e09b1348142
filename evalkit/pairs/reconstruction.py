"""How well a model with an encoder gives back what it is shown: ``evalkit score --task reconstruct``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from evalkit.console import Console
from evalkit.core import Generator, IndexArray, Reconstructor
from evalkit.errors import EvalkitError, InvalidInputError, UsageError
from evalkit.generators import SamplingOptions
from evalkit.generators.loading import is_native
from evalkit.pairs.evaluate import measure_pairs
from evalkit.pairs.matching import Pairing
from evalkit.pairs.opening import OpenedPairs, subset, without_bad
from evalkit.pairs.request import Measuring, Outputs
from evalkit.pairs.sources import NamedSource, PairBatch, used_digest
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device
from evalkit.sources import open_source
from evalkit.spec import Spec
from evalkit.subjects import ImageOptions, callable_origin, identifier_from, open_generator


@final
class ReconstructedPairs:
    """Pairs whose generated side is the model's reconstruction of the reference image, made when read."""

    masks_sha256: str | None = None

    def __init__(
        self, model: Generator, reference: NamedSource, pairing: Pairing, *, origin: str = ""
    ) -> None:
        if not isinstance(model, Reconstructor):
            raise no_encoder(origin or model.spec.name)
        self._model: Reconstructor = model
        self._generator: Generator = model
        self._reference = reference
        self._pairing = pairing
        self._origin = origin

    @property
    def pairing(self) -> Pairing:
        """Which images are reconstructed."""
        return self._pairing

    @cached_property
    def spec(self) -> Spec:
        """The model with its checkpoint, and the images."""
        return Spec.of(
            "pairs",
            "reconstructed",
            sha256=self._generator.spec.digest(),
            origin=self._origin,
            reference=self.reference_sha256,
            count=len(self),
        )

    @cached_property
    def reference_sha256(self) -> str:
        """Digest of the images and of the positions that are used."""
        return used_digest(self._reference, self._pairing.reference)

    def __len__(self) -> int:
        return len(self._pairing)

    def names(self, index: int) -> tuple[str, str]:
        """Return the image's name twice: its reconstruction has no other."""
        name = self._reference.name_of(int(self._pairing.reference[index]))
        return name, name

    def read(self, index: IndexArray) -> PairBatch:
        """Read the images at ``index`` and reconstruct them, in one batch for each size.

        Raises:
            InvalidInputError: an image is not of the model's size, or the model returned something else
                than uint8 images of the same shape.
        """
        batch = self._reference.read(self._pairing.reference[index])
        reference = [image.cpu() for image in batch.images]
        for position, image in zip(index.tolist(), reference, strict=True):
            self._check_size(image, position)
        wanted = self._generator.num_classes
        if wanted and batch.labels is None:
            raise UsageError(
                f"model {self._generator.spec.name!r} is conditioned on {wanted} classes, and the images "
                "have no labels",
                hint="sort them into one folder a class, or add a dataset.json",
            )
        labels = batch.labels if wanted else None
        generated = list(self._reconstructed(torch.stack(reference), labels).cpu())
        return PairBatch(generated, reference, None, index)

    def _check_size(self, image: Tensor, position: int) -> None:
        side = self._generator.resolution
        height, width = image.shape[1:]
        if (height, width) != (side, side):
            raise InvalidInputError(
                f"{self.names(position)[0]!r} is {width} x {height}, the model reconstructs {side} x {side}",
                hint="nothing is resized silently: resize the images yourself, by a method that you report",
            )

    def _reconstructed(self, images: Tensor, labels: IndexArray | None) -> Tensor:
        try:
            made = self._model.reconstruct(images, labels=labels)
        except (EvalkitError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # somebody's own code may raise anything
            if not self._origin:
                raise
            raise InvalidInputError(
                f"the model {self._origin.partition(' ')[0]} failed: {type(error).__name__}: {error}"
            ) from error
        if made.shape != images.shape or made.dtype != torch.uint8:
            raise InvalidInputError(
                f"the model returned {made.dtype} {list(made.shape)}, not uint8 {list(images.shape)}",
                hint="reconstruct() maps uint8 [n, 3, h, w] to the same shape and dtype",
            )
        return made


def reconstruct_pairs(
    generator: Generator, images: Path, *, options: ImageOptions, num_samples: int | None = None,
    seed: int = 0, origin: str = "",
) -> tuple[ReconstructedPairs, int, tuple[str, ...]]:  # fmt: skip
    """Return the pairs of ``images`` and their reconstructions, the number found, and those rejected.

    Raises:
        UsageError: the model has no encoder, or there is no such path.
        InvalidInputError: fewer images than asked for, or more bad ones than allowed.
    """
    if not isinstance(generator, Reconstructor):
        raise no_encoder(origin.partition(" ")[0] or generator.spec.name)
    source = open_source(images, policy=options.policy, workers=options.workers)
    positions = np.arange(len(source), dtype=np.int64)
    pairing, rejected = without_bad(
        Pairing("reconstruction", positions, positions), [(source, positions)], options
    )
    pairing = subset(pairing, num_samples, seed=seed)
    return (
        ReconstructedPairs(generator, source, pairing, origin=origin),
        len(source),
        tuple(f"{image.name}: {image.reason}" for image in rejected),
    )


def score_reconstruction(
    request: ScoreRequest, *, console: Console, stop: Callable[[], int] = lambda: 0,
    outputs: Outputs | None = None,
) -> RunRecord:  # fmt: skip
    """Encode and decode ``request.images`` by ``request.model`` and compare the results with the images.

    Reads of the request: model, ckpt, sampling (device and dtype), images, image_options, metrics (names of
    measures), weights, num_samples (all images where None), seed (of that subset), batch_size, device, name,
    out, fresh and command.

    Raises:
        UsageError: no model or no images, a model without an encoder, or options that do not apply.
        EvalkitError: as :func:`~evalkit.pairs.evaluate.measure_pairs`.
    """
    check_request(request)
    measuring = Measuring(
        measures=request.metrics,
        weights=request.weights,
        batch_size=request.batch_size,
        device=request.device,
        out=request.out,
        fresh=request.fresh,
        outputs=outputs or Outputs(),
        command=request.command,
    )
    measuring.check()
    return measure_pairs(_open(request), measuring, task="reconstruct", console=console, stop=stop)


def _open(request: ScoreRequest) -> OpenedPairs:
    if request.model is None or request.images is None:
        raise UsageError("--task reconstruct needs --model and --images")
    subject = open_generator(
        request.model,
        ckpt=request.ckpt,
        options=replace(request.sampling, device=str(resolve_device(request.device))),
        name=request.name,
        count=1,
        seed=0,
        preset=request.preset,
        weights=request.checkpoint_weights,
    )
    if subject.generator is None:
        raise UsageError(f"{request.model!r} is not a model")
    native = is_native(request.model)
    pairs, found, rejected = reconstruct_pairs(
        subject.generator,
        request.images,
        options=request.image_options,
        num_samples=request.num_samples,
        seed=request.seed,
        origin="" if native else callable_origin(str(request.model), subject.info.sha256),
    )
    return OpenedPairs(
        pairs=pairs,
        info=subject.info,
        dataset=identifier_from(request.images),
        found=found,
        rejected=rejected,
    )


def no_encoder(model: str) -> UsageError:
    """Return the error of a model that only generates."""
    return UsageError(
        f"model {model!r} has no encoder: it cannot reconstruct images",
        hint="--model vae has one; a callable needs reconstruct(images, *, labels=None)",
    )


def check_request(request: ScoreRequest) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises:
        UsageError: no model or no images, options that do not apply, or a number out of range.
    """
    if request.model is None or request.images is None:
        raise UsageError(
            "--task reconstruct needs a model and images",
            hint="evalkit score --task reconstruct --model vae --images FOLDER",
        )
    unused = {
        "--reference": request.reference is not None,
        "--protocol": request.protocol != "auto",
        "--param": bool(request.params),
        "--report-at": request.report_at is not None,
        "--held-out": request.held_out is not None,
        "--prompts": request.prompts is not None,
        "--attributes": request.attributes is not None,
    }
    for flag, given in unused.items():
        if given:
            raise UsageError(
                f"{flag} does not apply to --task reconstruct",
                hint="each reconstruction is compared with its own image of --images",
            )
    plain = SamplingOptions(device=request.sampling.device, dtype=request.sampling.dtype)
    if request.sampling != plain:
        raise UsageError(
            "--sampler, --steps, --guidance, --eta, --truncation and --reference-factor do not apply to "
            "--task reconstruct"
        )
    for value, flag in ((request.num_samples, "--num-samples"), (request.batch_size, "--batch-size")):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}")
