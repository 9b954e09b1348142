"""What a run tells while it runs: its events in order, its progress file, and that neither can harm it."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from evalkit import following as module
from evalkit import progress
from evalkit.console import Silent
from evalkit.core import ImageBatch
from evalkit.distribution.parts import compute
from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.evaluate import run
from evalkit.events import (
    Note,
    OutOfMemory,
    PartFinished,
    PassBegan,
    PhaseBegan,
    RunFailed,
    RunFinished,
    RunIdentified,
    RunInterrupted,
    RunStarted,
    ShardDone,
)
from evalkit.extraction import Interrupted, Job, extract
from evalkit.following import following, progress_key
from evalkit.generators.toy import GaussianTiles
from evalkit.lanes import Lane
from evalkit.progress import FOLDER, Snapshot, read_progress, read_snapshot
from evalkit.request import ScoreRequest
from evalkit.run_status import missing_shards
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.shards import Part, ShardLayout, ShardStore
from evalkit.telling import ended_by, telling, telling_elsewhere

TOY = "evalkit.generators.toy:make"


class Listening(Silent):
    """Keeps every event and note, and what the progress file said at each event."""

    def __init__(self, out: Path) -> None:
        self.events: list[object] = []
        self.notes: list[str] = []
        self.seen: list[Snapshot] = []
        self._out = out

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tell(self, event) -> None:
        self.events.append(event)
        self.seen += [found.snapshot for found in read_progress(self._out, notify=pytest.fail)]

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


@pytest.fixture
def request_of(tmp_path, reference):
    def make(**changes) -> ScoreRequest:
        fixed = {"model": TOY, "protocol": "pixels", "reference": str(reference), "num_samples": 128}
        return ScoreRequest(**{**fixed, "metrics": ("fd",), "out": tmp_path, **changes})

    return make


def _only(out: Path) -> Snapshot:
    (found,) = read_progress(out, notify=pytest.fail)
    jsonschema.Draft202012Validator(progress.schema()).validate(json.loads(found.path.read_text()))
    return found.snapshot


def test_a_run_tells_what_it_does_in_order(tmp_path, request_of):
    console = Listening(tmp_path)
    record = run(request_of(), console=console)
    kinds = [type(event) for event in console.events if not isinstance(event, Note)]
    shards = [ShardDone] * 16
    references = [ShardDone] * ShardLayout(300).shards
    assert kinds == [
        *(RunStarted, RunIdentified, PhaseBegan, PassBegan, *references, PhaseBegan, PassBegan, *shards),
        *(PhaseBegan, RunFinished),
    ]
    assert [event.phase for event in console.of(PhaseBegan)] == ["reference", "sampling", "scoring"]
    assert [event.shard for event in console.of(ShardDone)[-16:]] == list(range(16))
    assert all(event.images == 8 and not event.reused for event in console.of(ShardDone)[-16:])
    (finished,) = console.of(RunFinished)
    assert finished.status == "complete"
    assert finished.fingerprint == record.protocol.fingerprint
    assert [score.value for score in finished.scores] == [result.value for result in record.results]


def test_the_progress_file_follows_and_stays(tmp_path, request_of):
    console = Listening(tmp_path)
    record = run(request_of(), console=console)
    last = _only(tmp_path)
    assert last.phase == "done"
    assert last.run == record.run_id
    assert (last.images_done, last.images_total, last.shards_done) == (128, 128, 16)
    assert (last.subject, last.protocol) == (TOY, "pixels")
    assert last.rate is not None
    assert last.rate > 0
    assert missing_shards(last, tmp_path) == set()
    assert {"reference", "sampling", "scoring"} <= {seen.phase for seen in console.seen}
    during = next(seen for seen in console.seen if seen.phase == "sampling" and seen.shards)
    assert during.shards == "0-15"
    assert (tmp_path / during.state[0]).is_dir()


def test_a_run_whose_progress_cannot_be_written_ends_with_the_same_value(tmp_path, request_of):
    expected = run(request_of(), console=Silent())
    other = tmp_path / "other"
    other.mkdir()
    (other / FOLDER).write_text("a file where the folder should be")
    console = Listening(tmp_path)
    record = run(request_of(out=other), console=console)
    assert record.status == "complete"
    assert record.results == expected.results
    (warning,) = [note for note in console.notes if "without its progress file" in note]
    assert warning.startswith("warning: cannot write ")


def test_an_interrupted_run_says_so_and_the_next_takes_its_place(tmp_path, request_of):
    asked = iter(range(100))
    console = Listening(tmp_path)
    with pytest.raises(Interrupted):
        run(
            request_of(),
            console=console,
            stop=lambda: signal.SIGTERM if next(asked) > ShardLayout(300).shards + 4 else 0,
        )
    (event,) = console.of(RunInterrupted)
    assert event.exit_code == 143
    first = _only(tmp_path)
    assert first.phase == "interrupted"
    assert "whole shards are kept" in first.error
    assert missing_shards(first, tmp_path) == set(range(first.shards_done, 16))

    console = Listening(tmp_path)
    record = run(request_of(), console=console)
    second = _only(tmp_path)
    assert (second.phase, second.run, second.continues) == ("done", record.run_id, (first.run,))
    judged = console.of(ShardDone)[-16:]
    assert [event.reused for event in judged] == [True] * first.shards_done + [False] * (
        16 - first.shards_done
    )
    run(request_of(), console=Silent())
    assert _only(tmp_path).continues == ()
    assert _only(tmp_path).rate is None, "nothing was computed"


def test_what_is_refused_at_once_leaves_nothing(tmp_path, request_of):
    console = Listening(tmp_path)
    with pytest.raises(UsageError):
        run(request_of(out=tmp_path / "out", metrics=("no-such",)), console=console)
    assert [type(event) for event in console.events] == [RunStarted, RunFailed]
    assert console.events[-1].exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_failed_run_says_why(tmp_path, request_of):
    console = Listening(tmp_path)
    with pytest.raises(InvalidInputError):
        run(request_of(num_samples=1), console=console)
    last = _only(tmp_path)
    assert last.phase == "failed"
    assert "needs at least" in last.error
    assert console.of(RunFailed)[0].exit_code == 6


def test_a_warning_is_kept(tmp_path, request_of):
    with following(request_of(), Silent()) as follower:
        follower.tell(PhaseBegan(phase="reference"))
        follower.note("protocol: pixels")
        follower.note("warning: two images are black")
        assert follower.snapshot.warning == "warning: two images are black"


def test_the_heart_beats_while_nothing_happens(tmp_path, request_of, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_BEAT", 0.001)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.001)
    written: list[str] = []
    twice = threading.Event()

    def write(_path: Path, snapshot: Snapshot) -> None:
        written.append(snapshot.phase)
        if len(written) >= 2:
            twice.set()

    monkeypatch.setattr(module, "write_progress", write)
    with following(request_of(), Silent()):
        assert twice.wait(timeout=60)
    assert set(written) == {"opening"}
    assert not any(thread.name == "evalkit-heartbeat" for thread in threading.enumerate())


def test_counts_of_images_are_written_every_few_seconds_only(request_of, monkeypatch):
    clock, written = [1000.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "write_progress", lambda _path, snapshot: written.append(snapshot))
    monkeypatch.setattr(module, "_FIRST_BEAT", 1e6)
    with following(request_of(), Silent()) as follower:
        follower.tell(PhaseBegan(phase="sampling"))
        follower.tell(PassBegan(images=1000, shards="0-9", state=()))
        with follower.progress("sampling", 1000) as advance:
            for _ in range(100):
                clock[0] += 0.1
                advance(10)
        sampled = [seen for seen in written if seen.images_done]
    assert 4 <= len(sampled) <= 6
    assert sampled[-1].rate == pytest.approx(100)
    assert sampled[-1].eta_seconds == pytest.approx((1000 - sampled[-1].images_done) / 100)


def test_reused_images_do_not_count_for_the_rate(request_of, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with following(request_of(), Silent()) as follower:
        follower.tell(PhaseBegan(phase="sampling"))
        follower.tell(PassBegan(images=400, shards="0-3", state=()))
        with follower.progress("sampling", 400) as advance:
            for reused in (True, True, False):
                clock[0] += 4
                advance(100)
                follower.tell(_shard(reused=reused))
        assert follower.snapshot.images_done == 300
        assert follower.snapshot.rate == pytest.approx(25)
        assert follower.snapshot.eta_seconds == pytest.approx(4)


def _shard(*, reused: bool) -> ShardDone:
    return ShardDone(
        shard=0, images=100, seconds=4.0, reused=reused, read_seconds=0.0, extract_seconds=0.0,
        largest_batch=50,
    )  # fmt: skip


def test_following_twice_is_following_once(request_of, tmp_path):
    console = Listening(tmp_path)
    with following(request_of(), console) as outer, following(request_of(), outer) as inner:
        assert inner is outer
    assert len(console.of(RunStarted)) == 1


def test_a_part_has_a_file_of_its_own(request_of, tmp_path):
    request = request_of()
    with following(request, Silent(), part=Part(1, 3)) as follower:
        follower.tell(PhaseBegan(phase="reference"))
    (path,) = (tmp_path / FOLDER).glob("*.json")
    assert path.stem == progress_key(request, Part(1, 3))
    assert (read_snapshot(path).part, read_snapshot(path).parts) == (1, 3)


def test_a_part_ends_with_its_shards(request_of, tmp_path):
    console = Listening(tmp_path)
    compute(request_of(), console=console, part=Part(1, 3))
    last = _only(tmp_path)
    assert console.events[-1] == PartFinished(part=1, parts=3)
    assert (last.phase, last.part, last.parts, last.shards) == ("done", 1, 3, "1,4,7,10,13")
    assert (last.images_done, last.images_total) == (40, 40)


def test_the_key_is_what_is_asked_for(request_of, tmp_path):
    plain = progress_key(request_of(), Part(0, 1))
    elsewhere = {"out": tmp_path / "x", "device": "cpu", "batch_size": 3, "command": ("a",), "fresh": True}
    assert progress_key(request_of(**elsewhere), Part(0, 1)) == plain
    keys = {progress_key(request_of(**change), Part(0, 1)) for change in ({"seed": 1}, {"metrics": ("is",)})}
    keys |= {progress_key(request_of(), Part(index, 2)) for index in (0, 1)}
    assert len(keys | {plain}) == 5


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Interrupted("stopped"), RunInterrupted, 130),
        (KeyboardInterrupt(), RunInterrupted, 130),
        (CheckpointError("no", hint="other file"), RunFailed, 6),
        (ZeroDivisionError("x"), RunFailed, 70),
    ],
)
def test_what_ended_a_run(error, kind, code):
    event = ended_by(error)
    assert type(event) is kind
    assert event.exit_code == code
    assert event.text


class _Small:
    """Does not fit more than two images."""

    def __call__(self, index, _batch: ImageBatch | None, heads):
        if len(index) > 2:
            raise torch.OutOfMemoryError("too many")
        return {head: np.ones((len(index), 3), np.float32) for head in heads}


def test_a_batch_that_does_not_fit_is_told_of(tmp_path):
    lane = Lane(_Small(), ("x",), ShardStore(tmp_path / "state"))
    job = Job(lanes=(lane,), layout=ShardLayout(16), batch_size=8, device=torch.device("cpu"))
    console = Listening(tmp_path)
    extract(job, progress=lambda _n: None, stop=lambda: 0, after_shard=telling(job, console))
    assert console.of(OutOfMemory) == [OutOfMemory(shard=0, batch=2), OutOfMemory(shard=1, batch=2)]
    assert [event.largest_batch for event in console.of(ShardDone)] == [2, 2]


def test_a_part_tells_of_its_own_shards(tmp_path):
    lane = Lane(_Small(), ("x",), ShardStore(tmp_path / "state"))
    job = Job(
        lanes=(lane,), layout=ShardLayout(40), batch_size=2, device=torch.device("cpu"), part=Part(1, 3)
    )
    console = Listening(tmp_path)
    extract(job, progress=lambda _n: None, stop=lambda: 0, after_shard=telling(job, console))
    assert console.of(PassBegan)[0].shards == "1,4"
    assert [event.shard for event in console.of(ShardDone)] == [1, 4]
    assert console.of(PassBegan)[0].images == 16


def test_shards_computed_elsewhere_are_told_of_as_they_come(tmp_path, request_of):
    lane = Lane(_Small(), ("x",), ShardStore(tmp_path / "state" / "k"))
    job = Job(lanes=(lane,), layout=ShardLayout(40), batch_size=2, device=torch.device("cpu"))
    console = Listening(tmp_path)
    with following(request_of(), console) as follower:
        came = telling_elsewhere([job, job], [0, 2, 4], follower, drawn=True)
        with follower.progress("on the cluster", 24) as advance:
            for shard in (4, 0):
                advance(8)
                came(shard)
        last = follower.snapshot
    assert (last.phase, last.images_done, last.images_total) == ("sampling", 16, 24)
    assert (last.shards_done, last.shards_total, last.shards, last.state) == (2, 3, "0,2,4", ("state/k",))
    assert [event.shard for event in console.of(ShardDone)] == [4, 0]
