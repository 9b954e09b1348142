"""Forgotten shards stay forgotten: not from the store, not from a folder of this or another machine."""

from __future__ import annotations

import pytest

from evalkit.errors import TemporaryError
from evalkit.object_stores.shard_names import compared, note_stored, owns, stored_in
from tests.object_stores.conftest import failing, shard

OLD, NEW, ONE = shard(0, b"old")[0], shard(0, b"new")[0], shard(1, b"one")[0]


def _here(folder) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def _replace(machine, folder, *, part: str = "whole") -> None:
    """What a run with --fresh does to shard 0."""
    state = folder.path / "state" / "key"
    with folder.holding([state], part=part, fresh=True) as pushed:
        for path in state.glob("*.safetensors"):
            path.unlink()
        machine.put(folder, 0, b"new")
        pushed()


def test_the_store_has_forgotten_before_anything_is_computed(machine):
    folder = machine.folder()
    state = machine.put(folder, 0, b"old").parent
    folder.push(state)
    holding = folder.holding([state], fresh=True)
    holding.__enter__()
    assert folder.store.names("state/key") == {"lease-whole.json"}
    for path in state.glob("*.safetensors"):
        path.unlink()
    assert not holding.__exit__(ZeroDivisionError, ZeroDivisionError(), None), "it was raised again"
    with machine.folder().holding([state]):
        assert _here(state) == set()


def test_what_another_machine_replaced_is_neither_kept_nor_sent_again(machine, other):
    first = machine.folder()
    state = first.path / "state" / "key"
    with first.holding([state]) as pushed:
        machine.put(first, 0, b"old")
        machine.put(first, 1, b"one")
        pushed()
    _replace(other, other.folder())
    assert first.store.names("state/key") == {NEW}
    again = machine.folder()
    with again.holding([state]) as pushed:
        assert _here(state) == {NEW}
        pushed()
    again.finish()
    assert first.store.names("state/key") == {NEW}


def test_a_merge_that_fetches_everything_gets_the_new_ones_alone(machine, other):
    first = machine.folder()
    state = machine.put(first, 0, b"old").parent
    first.push(state)
    _replace(other, other.folder())
    machine.folder().pull_everything()
    assert _here(state) == {NEW}


def test_what_was_replaced_while_the_store_did_not_answer_is_not_brought_back(machine, monkeypatch):
    folder = machine.folder()
    old = machine.put(folder, 0, b"old")
    folder.push(old.parent)
    with folder.holding([old.parent]) as pushed:
        with failing(monkeypatch, folder, "no route to host"):
            old.unlink()
            machine.put(folder, 0, b"new")
            pushed()
        folder.known[old.parent].clear()  # killed here: the end of the pass sends and removes nothing
        monkeypatch.setattr(type(folder), "push", lambda *_a: None)
    monkeypatch.undo()
    folder = machine.folder()
    with folder.holding([old.parent]):
        assert _here(old.parent) == {NEW}
    assert folder.store.names("state/key") == {NEW}


def test_what_was_never_sent_is_kept_and_goes_up(machine, monkeypatch):
    folder = machine.folder()
    state = folder.path / "state" / "key"
    with folder.holding([state]) as pushed, failing(monkeypatch, folder, "full"):
        machine.put(folder, 1, b"one")
        pushed()
        monkeypatch.setattr(type(folder), "push", lambda *_a: None)
    monkeypatch.undo()
    again = machine.folder()
    with again.holding([state]):
        assert _here(state) == {ONE}
    assert again.store.names("state/key") == {ONE}


def test_a_shard_that_was_lost_here_is_brought_again(machine):
    folder = machine.folder()
    path = machine.put(folder, 1, b"one")
    folder.push(path.parent)
    path.unlink()
    with machine.folder().holding([path.parent]):
        assert path.read_bytes() == b"one"


def test_a_part_sends_nothing_of_the_others(machine):
    """Ranks of one machine share its folder: what another is about to forget does not go up by us."""
    folder = machine.folder()
    state = machine.put(folder, 0, b"old").parent
    with folder.holding([state], part="1-of-2", fresh=True) as pushed:
        machine.put(folder, 1, b"one")
        pushed()
    folder.finish()
    assert folder.store.names("state/key") == {ONE}


def test_a_fresh_part_forgets_its_own_shards_alone(machine):
    folder = machine.folder()
    state = machine.put(folder, 0, b"old").parent
    machine.put(folder, 1, b"one")
    folder.push(state)
    with folder.holding([state], part="0-of-2", fresh=True):
        assert folder.store.names("state/key") == {ONE, "lease-0-of-2.json"}


def test_a_store_that_cannot_forget_ends_the_run_before_it_begins(machine, monkeypatch):
    folder = machine.folder()
    state = machine.put(folder, 0, b"old").parent
    folder.push(state)
    monkeypatch.setattr(type(folder.store), "remove", _refuse)
    with pytest.raises(TemporaryError, match="cannot remove"), folder.holding([state], fresh=True):
        raise AssertionError("nothing is computed")
    monkeypatch.undo()
    assert _here(state) == {OLD}


def _refuse(_store, name):
    raise TemporaryError(f"cannot remove {name}")


@pytest.mark.parametrize(
    ("there", "here", "stored", "old", "missing", "known"),
    [
        ({NEW}, {OLD}, {OLD}, {OLD}, {NEW}, set()),
        ({NEW}, {OLD}, set(), {OLD}, {NEW}, set()),
        ({OLD}, {NEW}, {OLD}, set(), set(), {OLD}),
        (set(), {OLD}, {OLD}, {OLD}, set(), set()),
        (set(), {OLD}, set(), set(), set(), set()),
        ({OLD, ONE}, {OLD}, {OLD, ONE}, set(), {ONE}, {OLD}),
    ],
)  # fmt: skip
def test_whose_shard_counts(there, here, stored, old, missing, known):
    changes = compared(there=there, here=here, stored=stored)
    assert (changes.old, changes.missing, changes.known) == (old, missing, known)


def test_names_that_the_store_has_had_are_kept(tmp_path):
    assert stored_in(tmp_path) == set()
    note_stored(tmp_path / "key", [OLD])
    note_stored(tmp_path / "key", [NEW, ONE])
    assert stored_in(tmp_path / "key") == {OLD, NEW, ONE}
    assert [owns("whole", ONE), owns("1-of-2", ONE), owns("0-of-2", ONE)] == [True, True, False]
