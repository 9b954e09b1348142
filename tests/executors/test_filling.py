"""Shards that other processes compute make the very record of a run that computed them itself."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from evalkit.console import Silent
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.evaluate import run
from evalkit.executors import filling, worker
from evalkit.executors.filling import Filling
from evalkit.extraction import Interrupted
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.shards import ShardLayout, ShardStore
from tests.executors.conftest import TOY, Here

# What may differ between two runs that measured the same.
_PROVENANCE = {"run_id", "created_utc", "duration_seconds", "env", "command", "performance", "sampling"}


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def request(reference: Path | None, out: Path, **changes) -> ScoreRequest:
    settings = {
        "model": TOY, "protocol": "pixels", "reference": reference and str(reference), "num_samples": 100,
        "out": out, "strict": True, "device": "cpu", "metrics": ("kd",),
    }  # fmt: skip
    return ScoreRequest(**{**settings, **changes})


def score(wanted: ScoreRequest, engine: Here | None = None, *, fresh: bool = False, **options) -> RunRecord:
    fill = Filling(engine, "cpu", fresh) if engine is not None else None
    return run(wanted, console=options.pop("console", Silent()), fill=fill, **options)


def measured(record: RunRecord) -> dict[str, object]:
    data = record.to_json()
    return {key: value for key, value in data.items() if key not in _PROVENANCE and key != "perf"}


def states(out: Path) -> dict[str, list[str]]:
    """Return the shards of each folder that was judged; the reference's are the driver's own work."""
    return {
        folder.name: sorted(path.name.partition("-")[0] for path in folder.glob("*.safetensors"))
        for folder in (out / "state").iterdir()
    }


def test_the_record_is_that_of_a_plain_run_to_the_last_bit(tmp_path, reference):
    plain = score(request(reference, tmp_path / "plain", metrics=()))
    engine = Here()
    elsewhere = score(request(reference, tmp_path / "elsewhere", metrics=()), engine)
    assert measured(elsewhere) == measured(plain)
    assert elsewhere.status == "complete"
    assert states(tmp_path / "elsewhere") == states(tmp_path / "plain")
    assert len(engine.asked) == ShardLayout(100).shards
    # The images of the last shard are fewer, and each was asked for once.
    assert sorted(ask.shard for _, ask, _ in engine.asked) == list(range(ShardLayout(100).shards))


def test_speed_and_evaluations_are_those_of_the_workers(tmp_path, reference):
    record = score(request(reference, tmp_path), Here())
    (speed,) = record.performance
    assert speed.images == 100
    assert speed.warmup_seconds > 0
    assert record.sampling is not None
    assert record.sampling.n == 100


def test_images_are_scored_alike(tmp_path, reference):
    changes = {"model": None, "images": reference, "num_samples": 90, "metrics": ("fd", "is")}
    plain = score(request(reference, tmp_path / "plain", **changes))
    assert measured(score(request(reference, tmp_path / "elsewhere", **changes), Here())) == measured(plain)


def test_only_a_window_of_tasks_is_handed_over(tmp_path, reference):
    engine = Here(room=1)
    score(request(reference, tmp_path), engine)
    assert engine.most_waiting == 2


def test_the_model_is_opened_once_for_many_shards(tmp_path, reference, monkeypatch):
    opened: list[str] = []
    original = worker.open_run

    def count(wanted, **options):
        opened.append(str(wanted.device))
        return original(wanted, **options)

    monkeypatch.setattr(worker, "open_run", count)
    score(request(reference, tmp_path), Here())
    assert opened == ["cpu"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_whole_shards_and_the_next_run_continues(tmp_path, reference, number):
    wanted = request(reference, tmp_path / "out")
    engine = Here()
    arrived: list[int] = []
    done = 0

    def after_three() -> None:
        nonlocal done
        done += 1
        if done == 3:
            arrived.append(number)

    engine.before = after_three
    with pytest.raises(Interrupted) as caught:
        score(wanted, engine, stop=lambda: arrived[0] if arrived else 0)
    assert caught.value.exit_code == 128 + number
    assert engine.cancelled
    (partial,) = [RunRecord.read(path) for path in (tmp_path / "out").glob("*.json")]
    assert partial.status == "partial"
    kept = 4  # the one that came when the signal was seen is kept too
    again = Here()
    record = score(wanted, again)
    assert len(again.asked) == ShardLayout(100).shards - kept
    assert measured(record) == measured(score(request(reference, tmp_path / "plain")))


def test_nothing_is_asked_for_twice_and_fresh_asks_for_everything(tmp_path, reference):
    wanted = request(reference, tmp_path)
    first = score(wanted, Here())
    second = Here()
    assert measured(score(wanted, second)) == measured(first)
    assert second.asked == []
    third = Here()
    assert measured(score(wanted, third, fresh=True)) == measured(first)
    assert len(third.asked) == ShardLayout(100).shards


def test_a_damaged_file_is_computed_again(tmp_path, reference):
    wanted = request(reference, tmp_path)
    first = score(wanted, Here())
    damaged = next(path for path in sorted(tmp_path.glob("state/*-8/000002-*.safetensors")))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    engine = Here()
    assert measured(score(wanted, engine)) == measured(first)
    assert [ask.shard for _, ask, _ in engine.asked] == [2]


def test_features_of_other_heads_are_kept(tmp_path, reference):
    score(request(reference, tmp_path, metrics=("fd@pixels",), num_samples=40), Here())
    score(request(reference, tmp_path, metrics=("fd",), num_samples=40), Here())
    heads = [ShardStore(folder).read(4, 8)[0] for folder in (tmp_path / "state").glob("*-8")]
    assert [set(result.features) for result in heads if result] == [{"pixels", "thumbnail"}]


def test_a_second_run_in_the_folder_is_refused_while_workers_work(tmp_path, reference):
    wanted = request(reference, tmp_path)
    engine = Here()
    refused: list[TemporaryError] = []

    def intrude() -> None:
        engine.before = lambda: None
        with pytest.raises(TemporaryError, match="another evalkit run works on") as caught:
            score(wanted, Here())
        refused.append(caught.value)

    engine.before = intrude
    score(wanted, engine)
    assert [error.exit_code for error in refused] == [75]


def test_an_error_of_a_worker_keeps_its_kind(tmp_path, reference, monkeypatch):
    def broken(*_arguments, **_options):
        raise InvalidInputError("features of head 'thumbnail' are not finite", hint="are the weights whole?")

    monkeypatch.setattr(worker, "one_pass", broken)
    with pytest.raises(InvalidInputError, match="are not finite") as caught:
        score(request(reference, tmp_path), Here())
    assert caught.value.hint == "are the weights whole?"


def test_another_release_on_a_node_is_refused(tmp_path, reference, monkeypatch):
    monkeypatch.setattr(filling, "versions", lambda: {"evalkit": "9.9", "numerics": "3"})
    with pytest.raises(UsageError, match=r"the run was started by evalkit 9\.9") as caught:
        score(request(reference, tmp_path), Here())
    assert caught.value.hint == "install the same release of evalkit on every node"


class _Altering(Here):
    """An engine whose workers send something else."""

    def __init__(self, change) -> None:
        super().__init__()
        self._change = change

    def result(self, call):
        filled = super().result(call)
        return dataclasses.replace(filled, files=tuple(map(self._change, filled.files)))


@pytest.mark.parametrize(
    "change",
    [
        lambda file: dataclasses.replace(file, content=file.content[:-1] + b"\x00"),
        lambda file: dataclasses.replace(file, path=file.path.replace("state/", "state/0")),
        lambda file: dataclasses.replace(file, path="state/../../escaped/000000-00.safetensors"),
        lambda file: dataclasses.replace(
            file,
            content=b"",
            path=f"{file.path.rpartition('-')[0]}-{hashlib.sha256(b'').hexdigest()[:32]}.safetensors",
        ),
    ],
    ids=["flipped", "foreign", "escaping", "empty"],
)
def test_what_is_no_shard_of_this_run_is_refused(tmp_path, reference, change):
    with pytest.raises(InvalidInputError, match="sent no whole shard") as caught:
        score(request(reference, tmp_path / "out"), _Altering(change))
    assert caught.value.exit_code == 6
    assert not list(tmp_path.rglob("escaped"))


def test_warnings_of_workers_are_told(tmp_path, reference, monkeypatch):
    original = worker.one_pass

    def warns(opened, plan):
        opened.console.note("warning: this node is slow")
        opened.console.note("loading")
        return original(opened, plan)

    monkeypatch.setattr(worker, "one_pass", warns)
    console = Told()
    score(request(reference, tmp_path), Here(), console=console)
    assert "warning: this node is slow" in console.notes
    assert "loading" not in console.notes


def test_files_are_sent_to_a_machine_that_lacks_them(tmp_path, reference, monkeypatch):
    """The worker finds nothing at the driver's path, is sent the archive once, and reads its copy."""
    images = tmp_path / "driver" / "samples.npz"
    images.parent.mkdir()
    write_samples(images, GaussianTiles().generate(image_seeds(1, np.arange(64))).numpy(), labels=None)
    wanted = request(reference, tmp_path / "out", model=None, images=images, num_samples=64, metrics=("fd",))
    plain = score(dataclasses.replace(wanted, out=tmp_path / "plain"))
    away = tmp_path / "away"
    opened: list[Path] = []
    original = worker.open_run

    class Elsewhere(Here):
        def result(self, call):
            shutil.move(images.parent, away)  # this machine is another one now
            try:
                return super().result(call)
            finally:
                shutil.move(away, images.parent)

    def note(order, **options):
        opened.append(order.images)
        return original(order, **options)

    monkeypatch.setattr(worker, "open_run", note)
    engine = Elsewhere(room=1)
    record = score(wanted, engine)
    assert measured(record) == measured(plain)
    (copy,) = opened
    assert copy.is_relative_to(tmp_path / "cache" / "sent")
    assert copy.read_bytes() == images.read_bytes()
    assert len([call for call in engine.asked if not call[1].contents]) <= 2
