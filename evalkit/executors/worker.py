"""What runs on the machines of a cluster: open what an order asks for once, then shard after shard.

A worker writes to a temporary folder of its own, reads what it wrote, and sends it back: no file system is
shared. What it has open stays open between its tasks, for one order at a time.
"""

from __future__ import annotations

import importlib.metadata
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from evalkit.errors import InvalidInputError, UsageError
from evalkit.events import Event
from evalkit.executors.orders import (
    Ask,
    Contents,
    Fetch,
    Filled,
    Lacks,
    ShardOrder,
    StateContent,
    metric_identity,
    with_paths,
)
from evalkit.executors.shipping import Lacking, SentPath, local_path
from evalkit.extraction import Extracted, Job, Progress
from evalkit.numerics import NUMERICS_VERSION
from evalkit.numerics.products import products_on
from evalkit.opening import Opened, first_sample, observed_in, one_pass, open_run, probe_passes
from evalkit.plan import Plan
from evalkit.shards import Part, ShardLayout

_open: dict[str, tuple[Opened, Plan]] = {}
"""What this process has open, by the key of its order: at most one."""


def fill_shard(order: ShardOrder, ask: Ask, fetch: Fetch) -> Filled | Lacks:
    """Compute one shard of a run through everything that measures it.

    Args:
        order: of which run.
        ask: which shard, and contents of files that this machine is sent.
        fetch: gives the bytes of a piece of them.

    Raises:
        EvalkitError: as a run of one process; UsageError where another evalkit is installed here.
    """
    console = _Notes()
    try:
        if order.key not in _open:
            _open.clear()  # before the next is loaded: two models may not fit
            _open[order.key] = _opened(order, ask.contents, fetch, console)
    except Lacking as lacking:
        return Lacks(paths=(lacking.path,))
    opened, plan = _open[order.key]
    with tempfile.TemporaryDirectory(prefix="evalkit-worker-") as folder:
        files = _Files(Path(folder))
        work = replace(
            opened,
            request=replace(opened.request, out=files.out),
            part=Part(ask.shard, ShardLayout(len(opened.subject.source)).shards),
            console=console,
            extracted=files.add,
        )
        with products_on(str(work.device)):
            warm = first_sample(work, plan) if ask.first else None
            one_pass(work, plan)
            probe_passes(work, plan)
        return Filled(
            files=files.contents(),
            observed=observed_in(work, warm),
            warnings=tuple(console.warnings),
            node=socket.gethostname(),
        )


@dataclass(slots=True)
class _Files:
    """Collects the shards of each pass below ``out``."""

    out: Path
    paths: list[Path] = field(default_factory=list)

    def add(self, _job: Job, lanes: tuple[Extracted, ...]) -> None:
        self.paths.extend(result.path for lane in lanes for result in lane.shards if result.path)

    def contents(self) -> tuple[StateContent, ...]:
        return tuple(
            StateContent(path=path.relative_to(self.out).as_posix(), content=path.read_bytes())
            for path in self.paths
        )


def versions() -> dict[str, str]:
    """Return what must be equal on all machines of a run."""
    return {"evalkit": importlib.metadata.version("evalkit"), "numerics": NUMERICS_VERSION}


def _opened(order: ShardOrder, contents: Contents, fetch: Fetch, console: _Notes) -> tuple[Opened, Plan]:
    if versions() != dict(order.versions):
        theirs, ours = (
            ", ".join(f"{k} {v}" for k, v in found.items()) for found in (order.versions, versions())
        )
        raise UsageError(
            f"{socket.gethostname()} runs {ours}, and the run was started by {theirs}",
            hint="install the same release of evalkit on every node",
        )
    places = places_of(order.paths, contents, fetch)
    request = with_paths(order.request, lambda path: places.get(str(path), path))
    opened = open_run(replace(request, device=order.device), console=console)
    found = {metric_identity(planned): planned for planned in opened.plan.metrics}
    lacking = [identity for identity in order.metrics if identity not in found]
    if lacking:
        raise InvalidInputError(
            f"{socket.gethostname()} lacks weights or code of {len(lacking)} of the metrics",
            hint="`evalkit doctor` there says which; `evalkit assets fetch` brings weights",
        )
    return opened, replace(opened.plan, metrics=tuple(found[identity] for identity in order.metrics))


def places_of(paths: tuple[SentPath, ...], contents: Contents, fetch: Fetch) -> dict[str, Path]:
    """Return where this machine has each path of the sender.

    Raises:
        Lacking: one is not here, and its contents were not sent.
    """

    def pieces(digest: str) -> Iterator[bytes]:
        return (fetch(piece) for piece in contents[digest])

    def place(sent: SentPath) -> Path:
        whole = all(file.sha256 in contents for file in sent.files)
        return local_path(sent, pieces if whole else None)

    return {sent.path: place(sent) for sent in paths}


class _Notes:
    """A console that keeps the warnings, for the one who gave the order."""

    def __init__(self) -> None:
        self.warnings: dict[str, None] = {}

    def note(self, text: str) -> None:
        """Keep a warning; other sentences are told where the run was started."""
        if text.startswith("warning"):
            self.warnings[text] = None

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:  # noqa: ARG002 - part of the protocol
        """Count for nobody: the driver counts shards."""
        yield lambda _done: None

    def tell(self, event: Event) -> None:
        """Drop the event: the driver tells of the shard."""
