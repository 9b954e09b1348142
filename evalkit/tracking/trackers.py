"""The trackers there are, and how a user names one: ``kind`` or ``kind:where``. No torch; packages on use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evalkit.errors import UsageError
from evalkit.record import RunRecord
from evalkit.redaction import redact_command
from evalkit.registry import did_you_mean
from evalkit.tracking.dvc import DvcLive
from evalkit.tracking.json_lines import JsonLines
from evalkit.tracking.mlflow import MLflow
from evalkit.tracking.tensorboard import TensorBoard
from evalkit.tracking.wandb import WeightsAndBiases


class Tracker(Protocol):
    """Somewhere that keeps records of experiments."""

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:
        """Send one record and its file; return in words where it went. May raise anything."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerKind:
    """A kind of tracker.

    Attributes:
        form: how it is written.
        title: one line for people.
        build: makes one from what stands after the colon.
        package: what has to be importable, and ``extra`` what installs it; may be empty.
        needs_where: whether it cannot do without what stands after the colon.
    """

    form: str
    title: str
    build: Callable[[str], Tracker]
    package: str = ""
    extra: str = ""
    needs_where: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A tracker under the name that the user gave it, without secrets."""

    name: str
    tracker: Tracker


TRACKERS: Mapping[str, TrackerKind] = {
    "jsonl": TrackerKind(
        form="jsonl:PATH",
        title="a local file, one flat JSON object a record",
        build=JsonLines,
        needs_where=True,
    ),
    "mlflow": TrackerKind(
        form="mlflow[:URI]",
        title="an MLflow server or folder",
        build=MLflow,
        package="mlflow",
        extra="mlflow",
    ),
    "wandb": TrackerKind(
        form="wandb[:[ENTITY/]PROJECT]",
        title="Weights & Biases",
        build=WeightsAndBiases,
        package="wandb",
        extra="wandb",
    ),
    "tensorboard": TrackerKind(
        form="tensorboard:DIR",
        title="TensorBoard event files",
        build=TensorBoard,
        package="tensorboard",
        extra="tensorboard",
        needs_where=True,
    ),
    "dvc": TrackerKind(
        form="dvc:DIR",
        title="metrics and parameters of DVC",
        build=DvcLive,
        package="dvclive",
        extra="dvc",
        needs_where=True,
    ),
}
"""The local file first: it is done before any other."""


def parse_trackers(texts: Sequence[str]) -> tuple[Named, ...]:
    """Return the trackers that ``texts`` name, each once, local files first.

    Raises:
        UsageError: an unknown kind, a place that is missing, or a package that is not installed.
    """
    parsed = {text: _parse(text) for text in texts}
    order = list(TRACKERS)
    return tuple(
        parsed[text] for text in sorted(parsed, key=lambda text: order.index(text.partition(":")[0]))
    )


def _parse(text: str) -> Named:
    kind, _, where = text.partition(":")
    if kind not in TRACKERS:
        raise UsageError(f"no tracker called {kind!r}", hint=did_you_mean(kind, TRACKERS))
    facts = TRACKERS[kind]
    if facts.needs_where and not where:
        raise UsageError(f"{kind} needs a place", hint=f"write it as {facts.form}")
    if facts.package and not _installed(facts.package):
        raise UsageError(
            f"{kind} needs the package {facts.package}, which is not installed",
            hint=f"pip install 'evalkit[{facts.extra}]'",
        )
    return Named(redact_command((text,))[0], facts.build(where))


def _installed(package: str) -> bool:
    """Whether a package can be imported; a mere folder of that name, as wandb leaves behind, is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: something without a spec stands in sys.modules
        return False
    return spec is not None and spec.origin is not None
