"""What a worker is sent, and what it sends back: plain values that pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.executors.shipping import SentPath, sent_path
from evalkit.observation import Observed
from evalkit.plan import Planned
from evalkit.request import ScoreRequest
from evalkit.spec import sha256_of

Fetch = Callable[[Any], bytes]
Contents = Mapping[str, Sequence[Any]]
"""Digest of a file -> what the engine keeps its pieces under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrder:
    """One run, of which workers compute shards.

    Attributes:
        request: with the paths of the machine that sends it.
        metrics: identities of those that are measured: what the networks must give depends on them.
        paths: what of the request lies in files.
        device: ``cpu``, or ``cuda`` where a worker has a GPU of its own.
        versions: of the packages that must be equal everywhere.
        key: digest of all this; a worker keeps what it opened under it.
    """

    request: ScoreRequest
    metrics: tuple[str, ...]
    paths: tuple[SentPath, ...]
    device: str
    versions: Mapping[str, str]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One task of an order: a shard; ``first`` samples an image against the clock before it.

    ``contents`` are of the files that a machine may lack.
    """

    shard: int
    contents: Contents
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateContent:
    """A file of state: path relative to the run folder (it ends in the content's digest), and its bytes."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A shard that was computed: a file for each network and probe, and what only its process saw."""

    files: tuple[StateContent, ...]
    observed: Observed
    warnings: tuple[str, ...] = ()
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacks:
    """A worker's machine has none of these files; it is to be asked again with their contents."""

    paths: tuple[str, ...]


def metric_identity(planned: Planned) -> str:
    """Return what a metric is on every machine."""
    network = planned.network
    return sha256_of(
        [
            planned.metric.spec.to_json(),
            planned.head,
            [network.extractor, network.preset] if network else None,
            planned.label,
            planned.via,
        ]
    )


def paths_of(request: ScoreRequest) -> tuple[SentPath, ...]:
    """Return what of a request the workers read from files. References are read by the driver alone.

    Raises:
        InvalidInputError: one cannot be read.
    """
    found: list[Path] = []

    def note(path: Path) -> Path:
        if path.exists():
            found.append(path)
        return path

    with_paths(request, note)
    return tuple(sent_path(path) for path in dict.fromkeys(found))


def with_paths(request: ScoreRequest, there: Callable[[Path], Path]) -> ScoreRequest:
    """Return ``request`` with each path that a worker reads replaced by what ``there`` gives for it."""
    return replace(
        request,
        ckpt=there(request.ckpt) if request.ckpt else None,
        images=there(request.images) if request.images else None,
        prompts=there(request.prompts) if request.prompts else None,
        weights={name: there(path) for name, path in request.weights.items()},
        attributes=str(there(Path(request.attributes))) if request.attributes else None,
    )
