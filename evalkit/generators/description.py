"""The words in which generators and checkpoint layouts are described, without torch.

A family lists its models and layouts in its own ``facts``; :mod:`evalkit.generators.facts` joins them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

BUNDLED_FOLDER = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """A sampler and the number of steps it takes unless told otherwise."""

    name: str
    default_steps: int | None
    title: str
    takes_eta: bool = False


@dataclass(frozen=True, slots=True)
class LayoutFacts:
    """A checkpoint layout that people hold: what it is called, and the names that no other layout has.

    Attributes:
        name: as ``evalkit inspect`` prints it.
        title: which public code writes it.
        fingerprint: tensor names that must all be there, after ``prefixes`` are taken off.
        absent: tensor names that must not be there.
        class_names: class of the pickled or described network, for files that name it (NVIDIA, diffusers).
        averaged: sub-dictionaries that hold averaged weights, the best first (``ema_model``).
        raw: sub-dictionaries that hold the weights as trained.
        prefixes: taken off every tensor name where all of them carry it (``module.``).
    """

    name: str
    title: str
    fingerprint: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    averaged: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A score that a paper or repository states for one of its checkpoints.

    ``num_samples`` is 0 where the source does not say it.
    """

    system: str
    checkpoint: str
    score: str
    num_samples: int
    source: str


@dataclass(frozen=True, slots=True)
class GeneratorFacts:
    """A registered generator: where it is built, what it is, and how it samples (first sampler = default).

    Attributes:
        layouts: names of the foreign layouts it reads; evalkit's own format always.
        opens_folders: its factory takes the place of a pipeline (a folder, ``hub:OWNER/NAME@REVISION``) and
            reads the files itself, instead of tensors that have been read.
        presets: name -> configuration that the tensors do not reveal.
        published: what their authors report.
    """

    name: str
    family: str
    title: str
    factory: str
    samplers: tuple[SamplerFacts, ...]
    takes_guidance: bool = False
    takes_truncation: bool = False
    layouts: tuple[str, ...] = ()
    opens_folders: bool = False
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    published: tuple[Published, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """Where the bundled checkpoint lies."""
        return BUNDLED_FOLDER / f"{self.name}.safetensors"

    @property
    def bundled(self) -> bool:
        """Whether its checkpoint ships with the package."""
        return self.checkpoint.is_file()


FORWARD = SamplerFacts("forward", None, "one pass of the network")
