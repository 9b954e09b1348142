"""A diffusion model as a generator: any network, process and sampler; image i comes from its own seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.core import IndexArray
from evalkit.counter_noise import REFERENCE_STREAM, normal_at
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.denoiser import CountingNetwork, NetworkDenoiser
from evalkit.generators.diffusion.guidance import (
    Classifier,
    check_factor,
    class_gradient,
    reference_guidance,
)
from evalkit.generators.diffusion.heun import Churn
from evalkit.generators.diffusion.karras import rounded_levels
from evalkit.generators.diffusion.process import DiscreteProcess, Level, Process
from evalkit.generators.diffusion.samplers import Correction, Gradient, StepNoise, unchanged
from evalkit.generators.diffusion.schedules import Spacing
from evalkit.generators.diffusion.walk import walk
from evalkit.generators.sampling import NativeGenerator, SamplingOptions, quantise
from evalkit.seeding import normal_per_image

NOISE_SCHEME = "philox4x32-10(seed; element, step, stream) / 1"
"""Version of the rule for noise that stochastic samplers add; part of their fingerprint."""

REFERENCE_FACTOR = 4
"""Of the low-pass filter that keeps what a translation keeps, unless the user says otherwise."""


@dataclasses.dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a diffusion model's sampler takes besides the user's options.

    Attributes:
        spacings: sampler -> how it chooses fewer steps, where that is not the process's own way.
        churn: makes Heun's sampler stochastic.
        guidance: scale unless the user names one: 1 for classifier-free, the gradient's factor for a
            classifier.
        labelled_network: False where only the classifier sees the labels (``network`` gets None).
        classifier_sha256: digest of the classifier's checkpoint.
    """

    spacings: Mapping[str, Spacing] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    churn: Churn | None = None
    guidance: float = 1.0
    labelled_network: bool = True
    classifier_sha256: str = ""


