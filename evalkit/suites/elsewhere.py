"""Cells as tasks of a cluster: to the scheduler they are processes, and they leave the same files.

A cell that did not get done hands back its whole shards, unless its worker died. They are listed beside its
log, and sent along when it runs again, wherever that is.

with ray_engine(options, once=True) as engine:
    run_suite(cells, orders, suite=name, launch_with=lambda launcher: Elsewhere(engine, launcher, run))
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from evalkit.atomic import write_atomically
from evalkit.errors import EvalkitError, TemporaryError
from evalkit.executors.cells import CellEnded, CellOrder, score_cell
from evalkit.executors.engine import Engine
from evalkit.executors.orders import Lacks
from evalkit.executors.shipping import SentPath, put_contents, sent_path
from evalkit.suites.facts import Cell
from evalkit.suites.manifest import RECORDS
from evalkit.suites.processes import Launcher, command_of
from evalkit.suites.scheduler import Slot

_INTERRUPTED = 128 + signal.SIGINT
_SHARD = ".safetensors"


@dataclass(slots=True)
class Elsewhere:
    """Starts cells on the machines of ``engine``.

    Attributes:
        launcher: knows where the files of a cell lie.
        run: the command line: runs arguments, and returns an exit code.
    """

    engine: Engine
    launcher: Launcher
    run: Callable[[list[str]], int]
    contents: dict[str, tuple[object, ...]] = field(default_factory=dict)
    described: dict[str, SentPath] = field(default_factory=dict)

    def __call__(self, cell: Cell, slot: Slot) -> CellTask:
        """Hand one cell over."""
        command = command_of(cell, self.launcher.folder, device=slot.device, fresh=self.launcher.fresh)
        out = command.index("--out")
        order = CellOrder(
            # A worker writes to a folder of its own.
            arguments=(*command[:out], *command[out + 2 :]),
            command=("evalkit", *command),
            out=command[out + 1],
            paths={file: self._described(file) for file in cell.files},
            shards={} if self.launcher.fresh else self._shards(cell),
        )
        task = CellTask(self, cell, order)
        task.submit()
        return task

    def _described(self, file: str) -> SentPath:
        if file not in self.described:
            self.described[file] = sent_path(Path(file))
        return self.described[file]

    def _shards(self, cell: Cell) -> dict[str, object]:
        """Put what an earlier run of a cell left where every machine can fetch it, by path of its file."""
        kept: dict[str, object] = {}
        listing, folder = self.listing(cell), self.launcher.folder / RECORDS
        for name in listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else ():
            for path in _same_shard(folder / name):
                with suppress(OSError):  # it is computed again
                    kept[path.relative_to(folder).as_posix()] = self.engine.put(path.read_bytes())
        return kept

    def listing(self, cell: Cell) -> Path:
        """Where the shards are listed that a cell left without having got done."""
        return self.launcher.log(cell).with_suffix(".shards")

    def send(self, sent: SentPath) -> None:
        """Put the content of files where every machine can fetch it, once."""
        put_contents(sent, self.contents, self.engine.put)


@dataclass(slots=True)
class CellTask:
    """One cell on its way; a :class:`~evalkit.suites.scheduler.Process`."""

    place: Elsewhere
    cell: Cell
    order: CellOrder
    call: Hashable = None
    code: int | None = None
    asked: bool = False

    def submit(self) -> None:
        """Start it, or start it again with the files that its machine lacked."""
        engine = self.place.engine
        contents = dict(self.place.contents)
        self.call = engine.submit(score_cell, self.order, contents, engine.fetch, self.place.run)

    def poll(self) -> int | None:
        """Return its exit code, or None while it waits or runs."""
        if self.code is None and self.place.engine.ready([self.call], 0.0):
            self.code = self._ended()
        return self.code

    def send_signal(self, number: int) -> None:
        """Interrupt it."""
        del number
        self.asked = True
        self.place.engine.cancel(self.call)

    def kill(self) -> None:
        """Give it up."""
        if self.code is None:
            self.send_signal(signal.SIGINT)
            self.code = -signal.SIGTERM

    def wait(self) -> int:
        """Return its exit code; what was given up is not waited for."""
        return self.code if self.code is not None else -signal.SIGTERM

    def _ended(self) -> int | None:
        launcher = self.place.launcher
        try:
            result: CellEnded | Lacks = self.place.engine.result(self.call)
        except EvalkitError as error:
            return self._failed(error)
        if isinstance(result, Lacks):
            for sent in self.order.paths.values():
                if sent.path in result.paths:
                    self.place.send(sent)
            self.submit()
            return None
        write_atomically(launcher.log(self.cell), result.log)
        write_atomically(launcher.output(self.cell), result.output)
        _keep(launcher.folder / RECORDS, result.files, instead=launcher.fresh)
        self._list(result)
        return result.exit_code

    def _list(self, result: CellEnded) -> None:
        """Note which shards the next run of the cell goes on from."""
        listing = self.place.listing(self.cell)
        if result.exit_code:
            write_atomically(listing, "\n".join(name for name in result.files if name.endswith(_SHARD)))
        else:
            listing.unlink(missing_ok=True)

    def _failed(self, error: EvalkitError) -> int:
        if self.asked:
            return _INTERRUPTED
        text = f"evalkit: {error.message}\n" + (f"   hint: {error.hint}\n" if error.hint else "")
        write_atomically(self.place.launcher.log(self.cell), text)
        # The cluster began it again already: not busy, as 75 of a cell says, but killed.
        return -signal.SIGTERM if isinstance(error, TemporaryError) else error.exit_code


def _keep(folder: Path, files: Mapping[str, bytes], *, instead: bool) -> None:
    """Write what a cell left; of a shard that is there one is kept, as two cells may share a reference."""
    for name, content in sorted(files.items()):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise TemporaryError(f"a worker sent a file called {name!r}")
        path = folder / place
        before = _same_shard(path)
        if before and not instead:
            continue
        write_atomically(path, content)
        for older in before:
            if older != path:
                older.unlink(missing_ok=True)


def _same_shard(path: Path) -> list[Path]:
    """Return the files of the shard that is at ``path``, whatever their content; none of another file."""
    shard = path.name.partition("-")[0]
    return sorted(path.parent.glob(f"{shard}-*{_SHARD}")) if path.suffix == _SHARD else []
