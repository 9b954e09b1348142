"""``torchrun -m evalkit score``, ``score --shard`` and ``merge`` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

_TOY = "evalkit.generators.toy:make"
_FROM_A_LAUNCHER = ("TORCHELASTIC", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_")
_PROVENANCE = ("run_id", "created_utc", "duration_seconds", "perf", "command")
# Dies as a killed process does, or fails as a device out of memory does, in the third batch of rank 1.
_MORTAL = """
import os, signal
from pathlib import Path
from evalkit.errors import TemporaryError
from evalkit.generators.toy import GaussianTiles

calls = []

class Mortal(GaussianTiles):
    def generate(self, seeds, *, labels=None):
        calls.append(1)
        mark = Path(os.environ["EVALKIT_TEST_MARK"])
        if os.environ.get("RANK") == "1" and len(calls) == 3 and mark.exists():
            if mark.read_text() == "error":
                raise TemporaryError("the memory of rank 1 is full", hint="free some")
            if mark.read_text() == "once":
                mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return GaussianTiles.generate(self, seeds, labels=labels)

def make():
    return Mortal()
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


def _arguments(real: Path, out: Path, *more: str, model: str = _TOY) -> list[str]:
    return [
        "score", "--model", model, "--protocol", "pixels", "--reference", str(real), "--num-samples", "130",
        "--metrics", "fd,kd,is", "--determinism", "strict", "--out", str(out), "--format", "json", *more,
    ]  # fmt: skip


def _judged(text: str) -> dict[str, object]:
    record = {key: value for key, value in json.loads(text).items() if key not in _PROVENANCE}
    # Strict scoring takes one thread; how many a process has is told, and ranks share the cores.
    record["env"] = {key: value for key, value in record["env"].items() if key != "threads"}
    return record


def _whole(real: Path, out: Path, capsys: pytest.CaptureFixture[str], model: str = _TOY) -> dict[str, object]:
    assert run(_arguments(real, out, model=model)) == 0
    return _judged(capsys.readouterr().out)


@pytest.fixture
def mortal(tmp_path, monkeypatch) -> Path:
    """The module is importable, here and in the ranks; returns what tells it to die."""
    (tmp_path / "mortal_tiles.py").write_text(_MORTAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "mark"
    monkeypatch.setenv("EVALKIT_TEST_MARK", str(mark))
    return mark


def _torchrun(ranks: int, arguments: list[str], *, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_FROM_A_LAUNCHER)}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "--max-restarts", str(restarts), "-m", "evalkit", *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=540,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_ranks_write_one_record_though_one_is_killed_and_restarted(real, mortal, tmp_path, capsys):
    expected = _whole(real, tmp_path / "whole", capsys, "mortal_tiles:make")
    mark = mortal
    mark.write_text("once")
    out = tmp_path / "ranks"
    done = _torchrun(2, _arguments(real, out, model="mortal_tiles:make"), restarts=1)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
    assert _judged(done.stdout) == expected
    (record,) = out.glob("*.json")
    assert _judged(record.read_text()) == expected
    assert {path.name for path in out.iterdir()} == {record.name, "state", "progress"}
    assert not list(out.glob("state/*/.part-*"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks(real, tmp_path, capsys, ranks):
    expected = _whole(real, tmp_path / "whole", capsys)
    done = _torchrun(ranks, _arguments(real, tmp_path / "ranks"))
    assert done.returncode == 0, done.stderr
    assert _judged(done.stdout) == expected
    assert done.stderr.count("record:") == 1


@pytest.mark.exhaustive
def test_ranks_with_a_store(real, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    expected = _whole(real, tmp_path / "whole", capsys)
    arguments = _arguments(real, tmp_path)
    arguments[arguments.index("--out") + 1] = f"file://{tmp_path / 'store'}"
    for flags, shards in (([], 17), (["--fresh"], 17)):
        done = _torchrun(2, [*arguments, *flags])
        assert done.returncode == 0, done.stderr
        assert _judged(done.stdout) == expected
        (folder,) = (path for path in (tmp_path / "store" / "state").iterdir() if path.name.endswith("-8"))
        assert len(list(folder.iterdir())) == shards
    assert {path.name for path in (tmp_path / "store").iterdir() if path.is_dir()} == {"state", "progress"}
    assert len(list((tmp_path / "store").glob("*.json"))) == 2


@pytest.mark.exhaustive
def test_several_models_in_one_call(real, tmp_path, capsys):
    (tmp_path / "ranks").mkdir()
    arguments = _arguments(real, tmp_path / "ranks", "--model", "evalkit.generators.toy:GaussianTiles")
    done = _torchrun(2, [*arguments, "--format", "csv"])
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "ranks").glob("*.json"))) == 2
    for model in (_TOY, "evalkit.generators.toy:GaussianTiles"):
        expected = _whole(real, tmp_path / "whole", capsys, model)
        found = [_judged(path.read_text()) for path in (tmp_path / "ranks").glob("*.json")]
        assert expected in found


