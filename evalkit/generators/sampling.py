"""What all native generators share: options, quantisation, counted evaluations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.facts import GENERATOR_FACTS, GeneratorFacts, SamplerFacts
from evalkit.generators.frozen import freeze
from evalkit.registry import did_you_mean
from evalkit.spec import Spec
from evalkit.threads import in_threads

_Part = tuple[IndexArray, IndexArray | None]

QUANTISATION = "floor(127.5 x + 128) clipped to 0..255"
"""How native generators turn [-1, 1] into uint8 (the rule of StyleGAN and EDM); part of the fingerprint."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What the user may choose: None takes the model's default.

    ``dtype`` is the network's compute type: ``float32``, ``bfloat16`` or ``float16``. ``truncation``
    draws w of a style-based GAN towards its centre (1 leaves it, 0 gives the centre itself), and is the
    threshold of BigGAN's truncated normal z; None truncates nothing.
    ``reference_factor`` is for diffusion models that translate images (ILVR): frequencies below
    1/``reference_factor`` of the finest stay those of the image; drawing from noise alone refuses it.
    """

    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    eta: float | None = None
    truncation: float | None = None
    reference_factor: int | None = None
    device: str = "cpu"
    dtype: str = "float32"

    def resolve(self, model: str) -> tuple[str, int | None]:
        """Return the sampler and the number of steps for ``model``.

        Raises:
            UsageError: the model has no such sampler, or an option does not apply or is out of range.
        """
        facts = GENERATOR_FACTS[model]
        samplers = {s.name: s for s in facts.samplers}
        name = self.sampler or next(iter(samplers))
        if name not in samplers:
            raise UsageError(f"model {model!r} has no sampler {name!r}", hint=did_you_mean(name, samplers))
        default = samplers[name].default_steps
        if default is None and self.steps is not None:
            raise UsageError(f"sampler {name!r} of {model!r} takes no --steps")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}")
        self._check_scales(facts, samplers[name])
        self._check_reference_factor(facts)
        return name, self.steps or default

    def _check_scales(self, facts: GeneratorFacts, sampler: SamplerFacts) -> None:
        if self.guidance is not None:
            if not facts.takes_guidance:
                raise UsageError(f"model {facts.name!r} takes no --guidance")
            if not (math.isfinite(self.guidance) and self.guidance >= 0):
                raise UsageError(f"--guidance must be 0 or more, not {self.guidance}")
        if self.truncation is not None:
            if not facts.takes_truncation:
                raise UsageError(f"model {facts.name!r} takes no --truncation")
            if not 0 <= self.truncation <= 1:
                raise UsageError(f"--truncation must lie in 0..1, not {self.truncation}")
        if self.eta is not None:
            if not sampler.takes_eta:
                raise UsageError(f"sampler {sampler.name!r} takes no --eta")
            if not 0 <= self.eta <= 1:
                raise UsageError(f"--eta must lie in 0..1, not {self.eta}")

    def _check_reference_factor(self, facts: GeneratorFacts) -> None:
        factor = self.reference_factor
        if factor is None:
            return
        if facts.family != "diffusion":
            raise UsageError(
                f"model {facts.name!r} takes no --reference-factor", hint="diffusion models that translate do"
            )
        if factor < 1 or factor & (factor - 1):
            raise UsageError(f"--reference-factor must be a power of two, not {factor}", hint="4 or 8")


class NativeGenerator(ABC):
    """A generator whose network is written in evalkit; counts network evaluations as they happen.

    On a CPU the images of a batch are computed in parts side by side, one thread each, instead of one batch
    with all threads in every layer: no thread waits for another at the end of each layer. A single image has
    all threads. Where torch has one thread, as in strict mode, a batch of up to ``chunk`` is one part.
    """

    family: str
    chunk: ClassVar[int] = 32
    """Most images of a part: past it the images/s of one thread grow no more, while memory does."""

    def __init__(
        self, *, name: str, network: nn.Module, checkpoint: Checkpoint, options: SamplingOptions
    ) -> None:
        self.name = name
        self.options = options
        self.sampler, self.steps = options.resolve(name)
        self.device = torch.device(options.device)
        self.dtype = _DTYPES[options.dtype]
        self.checkpoint_format = checkpoint.layout or checkpoint.format
        self.checkpoint_part = checkpoint.part
        self.configuration = _foreign_configuration(network, checkpoint)
        self.checkpoint_sha256 = checkpoint.sha256
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        freeze(self.network)
        self.evaluations_per_image = 0
        self.parameter_count = sum(p.numel() for p in network.parameters())

    @property
    def spec(self) -> Spec:
        """Name, sampler settings and checkpoint digest."""
        return Spec.of(
            "generator",
            self.name,
            sha256=self.checkpoint_sha256,
            sampler=self.sampler,
            steps=self.steps,
            dtype=self.options.dtype,
            quantisation=QUANTISATION,
            **self.configuration,
            **self._settings(),
        )

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of class labels; 0 where unconditional."""

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Height and width in pixels."""

    @torch.inference_mode()
    def generate(self, seeds: IndexArray, *, labels: IndexArray | None = None) -> Tensor:
        """Return uint8 ``[n, 3, h, w]``, one image for each seed (and label).

        Raises:
            UsageError: labels are missing, not one for each seed, or no class of the model.
        """
        self._check_classes(labels, len(seeds))
        if not len(seeds):
            return torch.empty(0, 3, self.resolution, self.resolution, dtype=torch.uint8, device=self.device)
        parts = self._parts(seeds, labels)
        if len(parts) == 1:
            return self._draw_part(parts[0])
        return torch.cat(list(in_threads(self._draw_part, parts)))

    def _parts(self, seeds: IndexArray, labels: IndexArray | None) -> list[_Part]:
        """Return what is computed side by side: on a CPU the threads' equal shares, of ``chunk`` at most."""
        size = len(seeds)
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            rounds = -(-size // (self.chunk * threads))
            size = -(-size // (rounds * threads))
        cuts = [slice(start, start + size) for start in range(0, len(seeds), size)]
        return [(seeds[cut], None if labels is None else labels[cut]) for cut in cuts]

    @torch.inference_mode()  # again: it is a mode of the thread, as autocast is
    def _draw_part(self, part: _Part) -> Tensor:
        seeds, labels = part
        wanted = None if labels is None else torch.from_numpy(labels).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            images = self._sample(seeds, wanted).float()
        if not bool(torch.isfinite(images).all()):
            raise InvalidInputError(
                f"model {self.name!r} drew numbers that are not finite",
                hint="with --dtype float16 or bfloat16 try float32; otherwise the checkpoint is not usable",
            )
        return quantise(images)

    def _check_classes(self, labels: IndexArray | None, count: int) -> None:
        if labels is None:
            if self.num_classes:
                raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
            return
        if len(labels) != count:
            raise UsageError(f"{len(labels)} labels for {count} images")
        if self.num_classes and not ((labels >= 0) & (labels < self.num_classes)).all():
            raise UsageError(f"labels of model {self.name!r} lie in 0..{self.num_classes - 1}")

    @abstractmethod
    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        """Return float images ``[n, 3, h, w]`` in [-1, 1] and set ``evaluations_per_image``."""

    def _settings(self) -> dict[str, Any]:
        return {}


def _foreign_configuration(network: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """What decides the images besides the digest: evalkit's own files hold it, others leave it to us."""
    if checkpoint.format == "evalkit":
        return {}
    config = getattr(network, "config", None)
    stated = (
        dataclasses.asdict(config)
        if dataclasses.is_dataclass(config) and not isinstance(config, type)
        else {}
    )
    text = json.dumps(stated, sort_keys=True, default=str)
    return {"configuration": hashlib.sha256(text.encode()).hexdigest()[:16], "part": checkpoint.part}


def quantise(images: Tensor) -> Tensor:
    """Return uint8 of float images in [-1, 1] by :data:`QUANTISATION`."""
    return images.mul(127.5).add(128.0).floor().clamp(0.0, 255.0).to(torch.uint8)


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
