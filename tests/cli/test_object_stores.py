"""``--out`` that is a URL: the same scores, resumed from anywhere, by one run at a time, without secrets."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.errors import TemporaryError
from evalkit.generators.toy import GaussianTiles
from evalkit.object_stores import ObjectStore
from evalkit.record import RunRecord
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(64))).numpy(), labels=None)
    return path


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path / 'store' / 'runs'}"
        return
    root = f"memory://{uuid.uuid4().hex}/runs"
    yield root
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def score(real, capsys, monkeypatch):
    """Score the toy model with a machine's cache; return exit code, record (or text) and stderr."""

    def call(cache: Path, out: str | Path, *arguments: str):
        monkeypatch.setenv("EVALKIT_CACHE", str(cache))
        code = run([
            "score", "--model", "evalkit.generators.toy:make", "--protocol", "pixels",
            "--reference", str(real), "--metrics", "kd", "--num-samples", "40", "--determinism", "strict",
            "--device", "cpu", "--format", "json", "--out", str(out), *arguments,
        ])  # fmt: skip
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def results(text: str):
    record = json.loads(text)
    return record["results"], record["protocol"]


def shards(store: ObjectStore) -> dict[str, list[str]]:
    """Numbers of the shards in the store, by folder."""
    return {
        key: sorted(name.partition("-")[0] for name in store.names(f"state/{key}"))
        for key in store.folders("state")
    }


def test_a_run_in_a_store_is_the_run_in_a_folder(score, url, tmp_path):
    code, plain, _ = score(tmp_path / "a", tmp_path / "plain")
    assert code == 0
    code, out, err = score(tmp_path / "a", url)
    assert code == 0, err
    assert results(out) == results(plain)
    store = ObjectStore.of_url(url)
    (name,) = store.names()
    assert f"evalkit: record: {url}/{name}" in err
    record = RunRecord.from_json(json.loads(store.read(name)))
    assert record.status == "complete"
    assert sorted(map(len, shards(store).values())) == [5, 8]
    # Locks and working files stay on the machine.
    assert store.folders() == {"state", "progress"}
    assert not [
        name for key in store.folders("state") for name in store.names(f"state/{key}") if "lease" in name
    ]


def test_another_machine_continues_and_only_what_is_damaged_is_computed_again(score, url, tmp_path):
    code, first, _ = score(tmp_path / "a", url)
    assert code == 0
    store = ObjectStore.of_url(url)
    key = next(key for key, numbers in shards(store).items() if len(numbers) == 5)
    damaged = next(name for name in store.names(f"state/{key}") if name.startswith("000002"))
    content = store.read(f"state/{key}/{damaged}")
    store.write(f"state/{key}/{damaged}", content[:-1] + b"\x00")
    code, out, err = score(tmp_path / "b", url)
    assert code == 0
    assert results(out) == results(first)
    assert f"state file {url}/state/{key}/{damaged} was damaged and is computed again" in err
    assert "continued: 32 of 40 images were there already" in err
    assert shards(store)[key] == [f"{number:06d}" for number in range(5)]
    assert len(store.names()) == 2


