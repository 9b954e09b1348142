"""Runs what is missing of a suite below one folder, cell by cell, and says how each ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import EvalkitError, TemporaryError
from evalkit.record import RunRecord
from evalkit.suites.facts import Cell, CellState, Manifest
from evalkit.suites.manifest import (
    MANIFEST,
    complete_record,
    read_manifest,
    record_path,
    records_of,
    with_state,
    write_manifest,
)
from evalkit.suites.processes import SCORE, Launcher, exit_code_of
from evalkit.suites.scheduler import Ended, Launch, Slot, run_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """How a suite is to be run.

    Attributes:
        folder: of the manifest, the records, the logs and the tables.
        jobs: cells at once; ``devices`` are given to them in turn.
        fresh: forget what ran before.
        fail_fast: start nothing more after a cell that failed.
        only: rows to run; all where empty. The tables show everything that is done all the same.
        program: what is run for a cell, before its arguments.
    """

    folder: Path
    jobs: int = 1
    devices: tuple[str, ...] = ("auto",)
    fresh: bool = False
    fail_fast: bool = False
    only: tuple[str, ...] = ()
    program: Sequence[str] = SCORE

    def chosen(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """Return the cells of the rows that are to be run."""
        return tuple(cell for cell in cells if not self.only or cell.row in self.only)

    def launcher(self) -> Launcher:
        """Return what starts a cell on this machine."""
        return Launcher(folder=self.folder, jobs=self.jobs, fresh=self.fresh, program=self.program)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One cell that just ended; ``last_words`` are the end of its log where it failed."""

    cell: Cell
    state: CellState
    record: RunRecord | None
    log: Path
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What there is after a run of a suite.

    Attributes:
        records: of the cells that are done, by key, those of earlier calls included.
        states: how each cell ended that did not get done now, by key.
        stopped: number of the signal that stopped it, or 0.
    """

    cells: tuple[Cell, ...]
    records: dict[str, RunRecord]
    states: dict[str, CellState]
    stopped: int = 0

    @property
    def exit_code(self) -> int:
        """128 + signal where one stopped it; else the code of the first cell of the file that failed; else 0.

        A cell that was never started, after ``fail_fast``, has no code of its own.
        """
        if self.stopped:
            return 128 + self.stopped
        failed = (self.states[cell.key].exit_code for cell in self.cells if cell.key in self.states)
        return next((code for code in failed if code), 0)


def missing_cells(cells: Sequence[Cell], orders: Orders, *, suite: str) -> tuple[Cell, ...]:
    """Return the cells to run: those chosen that have no complete record below the folder."""
    done = {} if orders.fresh else records_of(orders.folder, read_manifest(orders.folder, suite=suite), cells)
    return tuple(cell for cell in orders.chosen(cells) if cell.key not in done)


def run_suite(
    cells: Sequence[Cell],
    orders: Orders,
    *,
    suite: str,
    stop: Callable[[], int] = lambda: 0,
    tell: Callable[[Finished], None] = lambda _finished: None,
    launch_with: Callable[[Launcher], Launch] = lambda launcher: launcher,
) -> Outcome:
    """Run the cells that are missing or failed; the manifest is replaced after each.

    Args:
        cells: all cells of the suite.
        orders: where and how.
        suite: its name, which the manifest keeps.
        stop: returns the number of a signal that arrived, or 0.
        tell: called with each cell as it ends.
        launch_with: what starts a cell instead of a process of this machine; it leaves the same files.

    Raises:
        TemporaryError: another suite works in the folder, or it cannot be written to.
        InvalidInputError: the manifest is damaged or another suite's.
    """
    with _exclusive(orders.folder):
        manifest = _manifest(cells, orders, suite=suite)
        records = records_of(orders.folder, manifest, cells)
        todo = [cell for cell in orders.chosen(cells) if cell.key not in records]
        slots = tuple(Slot(n, orders.devices[n % len(orders.devices)]) for n in range(orders.jobs))
        launcher = orders.launcher()
        write_manifest(orders.folder, manifest)
        running = run_cells(
            todo, slots=slots, launch=launch_with(launcher), stop=stop, fail_fast=orders.fail_fast
        )
        # Closed here, not when it is collected: an error while telling must not leave processes behind.
        with closing(running):
            ended = _told(running, manifest, launcher, tell)
        records |= {finished.cell.key: finished.record for finished in ended if finished.record}
        states = {finished.cell.key: finished.state for finished in ended if not finished.record}
        return Outcome(cells=tuple(cells), records=records, states=states, stopped=stop())


def _told(
    running: Iterable[Ended], manifest: Manifest, launcher: Launcher, tell: Callable[[Finished], None]
) -> list[Finished]:
    """Tell of each cell as it ends, when the manifest has it; return them all."""
    told: list[Finished] = []
    for ended in running:
        finished = _finished(ended, launcher)
        manifest = with_state(manifest, ended.cell, finished.state)
        write_manifest(launcher.folder, manifest)
        told.append(finished)
        tell(finished)
    return told


def _manifest(cells: Sequence[Cell], orders: Orders, *, suite: str) -> Manifest:
    """Return what has run, without the chosen cells where these are to run again."""
    if orders.fresh and not orders.only:
        return Manifest(suite=suite)
    manifest = read_manifest(orders.folder, suite=suite)
    forgotten = {cell.key for cell in orders.chosen(cells)} if orders.fresh else set()
    kept = {key: state for key, state in manifest.cells.items() if key not in forgotten}
    return replace(manifest, cells=kept)


def _finished(ended: Ended, launcher: Launcher) -> Finished:
    cell, code = ended.cell, exit_code_of(ended.exit_code, asked=ended.asked)
    run_id = launcher.run_id(cell) if code == 0 else None
    record = complete_record(record_path(launcher.folder, run_id)) if run_id else None
    words = () if record else launcher.last_words(cell)
    if code == 0 and record is None:
        code, words = EvalkitError.exit_code, (*words, "it ended well, but left no complete record")
    state = CellState(
        row=cell.row,
        protocol=cell.protocol,
        seed=cell.seed,
        status="done" if record else "interrupted" if ended.asked else "failed",
        exit_code=code,
        seconds=ended.seconds,
        run_id=run_id,
    )
    return Finished(cell=cell, state=state, record=record, log=launcher.log(cell), last_words=words)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder; the operating system frees it when the holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{MANIFEST}.lock", blocking=False)
        lock.acquire()
    except Timeout as error:
        raise TemporaryError(
            f"another suite runs in {folder}", hint="wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise TemporaryError(
            f"cannot write to {folder}: {error.strerror}", hint="choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
