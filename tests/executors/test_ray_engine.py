"""Ray's answers in words of evalkit, from a package that acts as Ray does; see test_ray_cluster.py too."""

from __future__ import annotations

import signal
import socket
import sys
from collections import deque
from types import SimpleNamespace

import pytest

from evalkit.errors import EvalkitError, InvalidInputError, TemporaryError, UsageError
from evalkit.executors import RayOptions, parse_executor
from evalkit.executors.engine import in_turn
from evalkit.executors.ray_engine import RayEngine, ray_engine
from tests.executors.conftest import Here


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(f"remote traceback\nValueError: {cause}")
        self.cause = cause


class Ray:
    """As much of the package as is used; every call ends at once with ``outcome``."""

    def __init__(self, nodes: list[dict[str, float]], outcome: object = None) -> None:
        self.outcome, self.started, self.stopped, self.asked = outcome, [], 0, []
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self._nodes = [{"Alive": True, "Resources": resources} for resources in nodes]
        self._nodes.append({"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}})

    def is_initialized(self) -> bool:
        return False

    def init(self, **options) -> None:
        self.started.append(options)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ray does
        if isinstance(self.outcome, ConnectionError):
            raise self.outcome

    def shutdown(self) -> None:
        self.stopped += 1

    def nodes(self):
        return self._nodes

    def cluster_resources(self):
        return {"GPU": sum(node["Resources"].get("GPU", 0.0) for node in self._nodes if node["Alive"])}

    def remote(self, **options):
        self.asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function.__name__, *arguments))

    def get(self, _call):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def as_ray(monkeypatch):
    def use(ray: Ray) -> Ray:
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return use