def test_parts_and_their_merge_go_through_a_store(score, url, tmp_path, capsys):
    _, plain, _ = score(tmp_path / "a", tmp_path / "plain")
    for number in (1, 2):
        code, _, err = score(tmp_path / f"machine-{number}", url, "--shard", f"{number}/2")
        assert code == 0, err
    code = run(["merge", url, "--format", "json", "--device", "cpu"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert results(captured.out) == results(plain)
    assert len(ObjectStore.of_url(url).names()) == 1
    code = run(["merge", url, "--format", "json", "--device", "cpu"])
    again = capsys.readouterr()
    assert code == 0, again.err
    assert again.out == captured.out
    assert ": left alone" in again.err
    assert len(ObjectStore.of_url(url).names()) == 1


def test_a_fresh_run_of_one_machine_is_that_of_all(score, url, tmp_path):
    """The working copy of the first machine has the old shards still."""
    store = ObjectStore.of_url(url)

    def names() -> dict[str, frozenset[str]]:
        return {
            key: store.names(f"state/{key}") for key, numbers in shards(store).items() if len(numbers) == 5
        }

    assert score(tmp_path / "a", url)[0] == 0
    ((key, old),) = names().items()
    assert score(tmp_path / "b", url, "--fresh")[0] == 0
    new = names()[key]
    assert new.isdisjoint(old)
    code, _, err = score(tmp_path / "a", url)
    assert code == 0
    assert "continued: 40 of 40 images were there already" in err
    assert names() == {key: new}
    assert {path.name for path in (tmp_path / "a").glob(f"runs/*/state/{key}/*.safetensors")} == new


def test_a_second_run_is_refused_while_the_first_lives(score, url, tmp_path):
    assert score(tmp_path / "a", url)[0] == 0
    store = ObjectStore.of_url(url)
    key = next(key for key, numbers in shards(store).items() if len(numbers) == 5)
    lease = {"holder": "process 7 on elsewhere", "token": "another", "time": time.time()}
    store.write(f"state/{key}/lease-whole.json", json.dumps(lease).encode())
    code, _, err = score(tmp_path / "b", url)
    assert code == 75
    assert f"another evalkit run works on {url} (process 7 on elsewhere)" in err
    assert "hint: wait for it" in err


def test_a_store_that_takes_nothing_ends_with_75_and_loses_nothing(score, url, tmp_path, monkeypatch):
    monkeypatch.setattr("evalkit.object_stores.remote_folder._TRIES", (0.0,))
    original = ObjectStore.write

    def refuse(store, name, content):
        if name.endswith(".safetensors") or name.startswith("2"):
            raise TemporaryError(f"cannot write {store.url}/{name}: quota exceeded")
        original(store, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", refuse)
        code, out, err = score(tmp_path / "a", url)
    assert code == 75
    assert json.loads(out)["status"] == "complete"  # the scores were printed all the same
    assert "quota exceeded; what it lacks is kept in" in err
    assert "warning: cannot write" in err
    code, again, err = score(tmp_path / "a", url)
    assert code == 0
    assert results(again) == results(out)
    assert "continued: 40 of 40 images were there already" in err
    store = ObjectStore.of_url(url)
    assert len(store.names()) == 2
    assert sorted(map(len, shards(store).values())) == [5, 8]


def test_credentials_of_a_url_are_nowhere(score, tmp_path, monkeypatch):
    monkeypatch.setenv("STORE_TOKEN", "t0ken-of-the-store")
    name = uuid.uuid4().hex
    code, out, err = score(tmp_path / "a", f"memory://me:hunter2secret@{name}/t0ken-of-the-store/runs")
    assert code == 0, err
    everything = [out, err]
    memory = fsspec.filesystem("memory")
    root = next(path["name"] for path in memory.ls("/") if name in path["name"])
    everything += [memory.cat_file(path).decode("latin-1") for path in memory.find(root)]
    everything += [path.read_text("latin-1") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    everything += [str(path) for path in (tmp_path / "a").rglob("*")]
    memory.rm(root, recursive=True)
    assert len(everything) > 20
    for text in everything:
        assert "hunter2secret" not in text
        assert "t0ken-of-the-store" not in text


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--out", "s3://bucket/runs"), "s3:// needs a package that is not installed", "pip install s3fs"),
        (("--out", "zz://runs"), "Protocol not known: zz", "s3://"),
        (("--out", "memory://a/*"), "a folder is wanted", None),
        (("--executor", "dask"), "unknown executor 'dask'", "ray:auto"),
        (("--executor", "ray", "--shard", "1/2"), "--shard does not go with --executor ray", "leave one"),
        (
            ("--executor", "ray", "--task", "reconstruct"),
            "does not go with --task reconstruct",
            "leave it out",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_2(score, tmp_path, monkeypatch, arguments, message, hint):
    def absent(url: str):
        if url.startswith("s3"):
            raise ImportError("Install s3fs")
        return original(url)

    original = fsspec.core.url_to_fs
    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    code, _, err = score(tmp_path / "a", tmp_path / "plain", *arguments)
    assert code == 2
    assert message in err
    assert hint is None or hint in err


def test_a_suite_keeps_its_folder_here(real, capsys):
    assert run(["suite", "cifar10-jpeg", "--out", str(real)]) == 2
    assert f"{real} is a file" in capsys.readouterr().err
    assert run(["suite", "cifar10-jpeg", "--out", "memory://suites"]) == 2
    assert "the folder of a suite is one of this machine" in capsys.readouterr().err
    assert run(["suite", "cifar10-jpeg", "--executor", "ray", "--device", "cuda:0,cuda:1"]) == 2
    assert "--executor ray gives out devices itself" in capsys.readouterr().err
