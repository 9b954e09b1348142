"""Ranks of one launch: what a restarted one may use, and what it must not."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from evalkit.console import Silent
from evalkit.distribution import together
from evalkit.distribution.parts import compute
from evalkit.distribution.ranks import Meeting, Rank
from evalkit.errors import CheckpointError
from evalkit.request import ScoreRequest
from evalkit.shards import Part, ShardStore

ALONE = Rank(index=0, world=1, local=0, local_world=1)


@pytest.fixture
def launched(monkeypatch):
    """Begin the only rank of a launch, for the how-manieth time."""

    def begin(request: ScoreRequest, launch: str, *, restarts: int = 0):
        @contextmanager
        def meeting(_rank, **_options):
            yield Meeting(lambda _stop: None, launch)

        monkeypatch.setattr(together, "meeting", meeting)
        return together.score_together([request], replace(ALONE, restarts=restarts), console=Silent())

    return begin


def _shards(request: ScoreRequest) -> set[str]:
    """Names of the shards of the images: each holds the digest of how long it took, too."""
    return {path.name for path in request.out.glob("state/*-8/*.safetensors")}


def test_a_rank_that_died_before_it_forgot_forgets_when_it_is_restarted(asked, launched, monkeypatch):
    request = asked(num_samples=40, fresh=True)
    compute(replace(request, fresh=False), console=Silent(), part=Part(0, 1))
    old = _shards(request)

    def fail(*_arguments, **_flags):
        raise CheckpointError("the model does not open")

    with monkeypatch.context() as patch:
        patch.setattr("evalkit.distribution.parts.open_run", fail)
        with pytest.raises(CheckpointError):
            launched(request, "launch-1")
    assert _shards(request) == old
    (record,) = launched(request, "launch-1", restarts=1)
    assert record.status == "complete"
    assert len(_shards(request)) == len(old) == 5
    assert _shards(request).isdisjoint(old), "nothing older than the launch was used"
    assert not list(request.out.rglob(".cleared-*"))


def test_a_rank_that_had_forgotten_goes_on_when_it_is_restarted(asked, launched):
    request = asked(num_samples=40, fresh=True)
    compute(replace(request, launch="launch-1"), console=Silent(), part=Part(0, 1))
    begun = _shards(request)
    launched(request, "launch-1", restarts=1)
    assert _shards(request) == begun
    launched(request, "launch-2")
    assert _shards(request).isdisjoint(begun)


def test_a_folder_is_cleared_once_for_each_launch_and_part(tmp_path):
    store = ShardStore(tmp_path)

    def shards() -> set[str]:
        return {path.name for path in tmp_path.glob("*.safetensors")}

    def put() -> None:
        for shard in (0, 1):
            (tmp_path / f"{shard:06d}-x.safetensors").touch()

    put()
    store.clear(Part(1, 2), launch="a")
    assert shards() == {"000000-x.safetensors"}
    put()
    store.clear(Part(1, 2), launch="a")
    assert len(shards()) == 2
    assert store.is_cleared(Part(1, 2), "a")
    assert not store.is_cleared(Part(0, 2), "a")
    store.clear(Part(0, 2), launch="a")
    store.clear(Part(1, 2), launch="b")
    assert shards() == set()
    put()
    store.clear()
    assert shards() == set()
    assert not store.is_cleared(None, "")
    store.forget_launches()
    assert list(tmp_path.iterdir()) == []
