"""The ranks of ``torchrun``: who each is, what it takes, and how long it waits."""

from __future__ import annotations

import pytest
import torch

from evalkit.distribution.ranks import Rank, _Arrivals, _wait
from evalkit.errors import TemporaryError, UsageError
from evalkit.extraction import Interrupted

_ENVIRONMENT = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
}  # fmt: skip


def test_a_rank_is_what_the_launcher_says():
    rank = Rank.from_environment({**_ENVIRONMENT, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert rank == Rank(index=3, world=4, local=1, local_world=2, restarts=2)
    assert rank is not None
    assert (rank.part.index, rank.part.count) == (3, 4)


def test_without_the_launcher_nobody_is_a_rank():
    """Slurm and MPI set RANK too, for programs that mean something else by it."""
    assert Rank.from_environment({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) is None


@pytest.mark.parametrize(
    "changes", [{"RANK": "x"}, {"RANK": "4"}, {"RANK": "-1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "5"}]
)
def test_an_environment_that_makes_no_sense_is_refused(changes):
    with pytest.raises(UsageError) as caught:
        Rank.from_environment({**_ENVIRONMENT, **changes})
    assert "start with torchrun" in str(caught.value.hint)


def test_a_missing_variable_is_refused():
    with pytest.raises(UsageError, match="LOCAL_WORLD_SIZE"):
        Rank.from_environment({k: v for k, v in _ENVIRONMENT.items() if k != "LOCAL_WORLD_SIZE"})


@pytest.mark.parametrize(
    ("gpus", "asked", "device"),
    [
        (0, "auto", "auto"),
        (4, "auto", "cuda:1"),
        (4, "cuda", "cuda:1"),
        (1, "auto", "cuda:0"),
        (4, "cpu", "cpu"),
        (4, "cuda:3", "cuda:3"),
    ],
)
def test_every_rank_has_a_gpu_of_its_machine(monkeypatch, gpus, asked, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert Rank(index=5, world=8, local=1, local_world=4).device(asked) == device


@pytest.mark.parametrize(("variable", "expected"), [(None, 3), ("1", 3), ("2", None)])
def test_ranks_share_the_cores_unless_told_otherwise(monkeypatch, variable, expected):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(6)))
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    Rank(index=0, world=2, local=0, local_world=2).share_threads("cpu")
    assert chosen == ([] if expected is None else [expected])


class _Board:
    """A store in which nobody but this rank ever writes."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def set(self, key: str, value: str) -> None:
        self.keys.add(key)

    def check(self, keys: list[str]) -> bool:
        return self.keys.issuperset(keys)


def test_who_does_not_come_is_named():
    rank = Rank(index=1, world=4, local=1, local_world=4)
    with pytest.raises(TemporaryError, match="rank 0, 2, 3 did not come within 0 s") as caught:
        _wait(_Arrivals(_Board(), rank), stop=lambda: 0, patience=0)
    assert "whole shards are kept" in str(caught.value.hint)


def test_a_signal_ends_the_wait():
    rank = Rank(index=0, world=2, local=0, local_world=2)
    with pytest.raises(Interrupted) as caught:
        _wait(_Arrivals(_Board(), rank), stop=lambda: 15, patience=100)
    assert caught.value.exit_code == 143


def test_a_store_that_is_gone_is_a_lost_rank():
    class Gone(_Board):
        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("connection reset\nby peer")

    rank = Rank(index=0, world=2, local=0, local_world=2)
    with pytest.raises(TemporaryError, match=r"another rank was lost: connection reset$"):
        _wait(_Arrivals(Gone(), rank), stop=lambda: 0, patience=100)
