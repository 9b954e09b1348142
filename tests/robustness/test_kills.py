"""A run that is killed again and again ends with the value of one that was left alone, and no stray file."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

SLOW_TOY = """
import time
from evalkit.generators.toy import GaussianTiles

class Slow(GaussianTiles):
    def generate(self, seeds, *, labels=None, prompts=None):
        time.sleep(0.15)
        return super().generate(seeds)

def make():
    return Slow()
"""
_START_UP = 4.0
_RECORD = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}")
_SHARD = re.compile(r"([0-9]{6})-[0-9a-f]{32}\.safetensors")


class Scoring:
    """One command, run again and again in one folder."""

    def __init__(self, folder: Path, out: str, *, count: int) -> None:
        self.out = folder / out
        (folder / "slow_toy.py").write_text(SLOW_TOY)
        real = folder / "real.npz"
        if not real.is_file():
            images = GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy()
            write_samples(real, images, labels=None)
        self._folder = folder
        self._command = [
            sys.executable, "-m", "evalkit.cli", "score", "--model", "slow_toy:make", "--protocol", "pixels",
            "--metrics", "fd,kd", "--reference", str(real), "--num-samples", str(count),
            "--out", str(self.out),
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def to_the_end(self) -> float:
        """Run it in this process, which has loaded everything; return the seconds of another one."""
        began = time.monotonic()
        assert run(self._command[3:]) == 0
        return time.monotonic() - began + _START_UP

    def records(self) -> list[RunRecord]:
        return [RunRecord.read(path) for path in sorted(self.out.glob("*.json"))]

    def files(self) -> Counter[str]:
        """Every file below the folder, and how often; what is drawn or follows measured seconds is masked."""
        names = (path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file())
        return Counter(_SHARD.sub(r"\1-DIGEST.safetensors", _RECORD.sub("RUN", name)) for name in names)

    def entries(self) -> set[tuple[str, int]]:
        """What a watcher sees: names, and which file each is."""
        found = set()
        for path in self.out.rglob("*"):
            with suppress(FileNotFoundError):
                found.add((path.name, path.lstat().st_ino))
        return found


def kill_somewhere(scoring: Scoring, rng: random.Random, *, longest: float) -> bool:
    """Start the command and kill it at a random moment; half the time just as something is written.

    Returns whether it was killed before it ended.
    """
    with scoring.start() as process:
        deadline = time.monotonic() + rng.uniform(0, longest)
        writes = rng.randrange(1, 8) if rng.random() < 0.5 else 0
        if writes:
            deadline = time.monotonic() + 2 * longest + 5
        seen, changes = scoring.entries(), 0
        while process.poll() is None and time.monotonic() < deadline and changes < (writes or sys.maxsize):
            if writes:
                now = scoring.entries()
                changes += bool(now - seen)
                seen = now
            time.sleep(0.003)
        if writes:
            time.sleep(rng.choice((0.0, 0.0, 0.001, 0.004)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


def kill_often(folder: Path, *, kills: int, count: int, seed: int) -> tuple[int, int]:
    """Kill one run of ``count`` images ``kills`` times, let it end and check it.

    Returns how many runs had their whole record before their kill, and the most that were left as started in
    between.
    """
    alone, killed = Scoring(folder, "alone", count=count), Scoring(folder, "killed", count=count)
    seconds = alone.to_the_end()
    (expected,) = alone.records()
    rng, done, left = random.Random(seed), 0, 0
    while done < kills:
        done += kill_somewhere(killed, rng, longest=seconds)
        left = max(left, sum(record.status == "started" for record in killed.records()))
    # Also those that the kill hit on their way out, after their record.
    ended = sum(record.status == "complete" for record in killed.records())
    killed.to_the_end()
    records = killed.records()
    assert {record.status for record in records} == {"complete"}
    assert all(record.results == expected.results for record in records), "to the last bit"
    assert all(record.protocol.fingerprint == expected.protocol.fingerprint for record in records)
    extra = Counter({"RUN.json": len(records) - 1})
    assert killed.files() - extra == alone.files()
    assert len(records) <= 1 + ended + left
    return ended, left


@pytest.mark.fault("killed-at-random")
def test_a_run_killed_three_times_ends_as_if_it_had_not_been(tmp_path, monkeypatch, observed):
    monkeypatch.syspath_prepend(tmp_path)
    kill_often(tmp_path, kills=3, count=120, seed=20261122)
    observed("after 3 SIGKILLs the record of the uninterrupted run to the last bit, and the same files")


@pytest.mark.exhaustive
@pytest.mark.fault("killed-at-random")
@pytest.mark.parametrize("seed", [1])
def test_a_run_killed_fifty_times_ends_as_if_it_had_not_been(tmp_path, monkeypatch, observed, seed):
    monkeypatch.syspath_prepend(tmp_path)
    ended, left = kill_often(tmp_path, kills=50, count=250, seed=seed)
    observed(
        f"after 50 SIGKILLs the record of the uninterrupted run to the last bit, and the same files; "
        f"{ended} runs had ended before their kill, at most {left} records were left as started in between"
    )