class DiffusionGenerator(NativeGenerator):
    """Noise to image by a sampler of :mod:`evalkit.generators.diffusion.samplers` or Heun's.

    With images as references (:meth:`generate_like`) it is a translator too: see :meth:`translate`.

    Args:
        name: registered model name.
        network: follows :class:`evalkit.generators.diffusion.process.DenoisingNetwork`.
        process: what it predicts, at which levels.
        checkpoint: where the weights come from.
        options: the user's choices; the samplers are those of the model's facts.
        num_classes: labels it takes; 0 where unconditional.
        resolution: height and width in pixels.
        null_label: whether label ``num_classes`` means no class, which classifier-free guidance needs.
        classifier: of noisy images; then ``options.guidance`` is the factor of its gradient.
        settings: what else the model's sampler takes.

    Raises:
        UsageError: guidance that the network cannot give, more steps than the process has, or a factor for
            references that does not divide the images.
    """

    family = "diffusion"

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        name: str,
        network: nn.Module,
        process: Process,
        checkpoint: Checkpoint,
        options: SamplingOptions,
        num_classes: int,
        resolution: int,
        null_label: bool,
        classifier: Classifier | None = None,
        settings: SamplerSettings | None = None,
    ) -> None:
        super().__init__(name=name, network=network, checkpoint=checkpoint, options=options)
        self.process, self.classifier = process, classifier
        self.settings = settings or SamplerSettings()
        self._classes, self._resolution, self._null_label = num_classes, resolution, null_label
        self._foreign = checkpoint.format != "evalkit"
        self._check_guidance()
        if options.reference_factor is not None:
            check_factor(options.reference_factor, (resolution, resolution))
        if options.steps is None and self.steps and process.most_steps:
            self.steps = min(self.steps, process.most_steps)
        self.levels = self._choose_levels(self.steps or 1)

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on."""
        return self._classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self._resolution

    @property
    def guidance(self) -> float:
        """Scale of classifier-free guidance (1 is none), or of the classifier's gradient (0 is none)."""
        return self.settings.guidance if self.options.guidance is None else self.options.guidance

    @torch.inference_mode()
    def generate_like(
        self,
        seeds: IndexArray,
        references: Tensor,
        *,
        factor: int,
        down_to: float = 0.0,
        labels: IndexArray | None = None,
    ) -> Tensor:
        """Return uint8 images that share the low frequencies of ``references`` (ILVR: Choi et al. 2021).

        Args:
            seeds: int64 ``[n]``.
            references: uint8 ``[n, 3, h, w]`` of the model's size.
            factor: of the low-pass filter; it divides the size.
            down_to: the network's time below which the references guide no more.
            labels: int64 ``[n]`` where the model is conditional.

        Raises:
            UsageError: references of another number or size, or labels missing.
        """
        wanted = self._check_labels(labels)
        size = (len(seeds), 3, self.resolution, self.resolution)
        if tuple(references.shape) != size or references.dtype != torch.uint8:
            raise UsageError(
                f"references are {references.dtype} {list(references.shape)}, not torch.uint8 {list(size)}",
                hint=f"resize them: the model makes images of {self.resolution}x{self.resolution} pixels",
            )
        correct = reference_guidance(
            references.to(self.device).float() / 127.5 - 1,
            factor=factor,
            noise=self._noise(seeds, REFERENCE_STREAM),
            down_to=down_to,
        )
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return quantise(self._walk(seeds, wanted, correct))

    def translate(self, images: Tensor, *, seeds: IndexArray) -> Tensor:
        """Return uint8 images with the low frequencies of ``images`` and the model's own details (ILVR).

        Without labels: a conditional model must know the label that means none. The low-pass filter's
        factor is ``options.reference_factor``, or :data:`REFERENCE_FACTOR`.

        Raises:
            UsageError: images of another type or size, a model that needs labels, or guidance, which there
                is none of without labels.
        """
        if self.options.guidance is not None:
            raise UsageError(
                "--guidance leads to a class, and images are translated without one", hint="drop --guidance"
            )
        factor = REFERENCE_FACTOR if self.options.reference_factor is None else self.options.reference_factor
        return self.generate_like(seeds, images, factor=factor, labels=self._no_labels(len(seeds)))

    def _no_labels(self, count: int) -> IndexArray | None:
        if not self.num_classes or not self.settings.labelled_network:
            return None
        if not self._null_label or self.classifier is not None:
            raise UsageError(
                f"this checkpoint of {self.name!r} translates no images: it needs a class for each",
                hint="take an unconditional model, or one trained without labels part of the time",
            )
        return np.full(count, self.num_classes, dtype=np.int64)

    def _choose_levels(self, steps: int) -> tuple[Level, ...]:
        spacing = self.settings.spacings.get(self.sampler)
        if self.sampler == "heun" and spacing is None and isinstance(self.process, DiscreteProcess):
            return rounded_levels(self.process, steps)
        return self.process.levels(steps, spacing=spacing)

    def _check_labels(self, labels: IndexArray | None) -> Tensor | None:
        if self.num_classes and self.settings.labelled_network and labels is None:
            raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
        return None if labels is None else torch.from_numpy(labels).to(self.device)

    def _check_guidance(self) -> None:
        free = self.classifier is None
        if free and self.guidance != 1 and not (self._null_label and self.num_classes):
            raise UsageError(
                f"this checkpoint of {self.name!r} takes no --guidance",
                hint="it was not trained without labels, and no classifier is given",
            )
        if not free and not self.num_classes:
            raise ValueError("a classifier needs num_classes")

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        if self.options.reference_factor is not None:
            raise UsageError(
                "--reference-factor is for images that are translated, and these are drawn from noise alone",
                hint="--task translate --images PATH, or drop it",
            )
        return self._walk(seeds, labels, unchanged)

    def _walk(self, seeds: IndexArray, labels: Tensor | None, correct: Correction) -> Tensor:
        network = CountingNetwork(self.network)
        size = (3, self.resolution, self.resolution)
        start = normal_per_image(seeds, size, device=self.device)
        start = start * self.process.start(self.levels[0])
        images = walk(
            self.sampler,
            self._denoiser(network, labels),
            start,
            process=self.process,
            levels=self.levels,
            noise=lambda stream: self._noise(seeds, stream),
            eta=self.options.eta or 0.0,
            churn=self.settings.churn,
            gradient=self._gradient(labels),
            correct=correct,
        )
        self.evaluations_per_image = network.evaluations
        if not (network.finite and bool(torch.isfinite(images).all())):
            raise InvalidInputError(
                f"{self.name!r} drew images that are not finite with --dtype {self.options.dtype}",
                hint="half precision overflows in some networks, and so does strong guidance by a classifier",
            )
        return images.clamp(-1.0, 1.0)

    def _denoiser(self, network: CountingNetwork, labels: Tensor | None) -> NetworkDenoiser:
        seen = labels if self.num_classes and self.settings.labelled_network else None
        null = None if seen is None or not self._null_label else torch.full_like(seen, self.num_classes)
        scale = self.guidance if self.classifier is None else 1.0
        return NetworkDenoiser(network, self.process, labels=seen, null_labels=null, guidance=scale)

    def _gradient(self, labels: Tensor | None) -> Gradient | None:
        if self.classifier is None or labels is None or self.guidance == 0:
            return None
        return class_gradient(self.classifier, labels, scale=self.guidance)

    def _noise(self, seeds: IndexArray, stream: int) -> StepNoise:
        size = (3, self.resolution, self.resolution)
        return lambda step: normal_at(seeds, step, size, stream=stream, device=self.device)

    def _settings(self) -> dict[str, Any]:
        stated: dict[str, Any] = {"guidance": self.guidance, "eta": self.options.eta or 0.0}
        churned = self.sampler == "heun" and self.settings.churn is not None
        if self.sampler == "ancestral" or churned or stated["eta"]:
            stated["noise"] = NOISE_SCHEME
        if churned:
            stated["churn"] = str(self.settings.churn)
        if self.classifier is not None:
            stated["classifier"] = self.settings.classifier_sha256
        if self.options.reference_factor is not None:
            stated |= {"reference_factor": self.options.reference_factor, "noise": NOISE_SCHEME}
        if self._foreign:
            stated["levels"] = _digest(self.process, self.levels)
        return stated


def _digest(process: Process, levels: tuple[Level, ...]) -> str:
    facts = [str(type(process).__name__), repr(process), [dataclasses.astuple(level) for level in levels]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