def engine_of(outcome: object) -> RayEngine:
    return RayEngine(Ray([{"CPU": 1.0}], outcome), RayOptions(), 0.0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs a package that is not installed") as caught:
        ray_engine(RayOptions()).__enter__()
    assert caught.value.hint == "pip install 'evalkit[ray]'"


def test_a_cluster_of_this_machine_is_started_and_ended_and_signals_stay_ours(as_ray):
    ray = as_ray(Ray([{"CPU": 2.0}]))
    before = signal.getsignal(signal.SIGTERM)
    with ray_engine(RayOptions()) as engine:
        assert ray.started[0]["address"] == "local"
        assert signal.getsignal(signal.SIGTERM) is before
        assert (engine.slots(), engine.device) == (2, "cpu")
    assert ray.stopped == 1


@pytest.mark.parametrize(
    ("executor", "device", "nodes", "gpus", "slots"),
    [
        ("ray:auto", "auto", [{"CPU": 8.0}, {"CPU": 4.0}], 0.0, 12),
        ("ray:auto", "auto", [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], 1.0, 2),
        ("ray:auto", "cpu", [{"CPU": 8.0, "GPU": 2.0}], 0.0, 8),
        ("ray:auto?num_gpus=0", "cpu", [{"CPU": 8.0, "GPU": 2.0}], 0.0, 8),
        ("ray:auto", "cuda", [{"CPU": 8.0, "GPU": 2.0}], 1.0, 2),
        ("ray:auto?num_gpus=0.5", "cuda:0", [{"CPU": 8.0, "GPU": 2.0}], 0.5, 4),
        ("ray:auto?num_gpus=0.5&num_cpus=2", "auto", [{"CPU": 8.0, "GPU": 2.0}], 0.5, 4),
        ("ray:auto?num_gpus=0", "auto", [{"CPU": 8.0, "GPU": 2.0}], 0.0, 8),
        ("ray:auto?fast=1", "auto", [{"CPU": 8.0, "fast": 3.0}, {"CPU": 8.0}], 0.0, 3),
    ],
)
def test_what_a_task_gets_and_how_many_there_is_room_for(as_ray, executor, device, nodes, gpus, slots):
    ray = as_ray(Ray(nodes))
    with ray_engine(parse_executor(executor), device=device) as engine:
        assert (engine.num_gpus, engine.slots()) == (gpus, slots)
        assert engine.device == ("cuda" if gpus else "cpu")
        assert engine.submit(len, "abc") == ("len", "abc")
        engine.submit(len, "abcd")
    assert len(ray.asked) == 1  # a function is sent to the cluster once
    assert ray.asked[0]["num_gpus"] == gpus
    assert ray.asked[0]["max_retries"] == 3
    assert ray.asked[0]["max_calls"] == 0


@pytest.mark.parametrize(("device", "gpus"), [("cpu", "1"), ("cpu", "0.5"), ("cuda", "0"), ("mps", "1")])
def test_a_device_that_contradicts_num_gpus_is_refused_before_anything_is_reserved(as_ray, device, gpus):
    ray = as_ray(Ray([{"CPU": 8.0, "GPU": 2.0}]))
    message = rf"--device {device} does not go with num_gpus={gpus} of --executor"
    with pytest.raises(UsageError, match=message) as caught:
        ray_engine(parse_executor(f"ray:auto?num_gpus={gpus}"), device=device).__enter__()
    assert caught.value.exit_code == 2
    assert "leave one of them out" in caught.value.hint
    assert (ray.started, ray.asked) == ([], [])


def test_a_machine_without_room_is_refused_and_a_cluster_is_waited_for(as_ray):
    as_ray(Ray([{"CPU": 2.0}]))
    with pytest.raises(UsageError, match="no room for a task of num_cpus=300"):
        ray_engine(RayOptions(num_cpus=300)).__enter__()
    told: list[str] = []
    with ray_engine(RayOptions(address="auto", num_cpus=1, num_gpus=1), notify=told.append):
        (text,) = told
        assert text.startswith(
            "warning: no node of the cluster has room for a task of num_cpus=1, num_gpus=1"
        )


def test_an_address_where_nobody_listens_is_told_at_once(as_ray):
    ray = as_ray(Ray([]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TemporaryError, match=f"no Ray cluster at 127.0.0.1:{port}: Connection refused"):
        ray_engine(RayOptions(address=f"127.0.0.1:{port}")).__enter__()
    assert ray.started == []


def test_a_cluster_that_is_not_there_is_told_without_credentials(as_ray):
    as_ray(Ray([], ConnectionError("trace\nCould not find any running Ray instance.")))
    with pytest.raises(TemporaryError, match="no Ray cluster at auto: Could not find") as caught:
        ray_engine(RayOptions(address="auto")).__enter__()
    assert caught.value.exit_code == 75


def test_a_result_comes_back_and_an_error_of_ours_stays_what_it_was():
    assert engine_of(42).result("call") == 42
    with pytest.raises(InvalidInputError, match="not finite") as caught:
        engine_of(RayTaskError(InvalidInputError("not finite", hint="look"))).result("call")
    assert caught.value.hint == "look"


def test_a_bug_in_a_worker_is_internal_and_death_is_temporary():
    with pytest.raises(EvalkitError, match="a worker failed: ValueError: odd") as caught:
        engine_of(RayTaskError(ValueError("odd"))).result("call")
    assert caught.value.exit_code == 70
    with pytest.raises(TemporaryError, match="workers died 4 times on one task: node died") as caught:
        engine_of(RayError("long\nnode died")).result("call")
    assert caught.value.exit_code == 75


def test_what_is_added_meanwhile_is_done_too():
    engine, waiting, seen = Here(), deque([1, 2]), []
    for item, result in in_turn(engine, waiting, lambda item: engine.submit(abs, -item), stop=lambda: 0):
        seen.append((item, result))
        if item == 2:
            waiting.append(3)
    assert sorted(seen) == [(1, 1), (2, 2), (3, 3)]


def test_an_error_cancels_the_others():
    engine = Here()
    with pytest.raises(ZeroDivisionError):
        list(in_turn(engine, deque([0, 1, 2]), lambda item: engine.submit(divmod, 1, 0), stop=lambda: 0))
    assert len(engine.cancelled) == 2
