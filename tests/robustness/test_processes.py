"""Signals, disks, memory and locks: what a run leaves, and how the same command goes on."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from tests.robustness.conftest import TOY

GENERATE = GaussianTiles.generate


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def statuses(folder: Path) -> list[str]:
    return sorted(RunRecord.read(path).status for path in folder.glob("*.json"))


def results(folder: Path) -> list[object]:
    records = [RunRecord.read(path) for path in folder.glob("*.json")]
    return [record.results for record in records if record.status == "complete"]


@pytest.fixture
def during(monkeypatch) -> Callable[[int, Callable[[], object]], list[int]]:
    """``during(k, act)``: act when the toy model draws for the k-th time; returns what counts its draws."""

    def plan(number: int, act: Callable[[], object]) -> list[int]:
        calls: list[int] = []

        def generate(self: GaussianTiles, *arguments: object, **flags: object) -> object:
            calls.append(1)
            if len(calls) == number:
                act()
            return GENERATE(self, *arguments, **flags)

        monkeypatch.setattr(GaussianTiles, "generate", generate)
        return calls

    return plan


@pytest.mark.fault("signal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_whole_shards_and_the_value(tmp_path, score, during, observed, number, code):
    assert score("--out", tmp_path / "alone").code == 0
    during(6, lambda: os.kill(os.getpid(), number))
    stopped = score("--out", tmp_path / "out")
    assert stopped.code == code
    assert statuses(tmp_path / "out") == ["partial"]
    kept = len(list((tmp_path / "out" / "state").rglob("*.safetensors")))
    assert kept > 0
    assert not list((tmp_path / "out").rglob("*.tmp"))
    again = score("--out", tmp_path / "out")
    assert again.code == 0
    assert "continued" in again.err
    assert results(tmp_path / "out") == results(tmp_path / "alone")
    observed(f"{stopped.told} - the record says partial, the same command ends with the identical value")


@pytest.mark.fault("disk-full")
def test_too_little_room_is_told_before_anything_is_sampled(tmp_path, score, during, monkeypatch, observed):
    assert score().code == 0
    before = results(tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    calls = during(0, lambda: None)
    ended = score("--seed", "1")
    assert ended.code == 75
    assert len(calls) <= 2, "the warm-up"
    assert results(tmp_path / "out") == before
    observed(_short(ended.told, tmp_path))


@pytest.mark.fault("disk-full")
def test_a_disk_that_fills_up_keeps_what_was_there(tmp_path, score, monkeypatch, observed):
    assert score().code == 0
    before = contents(tmp_path / "out")
    writes: list[int] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        writes.append(1)
        if len(writes) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ended = score("--seed", "1")
    assert ended.code == 75
    assert "No space left on device" in ended.err
    after = contents(tmp_path / "out")
    assert {
        path: after[path] for path in before if "/progress/" not in path and ".holder" not in path
    }.items() <= (before.items())
    assert set(before) <= set(after)
    assert not [path for path in after if path.endswith(".tmp")]
    monkeypatch.undo()
    assert score("--seed", "1").code == 0
    assert score("--seed", "1", "--out", tmp_path / "alone").code == 0
    assert results(tmp_path / "alone")[0] in results(tmp_path / "out")
    observed(_short(ended.told, tmp_path))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.fault("disk-full")
def test_a_disk_that_is_full_is_told_before_anything_is_sampled(small_disk, score, during, observed):
    out = small_disk / "out"
    assert score("--out", out).code == 0
    before = contents(out)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2**20))
    calls = during(0, lambda: None)
    ended = score("--out", out, "--seed", "1")
    assert ended.code == 75
    assert "No space left on device" in ended.err
    assert not calls
    assert contents(out) == before
    (small_disk / "filler").unlink()
    assert score("--out", out, "--seed", "1").code == 0
    observed(_short(ended.told, small_disk.parent))


@pytest.mark.fault("read-only")
def test_a_read_only_disk_is_told_before_anything_is_sampled(small_disk, score, during, observed):
    out = small_disk / "out"
    assert score("--out", out).code == 0
    before = contents(out)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    calls = during(0, lambda: None)
    ended = score("--out", out, "--seed", "1")
    assert ended.code == 75
    assert not calls
    assert contents(out) == before
    observed(_short(ended.told, small_disk.parent))


@pytest.mark.fault("read-only")
def test_an_output_folder_that_cannot_be_made_is_told_first(tmp_path, score, during, observed):
    (tmp_path / "file").write_text("")
    calls = during(0, lambda: None)
    ended = score("--out", tmp_path / "file" / "out")
    assert ended.code == 75
    assert not calls
    observed(_short(ended.told, tmp_path))


@pytest.mark.fault("two-runs")
def test_a_second_run_names_the_first_and_a_dead_one_holds_nothing(
    tmp_path, monkeypatch, evalkit, real, observed
):
    (tmp_path / "waiting_toy.py").write_text(
        "import pathlib, time\nfrom evalkit.generators.toy import GaussianTiles\n"
        "drawn = []\n"
        "class Waiting(GaussianTiles):\n"
        "    def generate(self, seeds, **labels):\n"
        "        drawn.append(1)\n"
        f"        flag = pathlib.Path({str(tmp_path / 'wait')!r})\n"
        "        while len(drawn) > 4 and flag.exists():\n            time.sleep(0.01)\n"
        "        return GaussianTiles.generate(self, seeds)\n"
        "def make():\n    return Waiting()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [
        "score", "--protocol", "pixels", "--metrics", "fd", "--reference", str(real), "--num-samples", "64",
        "--out", str(tmp_path / "out"), "--model", "waiting_toy:make",
    ]  # fmt: skip
    (tmp_path / "wait").touch()
    first = subprocess.Popen(
        [sys.executable, "-m", "evalkit.cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_holder(tmp_path / "out", first)
        second = evalkit(*arguments)
    finally:
        first.kill()
        first.wait()
    assert second.code == 75
    assert f"process {first.pid}" in second.err
    (tmp_path / "wait").unlink()
    assert evalkit(*arguments).code == 0
    told = second.told.replace(str(first.pid), "NUMBER")
    observed(f"{_short(told, tmp_path)} - after a SIGKILL of the holder the same command runs")


def _wait_for_holder(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it has begun to draw: it measures a reference in a folder of its own before that."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.name.endswith("-8") and list(path.glob("0*")) for path in out.glob("state/*")):
            return
        time.sleep(0.01)
    raise AssertionError("the first run never began")


@pytest.mark.fault("worker-dies")
def test_a_dead_worker_of_three_is_missed_by_name_and_replaced(tmp_path, score, evalkit, real, observed):
    """Two of three parts are computed; the third is killed in the middle and begins again."""
    out = tmp_path / "out"
    parts = ["--shard", "1/3"], ["--shard", "2/3"], ["--shard", "3/3"]
    assert score("--out", tmp_path / "alone").code == 0
    dying = (
        "import os, sys\nfrom evalkit.generators.toy import GaussianTiles\n"
        "whole, drawn = GaussianTiles.generate, []\n"
        "def generate(self, seeds, **labels):\n"
        "    drawn.append(1)\n"
        f"    done = len(list(__import__('pathlib').Path({str(out)!r}).glob('state/*-8/*.safetensors')))\n"
        "    if done == 7:\n        os.kill(os.getpid(), 9)\n"
        "    return whole(self, seeds, **labels)\n"
        "GaussianTiles.generate = generate\n"
        "from evalkit.cli.main import main\nmain(sys.argv[1:])\n"
    )
    for part in parts[:2]:
        assert score("--out", out, *part).code == 0
    fixed = ["score", "--protocol", "pixels", "--metrics", "fd", "--reference", str(real), "--model", TOY]
    command = [sys.executable, "-c", dying, *fixed, "--num-samples", "64", "--out", str(out), *parts[2]]
    died = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    missed = evalkit("merge", out)
    assert missed.code == 5
    assert score("--out", out, *parts[2]).code == 0
    assert evalkit("merge", out).code == 0
    assert results(out) == results(tmp_path / "alone")
    told = missed.told.partition("\n")[0]
    observed(f"{_short(told, tmp_path)} - when the part ran again: the record of one process")


@pytest.mark.fault("state-damaged")
def test_a_flipped_byte_is_told_and_mended(tmp_path, score, observed):
    assert score().code == 0
    path = min((tmp_path / "out" / "state").rglob("000001-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)
    ended = score()
    assert ended.code == 0
    assert "was damaged" in ended.err
    one, other = results(tmp_path / "out")
    assert one == other
    told = next(line for line in ended.err.splitlines() if "damaged" in line)
    observed(f"exit 0: {told.removeprefix('evalkit: ')}")


@pytest.mark.fault("out-of-memory")
def test_a_batch_that_does_not_fit_is_halved(tmp_path, score, monkeypatch, observed):
    assert score("--out", tmp_path / "alone").code == 0

    def generate(self: GaussianTiles, seeds, **flags: object) -> object:
        if len(seeds) > 2:
            raise torch.OutOfMemoryError
        return GENERATE(self, seeds, **flags)

    monkeypatch.setattr(GaussianTiles, "generate", generate)
    ended = score()
    assert ended.code == 0, ended.err
    assert results(tmp_path / "out") == results(tmp_path / "alone")
    (record,) = [RunRecord.read(path) for path in (tmp_path / "out").glob("*.json")]
    assert record.performance[0].batch_size <= 2
    observed(f"exit 0: batches of 8 became batches of {record.performance[0].batch_size}; the same result")


def _short(told: str, folder: Path) -> str:
    """Without the places of this run."""
    text = told.replace(str(folder) + "/", "")
    text = re.sub(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}", "RUN", text)
    text = re.sub(r"[0-9a-f]{16,}(-[0-9]+)?", "KEY", text)
    return re.sub(r" on [\w.-]+\)", " on HOST)", text)
