"""The processes of ``torchrun``: which one this is, what is its share of the machine, and where all meet.

    rank = Rank.from_environment()
    with meeting(rank) as met:
        ...                          # every rank by itself
        met.wait(stop)               # until all are here

Accepted trade-offs: ``torchrun`` ends all other ranks when one of them dies, so that theirs are whole shards
and not whole parts; an error that evalkit itself notices is kept until the others have finished.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from evalkit.errors import TemporaryError, UsageError
from evalkit.extraction import interruption
from evalkit.runtime import resolve_device
from evalkit.shards import Part

Wait = Callable[[Callable[[], int]], None]
PATIENCE_S = 6 * 3600.0
"""How long a rank waits at the end for the slowest."""
_JOINING_S = 600.0
_MOMENT_S = 0.1
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_LAUNCHER = "TORCHELASTIC_RUN_ID"
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One process among ``world`` ones, the ``local``-th of the ``local_world`` of its machine.

    ``restarts`` counts how often the launcher has begun anew.
    """

    index: int
    world: int
    local: int
    local_world: int
    restarts: int = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Rank | None:
        """Return which rank ``torchrun`` says that this process is, or None where it is alone.

        Raises:
            UsageError: the launcher's variables are missing or make no sense.
        """
        variables = os.environ if environ is None else environ
        if _LAUNCHER not in variables:
            return None
        try:
            index, world, local, local_world = (int(variables[name]) for name in _VARIABLES)
            restarts = int(variables.get(_RESTARTS, "0"))
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"{_LAUNCHER} is set, but not all of {', '.join(_VARIABLES)} are numbers",
                hint=f"start with torchrun, or unset {_LAUNCHER}",
            ) from error
        if not (0 <= index < world and 0 <= local < local_world <= world):
            raise UsageError(
                f"there is no rank {index} of {world}, or none {local} of {local_world}",
                hint=f"start with torchrun, or unset {_LAUNCHER}",
            )
        return cls(index=index, world=world, local=local, local_world=local_world, restarts=restarts)

    @property
    def part(self) -> Part:
        """The shards that it takes."""
        return Part(self.index, self.world)

    def device(self, name: str) -> str:
        """Return the device for ``--device name``: where the machine has GPUs, one for each of its ranks."""
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local % gpus}" if name in {"auto", "cuda"} and gpus else name

    def share_threads(self, device: str) -> None:
        """Share the cores of the machine among its ranks, where they compute on them.

        ``torchrun`` sets one thread for each where nothing is set; another number is the user's own.
        """
        if resolve_device(device).type != "cpu" or os.environ.get("OMP_NUM_THREADS", "1") != "1":
            return
        torch.set_num_threads(max(_cores() // self.local_world, 1))


def _cores() -> int:
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Meeting:
    """What the ranks of one launch share.

    Attributes:
        wait: waits until all of them have come to the same point, unless the user has enough of it.
        launch: the same for all of them, and for those that the launcher begins anew.
    """

    wait: Wait
    launch: str


@contextmanager
def meeting(rank: Rank, *, patience: float = PATIENCE_S) -> Iterator[Meeting]:
    """Join the other ranks.

    Args:
        rank: which this is.
        patience: seconds to wait there.

    Raises:
        TemporaryError: they could not be reached, left, or did not come in time; names who did not.
    """
    joining = timedelta(seconds=_JOINING_S)
    try:
        with _mortal():
            found, _, _ = next(rendezvous("env://", timeout=joining))
            # The launcher's store outlives a restart, and with it the addresses of ranks that are gone.
            store = PrefixStore(f"evalkit/{rank.restarts}/{rank.world}", found)
            launch = found.compare_set("evalkit/launch", "", secrets.token_hex(16)).decode()
            distributed.init_process_group(
                "gloo", store=store, rank=rank.index, world_size=rank.world, timeout=joining
            )
    except (RuntimeError, ValueError) as error:
        raise TemporaryError(
            f"the other ranks cannot be reached: {_first_line(error)}", hint=_AGAIN
        ) from error
    try:
        yield Meeting(lambda stop: _wait(_Arrivals(store, rank), stop=stop, patience=patience), launch)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _mortal() -> Iterator[None]:
    """Let SIGTERM end the process while it waits in a call that no handler interrupts: nothing is lost."""
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


class _Store(Protocol):
    def set(self, key: str, value: str) -> None: ...

    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """Who has come, as all can see."""

    store: _Store
    rank: Rank

    def announce(self) -> None:
        self.store.set(f"here/{self.rank.index}", "yes")

    def complete(self) -> bool:
        return self.store.check([f"here/{n}" for n in range(self.rank.world)])

    def missing(self) -> str:
        absent = [n for n in range(self.rank.world) if not self.store.check([f"here/{n}"])]
        return ", ".join(map(str, absent))


def _wait(arrivals: _Arrivals, *, stop: Callable[[], int], patience: float) -> None:
    """Wait for the others, then pass a barrier with them: the barrier alone would keep signals waiting."""
    deadline = time.monotonic() + patience
    try:
        arrivals.announce()
        while not arrivals.complete():
            if number := stop():
                raise interruption(number)
            if time.monotonic() > deadline:
                raise TemporaryError(
                    f"rank {arrivals.missing()} did not come within {patience:g} s", hint=_AGAIN
                )
            time.sleep(_MOMENT_S)
        distributed.barrier()
    except RuntimeError as error:
        raise TemporaryError(f"another rank was lost: {_first_line(error)}", hint=_AGAIN) from error


_AGAIN = "whole shards are kept; run the same command to continue"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
