"""``--shard`` and the ranks of ``torchrun``: which share of a run this process computes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.errors import EvalkitError, UsageError

if TYPE_CHECKING:
    from evalkit.cli.event_log import EventLog
    from evalkit.console import Console
    from evalkit.distribution.ranks import Rank
    from evalkit.record import RunRecord
    from evalkit.request import ScoreRequest

Run = Callable[..., "RunRecord"]
_OF_ONE_PROCESS = "memory://"
_SHARE = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def shard_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--shard``."""
    return click.option(
        "--shard",
        callback=_shard,
        metavar="I/N",
        help="Compute the I-th of N parts only (1/N to N/N, on as many machines); `evalkit merge` makes the "
        "record. See docs/distributed.md.",
    )(command)


def _shard(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = _SHARE.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not of the form I/N, for example 2/8")
    number, count = int(found[1]), int(found[2])
    if not 1 <= number <= count:
        raise click.BadParameter(f"there is no part {number} of {count}: they count from 1/{count}")
    return number, count


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Which share of each request is computed here: all of it, one part of several, or that of a rank."""

    part: tuple[int, int] | None
    rank: Rank | None

    @property
    def quiet(self) -> bool:
        """Whether another process does the talking."""
        return self.rank is not None and self.rank.index > 0

    def refuse(self, *, task: str, deciding: bool, elsewhere: bool, tracking: bool, out: Path | str) -> None:
        """Refuse what only one process does.

        Raises:
            UsageError: such a flag.
        """
        if self.part is None and self.rank is None:
            return
        name = "torchrun" if self.part is None else "--shard"
        unfit = {
            "--task reconstruct": task == "reconstruct",
            "--until-decided": deciding,
            "--executor ray": elsewhere,
            "torchrun": self.part is not None and self.rank is not None,
        }
        for flag, given in unfit.items():
            if given:
                raise UsageError(f"{name} does not go with {flag}", hint="leave one of them out")
        if self.part is not None and tracking:
            raise UsageError("--log TRACKER does not go with --shard", hint="evalkit merge has it too")
        if self.rank is not None and str(out).lower().startswith(_OF_ONE_PROCESS):
            raise UsageError(
                f"torchrun does not go with --out {_OF_ONE_PROCESS}…: each process has a memory of its own",
                hint="a folder, or the URL of a store that all ranks reach",
            )

    def records(
        self, requests: Sequence[ScoreRequest], run: Run, *, console: Console, stop: Callable[[], int]
    ) -> Iterator[RunRecord]:
        """Compute the share; yield what records come of it."""
        if self.rank is not None:
            from evalkit.distribution.together import score_together  # noqa: PLC0415 - loads torch

            with _named(self.rank):
                yield from score_together(requests, self.rank, console=console, stop=stop)
            return
        for request in requests:
            if self.part is None:
                yield run(request, console=console, stop=stop)
            else:
                _compute(request, self.part, console=console, stop=stop)


def take_sharing(flags: dict[str, Any], *, deciding: bool, elsewhere: bool, tracking: bool) -> Sharing:
    """Take ``--shard`` out of ``flags``, and the rank out of the environment.

    Raises:
        UsageError: with what only one process does, or where the environment of a launcher makes no sense.
    """
    from evalkit.distribution.ranks import Rank  # noqa: PLC0415 - loads torch

    rank = Rank.from_environment()
    sharing = Sharing(part=flags.pop("shard"), rank=None if rank is None or rank.world == 1 else rank)
    sharing.refuse(
        task=flags["task"], deciding=deciding, elsewhere=elsewhere, tracking=tracking, out=flags["out"]
    )
    return sharing


@contextmanager
def console_of(sharing: Sharing, log: EventLog | None) -> Iterator[tuple[Console, Callable[[], int]]]:
    """Give where this process tells how it goes, and what says that a signal came."""
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.console import Silent  # noqa: PLC0415

    silent = sharing.quiet or (log is not None and log.on_stderr)
    shown: AbstractContextManager[Console] = _silence(Silent()) if sharing.quiet else StderrConsole(log)
    with signals(silent=silent) as stop, shown as console:
        yield console, stop


@contextmanager
def _silence(console: Console) -> Iterator[Console]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield console


@contextmanager
def _named(rank: Rank) -> Iterator[None]:
    """Name the rank in an error of any but the first."""
    try:
        yield
    except EvalkitError as error:
        if rank.index > 0:
            error.message = f"rank {rank.index}: {error.message}"
        raise


def _compute(
    request: ScoreRequest, part: tuple[int, int], *, console: Console, stop: Callable[[], int]
) -> None:
    from evalkit.distribution.parts import compute  # noqa: PLC0415 - loads torch
    from evalkit.shards import Part  # noqa: PLC0415

    number, count = part
    manifest = compute(request, console=console, part=Part(number - 1, count), stop=stop).manifest
    path = manifest.write(request.out)
    images = sum(len(manifest.layout.indices(shard)) for shard in manifest.shards)
    identity = manifest.identity
    console.note(f"part {number}/{count} of {identity.model.id}: {images} of {identity.count} images: {path}")
    console.note("when all parts are done: evalkit merge FOLDER [FOLDER …] --out FOLDER")
