"""A run folder in an object store equals the folder of the machine, whatever fails on the way."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from evalkit.errors import TemporaryError
from evalkit.object_stores import opened
from tests.object_stores.conftest import failing, shard


def test_what_one_machine_made_another_continues(machine, other):
    first = machine.folder()
    folder = first.path / "state" / "key"
    with first.holding([folder]) as pushed:
        machine.put(first, 0, b"zero")
        pushed()
        assert first.store.read(f"state/key/{shard(0, b'zero')[0]}") == b"zero"
        machine.put(first, 1, b"one")
    second = other.folder()
    assert second.path != first.path
    copy = second.path / "state" / "key"
    with second.holding([copy]):
        assert {path.name: path.read_bytes() for path in copy.glob("*.safetensors")} == dict(
            [shard(0, b"zero"), shard(1, b"one")]
        )


def test_only_the_folders_of_this_run_are_brought(machine, other):
    first = machine.folder()
    for key in ("mine", "another"):
        machine.put(first, 0, b"zero", key=key)
        first.push(first.path / "state" / key)
    second = other.folder()
    with second.holding([second.path / "state" / "mine"]):
        assert [path.name for path in sorted((second.path / "state").iterdir())] == ["mine"]


def test_a_damaged_shard_is_told_of_removed_and_made_again(machine, other):
    first = machine.folder()
    name, content = shard(3, b"three")
    first.store.write(f"state/key/{name}", b"thr3e")
    second = other.folder()
    folder = second.path / "state" / "key"
    with second.holding([folder]):
        assert not list(folder.glob("*.safetensors"))
        assert any("damaged and is computed again" in text and name in text for text in other.told)
        other.put(second, 3, content)
    assert second.store.read(f"state/key/{name}") == content


def test_a_shard_that_was_computed_again_replaces_the_one_in_the_store(machine):
    folder = machine.folder()
    old = machine.put(folder, 0, b"old")
    with folder.holding([old.parent]) as pushed:
        pushed()
        old.unlink()
        machine.put(folder, 0, b"new")
    names = folder.store.names("state/key")
    assert names == {shard(0, b"new")[0]}


def test_shards_of_other_parts_are_left_alone(machine, other):
    first, second = machine.folder(), other.folder()
    here, there = (folder.path / "state" / "key" for folder in (first, second))
    with first.holding([here], part="0-of-2"), second.holding([there], part="1-of-2"):
        machine.put(first, 0, b"zero")
        other.put(second, 1, b"one")
    assert first.store.names("state/key") == {shard(0, b"zero")[0], shard(1, b"one")[0]}


def test_a_store_that_does_not_answer_costs_nothing_of_the_run(machine, monkeypatch):
    folder = machine.folder()
    state = folder.path / "state" / "key"
    with folder.holding([state]) as pushed, failing(monkeypatch, folder, "no route to host"):
        path = machine.put(folder, 0, b"zero")
        pushed()
        assert any("no route to host; tried again later" in text for text in machine.told)
        assert path.read_bytes() == b"zero"
    folder.finish()
    assert folder.store.read(f"state/key/{path.name}") == b"zero"


def test_a_last_push_that_fails_is_tried_again_then_ends_with_75_and_keeps_everything(machine, monkeypatch):
    folder = machine.folder()
    path = machine.put(folder, 0, b"zero")
    record = folder.path / "run-1.json"
    record.write_text("{}")
    folder.known[path.parent] = set()
    with failing(monkeypatch, folder, "quota of account exceeded") as tried:
        with pytest.raises(
            TemporaryError, match="quota of account exceeded; what it lacks is kept in"
        ) as caught:
            folder.finish()
        assert caught.value.exit_code == 75
    assert len(tried) == 4
    assert machine.slept == [0.0, 1.0, 4.0, 15.0]
    assert path.read_bytes() == b"zero"
    assert folder.store.names() == frozenset()
    again = machine.folder()
    with again.holding([path.parent]):
        pass
    again.finish()
    assert again.store.read("run-1.json") == b"{}"
    assert again.store.read(f"state/key/{path.name}") == b"zero"


def test_a_record_goes_up_whole_and_a_later_one_of_the_same_run_replaces_it(machine):
    folder = machine.folder()
    record = folder.path / "run-1.json"
    record.write_text('{"status": "started"}')
    folder.finish()
    assert not record.exists()
    record.write_text('{"status": "complete"}')
    folder.finish()
    assert folder.store.read("run-1.json") == b'{"status": "complete"}'


def test_a_record_left_behind_while_it_was_sent_goes_with_the_next_run(machine, monkeypatch):
    folder = machine.folder()
    (folder.path / "run-1.json").write_text("{}")
    with failing(monkeypatch, folder, "gone"), pytest.raises(TemporaryError):
        folder.finish(tries=1)
    machine.folder().finish()
    assert folder.store.names() == {"run-1.json"}


def test_a_local_folder_stays_what_it_is(tmp_path):
    with opened(tmp_path / "runs") as folder:
        assert folder.path == folder.fetch() == tmp_path / "runs"
        assert folder.place("a.json") == str(tmp_path / "runs" / "a.json")
        with folder.mirror.holding([folder.path / "state" / "key"]) as pushed:
            pushed()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("store_answers", [True, False])
def test_an_error_of_the_run_is_told_whatever_the_store_does(machine, url, monkeypatch, store_answers):
    folder = machine.folder()

    def breaks() -> None:
        with opened(url, clock=machine.clock) as here:
            (here.path / "run-1.json").write_text('{"status": "partial"}')
            raise ZeroDivisionError

    with ExitStack() as stack:
        if not store_answers:
            stack.enter_context(failing(monkeypatch, folder, "gone"))
        with pytest.raises(ZeroDivisionError):
            breaks()
    assert folder.store.names() == ({"run-1.json"} if store_answers else frozenset())
    folder.finish()
    assert folder.store.read("run-1.json") == b'{"status": "partial"}'


def test_everything_can_be_fetched_for_a_merge(machine, other, url):
    first = machine.folder()
    for key in ("a", "b"):
        machine.put(first, 0, key.encode(), key=key)
        first.push(first.path / "state" / key)
    part = first.path / "parts" / "run-part-1-of-2.json"
    part.parent.mkdir()
    part.write_text('{"part": 1}')
    (first.path / "run-1.json").write_text("{}")
    first.finish()
    other.folder()
    with opened(url) as folder:
        path = folder.fetch()
        assert {file.parent.name: file.read_bytes() for file in path.glob("state/*/*.safetensors")} == {
            "a": b"a",
            "b": b"b",
        }
        assert (path / "parts" / part.name).read_text() == '{"part": 1}'
        assert not list(path.glob("*.json"))


def test_progress_goes_up_with_each_shard_and_only_where_it_changed(machine, monkeypatch):
    folder = machine.folder()
    progress = folder.path / "progress" / "key.json"
    progress.parent.mkdir()
    written: list[str] = []
    write = type(folder.store).write

    def note(store, name, content):
        written.append(name)
        write(store, name, content)

    monkeypatch.setattr(type(folder.store), "write", note)
    state = folder.path / "state" / "key"
    with folder.holding([state]) as pushed:
        progress.write_text('{"shards_done": 1}')
        pushed()
        pushed()
        assert written.count("progress/key.json") == 1
        assert folder.store.read("progress/key.json") == b'{"shards_done": 1}'
        progress.write_text('{"shards_done": 2}')
    assert folder.store.read("progress/key.json") == b'{"shards_done": 2}'


def test_progress_that_an_earlier_run_left_here_does_not_overwrite_what_another_machine_told(machine, other):
    first = machine.folder()
    left = first.path / "progress" / "key.json"
    left.parent.mkdir()
    left.write_text('{"phase": "sampling"}')
    second = other.folder()
    second.store.write("progress/key.json", b'{"phase": "done"}')
    machine.folder().finish()
    assert second.store.read("progress/key.json") == b'{"phase": "done"}'
