"""Who works on the shards of a store: one run, or parts of one; the dead are followed, the living never."""

from __future__ import annotations

import json

import pytest

from evalkit.errors import TemporaryError
from evalkit.object_stores.lease import BEAT, STALE, Clock, Lease, held

LEASE = "state/key/lease-whole.json"


def content(machine, token="token-of-another", holder="process 7 on elsewhere"):
    return json.dumps({"holder": holder, "token": token, "time": machine.time}).encode()


def hold(folder, **options):
    return held(folder.store, ["state/key"], scratch=folder.path, clock=folder.clock, **options)


def test_a_second_run_is_refused_while_the_first_lives_and_may_go_on_after_it(machine, other):
    first, second = machine.folder(), other.folder()
    with hold(first):
        with pytest.raises(
            TemporaryError, match=r"another evalkit run works on .* \(process \d+ on "
        ) as caught:
            hold(second).__enter__()
        assert caught.value.exit_code == 75
        assert f"{STALE:.0f} seconds" in caught.value.hint
    with hold(second):
        assert second.store.names("state/key") == {"lease-whole.json"}
    assert second.store.names("state/key") == frozenset()


def test_a_second_process_of_the_same_machine_is_refused(machine):
    first, second = machine.folder(), machine.folder()
    with hold(first):
        with pytest.raises(TemporaryError, match="on this machine"):
            hold(second).__enter__()
        assert first.store.read(LEASE) is not None


def test_a_killed_run_of_this_machine_is_followed_at_once(machine):
    folder = machine.folder()
    with hold(folder):
        left_behind = folder.store.read(LEASE)
    folder.store.write(LEASE, left_behind)  # as SIGKILL leaves it
    folder.store.write("state/key/lease-0-of-2.json", left_behind)
    with hold(folder):
        assert machine.slept == []
        assert folder.store.names("state/key") == {"lease-whole.json"}


def test_a_silent_run_of_another_machine_is_watched_and_taken_over(machine):
    folder = machine.folder()
    folder.store.write(LEASE, content(machine))
    machine.time += STALE + 1
    with hold(folder, notify=machine.told.append):
        assert machine.slept == [2 * BEAT]
        assert "process 7 on elsewhere left" in machine.told[0]
    assert folder.store.read(LEASE) is None


@pytest.mark.parametrize("skew", [STALE + 1, -STALE - 1])
def test_a_clock_that_is_wrong_does_not_kill_the_living(machine, skew):
    folder = machine.folder()
    folder.store.write(LEASE, content(machine))
    machine.time += skew

    def beats() -> None:
        folder.store.write(LEASE, content(machine, holder="process 7 on elsewhere, still"))

    machine.while_asleep = beats
    with pytest.raises(TemporaryError, match="process 7 on elsewhere"):
        hold(folder).__enter__()
    assert b"still" in folder.store.read(LEASE)


def test_a_lease_that_makes_no_sense_counts_as_silent(machine):
    folder = machine.folder()
    folder.store.write(LEASE, b"\x00{")
    with hold(folder):
        assert machine.slept == [2 * BEAT]


def test_parts_of_one_division_go_together_and_with_nothing_else(machine, other):
    first, second = machine.folder(), other.folder()
    with hold(first, part="0-of-2"):
        with hold(second, part="1-of-2"):
            assert first.store.names("state/key") == {"lease-0-of-2.json", "lease-1-of-2.json"}
        for part in ("0-of-2", "1-of-3", "whole"):
            with pytest.raises(TemporaryError, match="another evalkit run works"):
                hold(second, part=part).__enter__()
    assert first.store.names("state/key") == frozenset()


def test_a_patient_run_waits_for_its_turn(machine, other):
    first, second = machine.folder(), other.folder()
    holding = hold(first)
    holding.__enter__()
    waited: list[str] = []

    def wait(holder: str) -> None:
        waited.append(holder)
        if len(waited) == 2:
            holding.__exit__(None, None, None)

    with hold(second, waiting=wait):
        assert len(waited) == 2
        assert other.slept == [1.0, 1.0]


def test_the_lease_is_renewed_and_its_loss_stops_the_run(machine):
    folder = machine.folder()
    lease = Lease(
        folder.store, folder.path, "whole", "ours", Clock(lambda: machine.time, machine.clock.sleep), print,
        names=(LEASE,),
    )  # fmt: skip
    machine.time = 5.0
    lease.beat()
    assert json.loads(folder.store.read(LEASE))["time"] == 5.0
    lease.check()
    folder.store.write(LEASE, content(machine))
    lease.beat()
    assert json.loads(folder.store.read(LEASE))["token"] == "token-of-another"
    with pytest.raises(TemporaryError, match="another run took over"):
        lease.check()


def test_a_store_that_does_not_answer_does_not_lose_the_lease(machine, monkeypatch):
    folder = machine.folder()
    with hold(folder) as lease:

        def refuse(*_values: object, **_options: object) -> None:
            raise OSError("no route to host")

        with monkeypatch.context() as patch:
            patch.setattr(folder.store.filesystem, "cat_file", refuse)
            lease.beat()
        lease.check()