@pytest.mark.exhaustive
def test_a_rank_that_dies_for_good_loses_nothing_of_the_others(real, mortal, tmp_path, capsys):
    expected = _whole(real, tmp_path / "whole", capsys, "mortal_tiles:make")
    arguments = _arguments(real, tmp_path / "ranks", model="mortal_tiles:make")
    mortal.write_text("always")
    done = _torchrun(2, arguments)
    assert done.returncode != 0
    assert not list((tmp_path / "ranks").glob("*.json"))
    kept = len(list((tmp_path / "ranks").glob("state/*-8/*.safetensors")))
    assert kept > 0
    mortal.unlink()
    again = _torchrun(2, arguments)
    assert again.returncode == 0, again.stderr
    assert _judged(again.stdout) == expected


@pytest.mark.exhaustive
def test_an_error_of_one_rank_lets_the_others_finish(real, mortal, tmp_path):
    mortal.write_text("error")
    done = _torchrun(2, _arguments(real, tmp_path / "ranks", model="mortal_tiles:make"))
    assert done.returncode != 0
    assert "evalkit: rank 1: the memory of rank 1 is full" in done.stderr
    assert "8 of 17 shards are missing" in done.stderr or "7 of 17 shards are missing" in done.stderr
    (folder,) = (path for path in (tmp_path / "ranks" / "state").iterdir() if path.name.endswith("-8"))
    shards = {int(path.name[:6]) for path in folder.glob("*.safetensors")}
    assert shards >= set(range(0, 17, 2))


def test_shards_and_merge(real, tmp_path, capsys):
    expected = _whole(real, tmp_path / "whole", capsys)
    for number in (3, 1, 2):
        out = tmp_path / f"part-{number}"
        assert run(_arguments(real, out, "--shard", f"{number}/3")) == 0
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"part {number}/3 of {_TOY}" in shown.err
        assert not list(out.glob("*.json"))
    folders = [str(tmp_path / f"part-{number}") for number in (1, 2, 3)]
    assert run(["merge", *folders[:2], "--out", str(tmp_path / "merged")]) == 5
    assert "part 3/3 owes 2, 5, 8, 11, 14" in capsys.readouterr().err
    assert run(["merge", *folders, "--out", str(tmp_path / "merged"), "--format", "json"]) == 0
    merged = capsys.readouterr().out
    assert _judged(merged) == expected
    (record,) = (tmp_path / "merged").glob("*.json")
    assert json.loads(merged) == json.loads(record.read_text())
    assert run(["merge", *folders, "--out", str(tmp_path / "merged"), "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert shown.out == merged
    assert f"is merged already, as {record.stem}: left alone" in shown.err
    assert "record:" not in shown.err
    assert run(["merge", *folders, "--out", str(tmp_path / "merged"), "--format", "json", "--again"]) == 0
    assert "record:" in capsys.readouterr().err
    assert len(list((tmp_path / "merged").glob("*.json"))) == 2


@pytest.mark.parametrize("value", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "1/9999999"])
def test_a_share_that_does_not_exist_is_refused(real, tmp_path, capsys, value):
    assert run(_arguments(real, tmp_path, f"--shard={value}")) == 2
    assert "--shard" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "reconstruct", "--images", "x"], "--shard does not go with --task reconstruct"),
        (["--log", "jsonl:x"], "--log TRACKER does not go with --shard"),
        (
            ["--until-decided", "--baseline", "x", "--rule", "kd rel=5%"],
            "--shard does not go with --until-decided",
        ),
    ],
)
def test_what_only_a_whole_run_does_is_refused(real, tmp_path, capsys, flags, message):
    assert run(_arguments(real, tmp_path, "--shard", "1/2", *flags)) == 2
    assert message in capsys.readouterr().err


def test_ranks_do_not_take_shares(real, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert run(_arguments(real, tmp_path, "--shard", "1/2")) == 2
    assert "--shard does not go with torchrun" in capsys.readouterr().err
    assert run(_arguments(real, tmp_path, "--out", "memory://bucket/runs")) == 2
    err = capsys.readouterr().err
    assert "torchrun does not go with --out memory://…: each process has a memory of its own" in err
    assert "hint: a folder, or the URL of a store that all ranks reach" in err


def test_merging_nothing(tmp_path, capsys):
    assert run(["merge", str(tmp_path)]) == 5
    assert "holds no parts of a run" in capsys.readouterr().err
    assert run(["merge", str(tmp_path), str(tmp_path)]) == 2
    assert "several folders need --out" in capsys.readouterr().err


def test_a_manifest_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.json").write_text("{}")
    assert run(["merge", str(tmp_path)]) == 6
    assert "this says nothing about a part" in capsys.readouterr().err
