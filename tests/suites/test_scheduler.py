"""Laws of the scheduler, on processes that live in a table: no time passes and nothing is started."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.suites.scheduler import Slot, run_cells
from tests.suites.stage import make_cell

BUSY = 75


@dataclass
class Script:
    """What a cell does: how many looks it lives, how it ends, and what it cannot share."""

    looks: int = 0
    code: int = 0
    resource: int | None = None


@dataclass
class World:
    scripts: dict[str, Script]
    slots: int
    alive: list[FakeProcess] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    most: int = 0
    killed: int = 0

    def launch(self, cell, slot):
        script = self.scripts[cell.row]
        busy = script.resource is not None and any(p.script.resource == script.resource for p in self.alive)
        process = FakeProcess(self, Script(0, BUSY, None) if busy else script, slot)
        assert slot not in [other.slot for other in self.alive]
        self.alive.append(process)
        self.started.append(cell.row)
        self.most = max(self.most, len(self.alive))
        return process

    def run(self, **more):
        cells = [make_cell(name) for name in self.scripts]
        slots = [Slot(n, f"device{n % 2}") for n in range(self.slots)]
        return run_cells(cells, slots=slots, launch=self.launch, **{"stop": lambda: 0, "pause": 0.0, **more})


class FakeProcess:
    def __init__(self, world, script, slot):
        self.world, self.script, self.slot = world, script, slot
        self.looks, self.signals = script.looks, []

    def poll(self):
        if self.signals:
            self.looks = min(self.looks, 1)
        if self.looks > 0:
            self.looks -= 1
            return None
        if self in self.world.alive:
            self.world.alive.remove(self)
        return 128 + self.signals[0] if self.signals else self.script.code

    def send_signal(self, number):
        self.signals.append(number)

    def kill(self):
        self.world.killed += 1
        self.world.alive.remove(self)

    def wait(self):
        return -9


scripts = st.lists(
    st.builds(Script, st.integers(0, 5), st.sampled_from([0, 0, 0, 2, 6, 70]), st.none() | st.integers(0, 1)),
    min_size=1,
    max_size=8,
)


def world_of(found, slots):
    return World({f"c{n}": script for n, script in enumerate(found)}, slots)


@given(scripts, st.integers(1, 4))
def test_every_cell_ends_once_with_its_own_code_and_slots_are_never_exceeded(found, slots):
    world = world_of(found, slots)
    ended = list(world.run())
    # Cells that share a resource met 75 beside each other, and nobody ends with it.
    assert {end.cell.row: end.exit_code for end in ended} == {n: s.code for n, s in world.scripts.items()}
    assert len(ended) == len(found)
    assert world.most <= slots
    assert not world.alive
    assert world.killed == 0


@given(scripts)
def test_one_slot_runs_in_the_order_of_the_file(found):
    world = world_of(found, 1)
    assert [end.cell.row for end in world.run()] == list(world.scripts) == world.started


@given(st.integers(1, 6), st.integers(1, 4))
def test_what_is_busy_even_alone_ends_with_75_after_two_starts_at_most(count, slots):
    world = world_of([Script(code=BUSY)] * count, slots)
    assert [end.exit_code for end in world.run()] == [BUSY] * count
    assert len(world.started) <= (2 if slots > 1 else 1) * count


def test_a_busy_cell_waits_until_another_is_through():
    world = world_of([Script(4, resource=0), Script(1, resource=0), Script(1, resource=0)], 2)
    assert [end.cell.row for end in world.run()] == ["c0", "c1", "c2"]
    # The second and third met the first one's lock once each, then c2 met c1's.
    assert world.started.count("c1") == 2


@given(scripts, st.integers(1, 3), st.integers(0, 12))
def test_a_signal_reaches_all_that_run_and_starts_nothing_more(found, slots, moment):
    world, looks, at_signal = world_of(found, slots), [0], []

    def stop():
        looks[0] += 1
        if looks[0] > moment:
            if not at_signal:
                at_signal.extend(world.started)
            return signal.SIGTERM
        return 0

    ended = list(world.run(stop=stop))
    assert not world.alive
    asked = [end for end in ended if end.asked]
    assert {end.exit_code for end in asked} <= {128 + signal.SIGTERM}
    if looks[0] > moment:
        assert world.started == at_signal
    assert len({end.cell.row for end in ended}) == len(ended)


@given(scripts, st.integers(1, 3))
def test_fail_fast_starts_nothing_after_the_first_failure(found, slots):
    world, known = world_of(found, slots), None
    for end in world.run(fail_fast=True):
        if known is not None:
            assert world.started == known
        if end.exit_code:
            known = list(world.started)
    assert not world.alive


def test_a_second_signal_while_waiting_kills_all():
    world = world_of([Script(1000), Script(1000)], 2)
    calls = []

    class Stubborn(FakeProcess):
        def poll(self):
            if self.signals:
                calls.append(1)
                if len(calls) > 3:
                    raise KeyboardInterrupt

    world.launch = lambda cell, slot: world.alive.append(Stubborn(world, Script(), slot)) or world.alive[-1]
    stopping = iter([0, 0])
    with pytest.raises(KeyboardInterrupt):
        list(world.run(stop=lambda: next(stopping, signal.SIGINT)))
    assert world.killed == 2


def test_closing_the_loop_kills_what_runs():
    world = world_of([Script(0), Script(1000)], 2)
    running = world.run()
    assert next(running).cell.row == "c0"
    running.close()
    assert world.killed == 1
    assert not world.alive


def test_devices_are_given_in_turn():
    world = world_of([Script(3), Script(3), Script(3)], 3)
    devices = []
    launch = world.launch
    world.launch = lambda cell, slot: devices.append(slot.device) or launch(cell, slot)
    list(world.run())
    assert devices == ["device0", "device1", "device0"]
