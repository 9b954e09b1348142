"""A real Ray cluster of two nodes on this machine, one of which is killed in the middle of a run."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.errors import InvalidInputError, TemporaryError
from evalkit.evaluate import run
from evalkit.executors import RayOptions, parse_executor, shipping
from evalkit.executors.filling import Filling
from evalkit.executors.ray_engine import ray_engine
from evalkit.executors.shipping import chunks_of, sent_path
from evalkit.executors.worker import places_of
from evalkit.record import RunRecord
from evalkit.shards import ShardLayout
from evalkit.suites.elsewhere import CellTask, Elsewhere
from evalkit.suites.facts import Cell
from evalkit.suites.processes import Launcher
from evalkit.suites.scheduler import Slot
from tests.executors.test_filling import Told, measured
from tests.executors.test_filling import request as asked

pytestmark = [
    pytest.mark.exhaustive,
    # Of Ray's own, under Python 3.11 and later.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COUNT = 512


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason="pip install 'evalkit[ray]'")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = made.add_node(**node)
    yield made, second
    made.shutdown()


def fail(message: str) -> None:
    raise InvalidInputError(message, hint="look closer")


def die() -> None:
    os._exit(1)


def score(where: str, argv: list[str]) -> int:
    """Run a command, and tell where it writes."""
    Path(where).write_text(argv[argv.index("--out") + 1])
    return main.run(argv)


@pytest.fixture
def sent_whole():
    """Functions of this module reach workers, which cannot import tests."""
    ray = pytest.importorskip("ray", reason="pip install 'evalkit[ray]'")
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)
    yield
    ray.cloudpickle.unregister_pickle_by_value(here)


@pytest.mark.usefixtures("sent_whole")
def test_files_errors_and_deaths_cross_a_real_cluster(tmp_path, monkeypatch):
    """What `test_ray_engine.py` and `test_shipping.py` show with stand-ins, once with Ray itself."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shipping, "CHUNK", 1 << 20)
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(3 << 20))
    sent = dataclasses.replace(sent_path(path), path="/nowhere/weights.bin")
    with ray_engine(parse_executor("ray?num_cpus=1&max_retries=0"), device="cpu") as engine:
        contents = {sent.files[0].sha256: [engine.put(piece) for piece in chunks_of(path)]}
        assert len(contents[sent.files[0].sha256]) == 3
        places = engine.result(engine.submit(places_of, (sent,), contents, engine.fetch))
        copy = places["/nowhere/weights.bin"]
        assert copy.is_relative_to(tmp_path / "cache")
        assert copy.read_bytes() == path.read_bytes()
        with pytest.raises(InvalidInputError, match="not finite") as caught:
            engine.result(engine.submit(fail, "not finite"))
        assert caught.value.hint == "look closer"
        with pytest.raises(TemporaryError, match="workers died 1 times on one task"):
            engine.result(engine.submit(die))


@pytest.mark.usefixtures("sent_whole")
def test_an_interrupted_cell_comes_back_with_its_shards_and_goes_on_from_them(tmp_path, monkeypatch):
    """What `test_elsewhere.py` shows with a stand-in, once with Ray's own way to interrupt a task."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    launcher, where = Launcher(folder=tmp_path / "out"), tmp_path / "where"
    arguments = ("--model", "vae", "--protocol", "embedded", "--metrics", "kd", "--num-samples", str(COUNT))
    cell = Cell(row="vae", protocol="embedded", seed=0, arguments=arguments, key="0" * 16, place="here")

    def ended(task: CellTask) -> int:
        while (code := task.poll()) is None:
            time.sleep(0.05)
        return code

    with ray_engine(parse_executor("ray?num_cpus=1"), device="cpu", once=True) as engine:
        elsewhere = Elsewhere(engine, launcher, functools.partial(score, str(where)))
        task = elsewhere(cell, Slot(0, "cpu"))
        while not (where.exists() and list(Path(where.read_text()).glob("state/*/*.safetensors"))):
            assert task.poll() is None
            time.sleep(0.05)
        task.send_signal(signal.SIGTERM)
        assert ended(task) == 130
        kept = set((tmp_path / "out" / "records").glob("state/*/*.safetensors"))
        assert 0 < len(kept) < ShardLayout(COUNT).shards
        again = elsewhere(cell, Slot(0, "cpu"))
        assert {tmp_path / "out" / "records" / name for name in again.order.shards} == kept
        assert ended(again) == 0
    run_id = launcher.run_id(cell)
    assert run_id is not None
    record = RunRecord.read(tmp_path / "out" / "records" / f"{run_id}.json")
    assert record.status == "complete"
    assert set((tmp_path / "out" / "records").glob("state/*/*.safetensors")) > kept


def test_a_killed_node_changes_no_bit_of_the_record(cluster, tmp_path, monkeypatch):
    made, second = cluster
    changes = {
        "model": "vae",
        "protocol": "embedded",
        "num_samples": COUNT,
        "metrics": ("kd", "is"),
    }
    plain = run(asked(None, tmp_path / "plain", **changes), console=Told())
    came: list[int] = []
    killer = threading.Thread(target=made.remove_node, args=(second,), kwargs={"allow_graceful": False})

    with ray_engine(RayOptions(address=made.address), device="cpu") as engine:
        assert engine.slots() == 2
        result = engine.result

        def count(call):
            got = result(call)
            came.append(1)
            if len(came) == 3:
                killer.start()
            return got

        monkeypatch.setattr(type(engine), "result", lambda _engine, call: count(call))
        elsewhere = run(
            asked(None, tmp_path / "elsewhere", **changes), console=Told(), fill=Filling(engine, "cpu")
        )
        killer.join()
        assert engine.slots() == 1
    assert len(came) == ShardLayout(COUNT).shards
    assert measured(elsewhere) == measured(plain)
    assert dataclasses.asdict(elsewhere.protocol) == dataclasses.asdict(plain.protocol)
