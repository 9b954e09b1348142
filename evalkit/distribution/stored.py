"""A run whose shards are all there: opened from what its parts say, without its model and its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NoReturn, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evalkit.console import Console
from evalkit.core import Extractor, ImageBatch, IndexArray
from evalkit.distribution.facts import GeneratorFacts, NetworkFacts, ProbeFacts
from evalkit.distribution.manifest import PartManifest
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.extractors import build_extractor
from evalkit.observation import Observed
from evalkit.opening import Opened
from evalkit.probing import BuiltProbe
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device
from evalkit.spec import Scalar, Spec
from evalkit.subjects import Subject


def open_stored(
    manifest: PartManifest,
    request: ScoreRequest,
    *,
    observed: Observed,
    env: Mapping[str, Scalar],
    console: Console,
    stop: Callable[[], int] = lambda: 0,
) -> Opened:
    """Return a run as its parts know it: only what is stored can be read from it.

    Args:
        manifest: of any part; of the identity that all share.
        request: the part's, with the folder where all shards lie.
        observed: by all parts.
        env: of all parts.
        console: told how it goes.
        stop: returns the number of a signal that arrived, or 0.

    Raises:
        InvalidInputError: it was written by another release.
    """
    plan, probes = manifest.plan.plan()
    return Opened(
        request=request,
        plan=plan,
        subject=_subject(manifest, observed),
        extractors={network.network: StoredExtractor(network, request) for network in manifest.plan.networks},
        probes={
            planned: BuiltProbe(StoredProbe(probe), probe.network.spec, probe.label)
            for planned, probe in probes.items()
        },
        device=resolve_device(request.device),
        console=console,
        stop=stop,
        labelled=manifest.subject.labelled,
        prompts=manifest.subject.prompts,
        observed=observed,
        env=env,
    )


def _subject(manifest: PartManifest, observed: Observed) -> Subject:
    identity, facts = manifest.identity, manifest.subject
    generator = facts.generator
    return Subject(
        info=identity.model,
        source=StoredSource(identity.subject.spec, identity.count),
        found=identity.inputs.found,
        generator=None if generator is None else StoredGenerator(generator, observed.nfe),
        sampling=identity.sampling,
        rejected=identity.inputs.rejected,
        class_names=facts.class_names,
    )


@final
class StoredSource:
    """Images that are not here any more."""

    def __init__(self, spec: Spec, count: int) -> None:
        self._spec, self._count = spec, count

    @property
    def spec(self) -> Spec:
        """What the shards are kept under."""
        return self._spec

    def __len__(self) -> int:
        return self._count

    def read(self, index: IndexArray) -> ImageBatch:  # noqa: ARG002 - part of the protocol
        """Refuse: nothing is drawn or read.

        Raises:
            NothingMeasuredError: always.
        """
        _refuse("images")


@final
class StoredGenerator:
    """A generator that is not here any more."""

    def __init__(self, facts: GeneratorFacts, evaluations: int | None) -> None:
        self._facts = facts
        self.family = facts.family
        self.num_classes = facts.num_classes
        self.parameter_count = facts.parameter_count
        self.evaluations_per_image = evaluations

    @property
    def spec(self) -> Spec:
        """Network name, sampler and the checkpoint's SHA-256."""
        return self._facts.spec.spec

    @property
    def resolution(self) -> int:
        """Refused: it is known of images alone."""
        _refuse("images")

    def generate(self, seeds: IndexArray, *, labels: IndexArray | None = None) -> Tensor:  # noqa: ARG002
        """Refuse: nothing is drawn.

        Raises:
            NothingMeasuredError: always.
        """
        _refuse("images")


@final
class StoredExtractor:
    """A network whose features are all there; one that reads text is loaded for its prompts alone."""

    def __init__(self, facts: NetworkFacts, request: ScoreRequest) -> None:
        self._facts, self._request = facts, request
        self.published = facts.published

    @property
    def spec(self) -> Spec:
        """Name, resizer and the SHA-256 of the weights."""
        return self._facts.spec.spec

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return self._facts.heads

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Refuse: nothing is extracted.

        Raises:
            NothingMeasuredError: always.
        """
        _refuse("features")

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of ``texts``, float32 ``[n, d]``.

        Raises:
            InvalidInputError: the weights here are others than those that saw the images.
        """
        encode: Callable[[Sequence[str]], NDArray[np.float32]] = getattr(self._real, "encode_text")  # noqa: B009
        return encode(texts)

    def truncated(self, texts: Sequence[str]) -> Sequence[str]:
        """Return the texts that are longer than the network reads."""
        cut: Callable[[Sequence[str]], Sequence[str]] = getattr(self._real, "truncated", lambda _texts: ())
        return cut(texts)

    @cached_property
    def _real(self) -> Extractor:
        facts, request = self._facts, self._request
        real = build_extractor(
            facts.extractor,
            weights=request.weights.get(facts.extractor),
            preset=facts.preset,
            device=str(resolve_device(request.device)),
            precision=request.precision,
            backend=request.backend,
        )
        if real.spec != self.spec:
            raise InvalidInputError(
                f"the weights of {facts.extractor} here are not those that the parts were computed with",
                hint=f"--weights {facts.extractor}=FILE named them",
            )
        return real


@final
class StoredProbe:
    """A probe whose rows are all there."""

    def __init__(self, facts: ProbeFacts) -> None:
        self._facts = facts

    @property
    def spec(self) -> Spec:
        """Everything that can move a row."""
        return self._facts.spec.spec

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of columns."""
        return self._facts.heads

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:  # noqa: ARG002
        """Refuse: nothing is measured.

        Raises:
            NothingMeasuredError: always.
        """
        _refuse("rows")


def _refuse(what: str) -> NoReturn:
    raise NothingMeasuredError(f"{what} are missing, and a merge computes none", hint="run the part again")
