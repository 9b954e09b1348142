"""The driver of a run whose shards other processes compute: hands them out, and writes what comes back.

    run(request, console=console, stop=stop, fill=Filling(engine, device="cpu"))

It writes into its own run folder, under the locks of a whole run; what it has written counts as if it had
been computed here, so that the run that follows finds every shard, and a run that was stopped goes on where
it was.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from evalkit.errors import InvalidInputError
from evalkit.executors.engine import Engine, in_turn
from evalkit.executors.orders import (
    Ask,
    Filled,
    Lacks,
    ShardOrder,
    StateContent,
    metric_identity,
    paths_of,
    with_paths,
)
from evalkit.executors.shipping import put_contents
from evalkit.executors.worker import fill_shard, versions
from evalkit.extraction import Job, interruption, missing
from evalkit.mirror import NO_MIRROR
from evalkit.observation import Observed, observed_by_all
from evalkit.opening import Opened, pass_jobs
from evalkit.plan import Plan
from evalkit.shards import ShardResult, ShardStore
from evalkit.spec import sha256_of
from evalkit.telling import telling_elsewhere


@dataclass(frozen=True, slots=True)
class Filling:
    """Fills the state of a run through ``engine``: what ``fill`` of :func:`evalkit.evaluate.run` takes.

    Attributes:
        device: that a worker opens; ``cuda`` is a GPU that the engine gave to it alone.
        fresh: forget the shards of earlier runs. The request itself must not say so: it would forget these.
    """

    engine: Engine
    device: str
    fresh: bool = False

    def __call__(self, opened: Opened, plan: Plan) -> Opened:
        """Have every shard computed that the run folder lacks; return what stands then.

        Raises:
            Interrupted: a signal came; whole shards are kept.
            TemporaryError: workers kept dying, or another run works in the folder.
            EvalkitError: a worker raised it.
        """
        jobs = pass_jobs(opened, plan)
        stores = {lane.store.folder: lane.store for job in jobs for lane in job.lanes}
        if not stores:
            return opened
        with ExitStack() as stack:
            pushed = stack.enter_context(opened.request.mirror.holding(list(stores), fresh=self.fresh))
            for _, store in sorted(stores.items()):
                stack.enter_context(store.exclusive())
                if self.fresh:
                    store.clear()
            lacking = sorted({shard for job in jobs for shard in missing(job)})
            if not lacking:
                return opened
            work = _Work(self.engine, opened, jobs, _order(opened, plan, self.device))
            for _shard in work.fill(lacking):
                pushed()
        return replace(opened, observed=observed_by_all(work.observed))


@dataclass(slots=True)
class _Work:
    """One run that is being filled: which files were sent already, and where results go."""

    engine: Engine
    opened: Opened
    jobs: tuple[Job, ...]
    order: ShardOrder
    contents: dict[str, tuple[object, ...]] = field(default_factory=dict)
    observed: list[Observed] = field(default_factory=list)

    def fill(self, shards: Sequence[int]) -> Iterator[int]:
        """Yield each shard when it is written."""
        order, waiting = self.engine.put(self.order), deque(shards)
        stop, layout = self.opened.stop, self.jobs[0].layout
        images = {shard: len(layout.indices(shard)) for shard in shards}

        def submit(shard: int) -> Hashable:
            # One is enough to tell how the first image goes.
            ask = Ask(shard=shard, first=shard == shards[0], contents=dict(self.contents))
            return self.engine.submit(fill_shard, order, ask, self.engine.fetch)

        drawn = self.opened.subject.generator is not None
        came = telling_elsewhere(self.jobs, shards, self.opened.console, drawn=drawn)
        title = f"{self.opened.subject.info.id} on the cluster"
        with self.opened.console.progress(title, sum(images.values())) as progress:
            for shard, result in in_turn(self.engine, waiting, submit, stop=stop):
                if isinstance(result, Lacks):
                    self._send(result)
                    waiting.append(shard)
                    continue
                self._keep(shard, result)
                progress(images[shard])
                came(shard)
                yield shard
        if number := stop():
            raise interruption(number)

    def _send(self, lacks: Lacks) -> None:
        """Put the content of files where every machine can fetch it, once."""
        for sent in self.order.paths:
            if sent.path in lacks.paths:
                put_contents(sent, self.contents, self.engine.put)

    def _keep(self, shard: int, filled: Filled) -> None:
        """Write the files of a shard into the run folder, having looked at each.

        Raises:
            InvalidInputError: they are of another run, or damaged.
        """
        for text in filled.warnings:
            self.opened.console.note(text)
        self.observed.append(filled.observed)
        sent = {PurePosixPath(file.path).parent.name: file for file in filled.files}
        for store, rows in self._wanted(shard):
            file = sent.get(store.folder.name)
            result = None if file is None else _read(file, shard, rows)
            if result is None:
                raise InvalidInputError(
                    f"{filled.node} sent no whole shard {shard} of this run",
                    hint="are the same evalkit, weights and model code installed on every node?",
                )
            before, _ = store.read(shard, rows)
            features = {**(before.features if before else {}), **result.features}
            store.write(shard, replace(result, features=features))

    def _wanted(self, shard: int) -> Iterator[tuple[ShardStore, int]]:
        for job in self.jobs:
            for lane in job.lanes:
                yield lane.store, len(job.layout.indices(shard))


def _read(file: StateContent, shard: int, rows: int) -> ShardResult | None:
    """Return what a file holds, if it is whole and the shard that was asked for."""
    with tempfile.TemporaryDirectory(prefix="evalkit-") as folder:
        (Path(folder) / PurePosixPath(file.path).name).write_bytes(file.content)
        result, _ = ShardStore(Path(folder)).read(shard, rows)
    return result


def _order(opened: Opened, plan: Plan, device: str) -> ShardOrder:
    request = with_paths(opened.request, lambda path: path.absolute() if path.exists() else path)
    # What the driver alone does: workers write to folders of their own, and read no reference.
    request = replace(request, out=Path(), command=(), fresh=False, mirror=NO_MIRROR)
    metrics = tuple(metric_identity(planned) for planned in plan.metrics)
    paths = paths_of(request)
    identity = [repr(request), list(metrics), [sent.digest for sent in paths], device]
    return ShardOrder(
        request=request,
        metrics=metrics,
        paths=paths,
        device=device,
        versions=versions(),
        key=sha256_of(identity),
    )
