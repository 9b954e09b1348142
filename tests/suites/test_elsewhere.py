"""Cells as tasks of a cluster leave what cells of this machine leave: records, manifest, exit codes, logs."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli import main
from evalkit.cli.suite import score_flags
from evalkit.errors import TemporaryError, UsageError
from evalkit.executors import cells as remote
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.suites import Orders, cells_of, read_suite, run_suite
from evalkit.suites.elsewhere import Elsewhere
from evalkit.suites.manifest import read_manifest
from tests.executors.conftest import Here

SUITE = """
name = "toy"
protocols = ["pixels"]
seeds = [0, 1]
[defaults]
num_samples = 40
reference = "real.npz"
metrics = ["kd"]
[[model]]
name = "evalkit.generators.toy:make"
as = "tiles"
[[model]]
images = "samples.npz"
seeds = [0]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    for name, base in (("real", 7), ("samples", 3)):
        images = GaussianTiles().generate(image_seeds(base, np.arange(100))).numpy()
        write_samples(folder / f"{name}.npz", images, labels=None)
    (folder / "toy.toml").write_text(SUITE)
    return cells_of(read_suite(folder / "toy.toml", score_flags()))


def play(suite, folder: Path, engine: Here | None, **more):
    orders = Orders(folder=folder, devices=("cpu",), jobs=2)
    how = {} if engine is None else {"launch_with": lambda launcher: Elsewhere(engine, launcher, main.run)}
    told = []
    return run_suite(suite, orders, suite="toy", tell=told.append, **how, **more), told


def test_cells_know_their_files(suite):
    assert [[Path(file).name for file in cell.files] for cell in suite] == [
        ["real.npz"],
        ["real.npz"],
        ["samples.npz", "real.npz"],
    ]


def test_records_manifest_and_tables_are_those_of_this_machine(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    engine = Here()
    outcome, told = play(suite, tmp_path / "out", engine)
    assert outcome.exit_code == 0
    assert set(outcome.records) == {cell.key for cell in suite}
    manifest = read_manifest(tmp_path / "out", suite="toy")
    assert {state.status for state in manifest.cells.values()} == {"done"}
    record = outcome.records[suite[0].key]
    assert record.command[:3] == ("evalkit", "score", "--model")
    assert str(tmp_path / "out" / "records") in record.command
    assert not any("evalkit-worker" in word for word in record.command)
    for finished in told:
        assert "evalkit-worker" not in finished.log.read_text()
    # Another call runs nothing; one on this machine finds the features that came back.
    again, _ = play(suite, tmp_path / "out", engine)
    assert again.records == outcome.records
    assert len(engine.asked) == len(suite)
    assert list((tmp_path / "out" / "records" / "state").glob("*/*.safetensors"))


def broken(argv: list[str]) -> int:
    print("evalkit: it went wrong", file=sys.stderr)
    return 6 if "tiles" in argv else 70


def test_a_cell_that_fails_has_its_code_and_its_last_words(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(main, "run", broken)
    outcome, told = play(suite, tmp_path, Here())
    assert outcome.exit_code == 6
    assert sorted(finished.state.exit_code for finished in told) == [6, 6, 70]
    assert {finished.last_words for finished in told} == {("evalkit: it went wrong",)}


class Dying(Here):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def result(self, call):
        raise self.error


def test_a_node_that_keeps_dying_is_75_and_a_foreign_release_2(suite, tmp_path):
    outcome, told = play(suite, tmp_path / "a", Dying(TemporaryError("workers died 4 times", hint="memory")))
    assert outcome.exit_code == 75
    assert told[0].last_words == ("evalkit: workers died 4 times", "hint: memory")
    outcome, _ = play(suite, tmp_path / "b", Dying(UsageError("another release")))
    assert outcome.exit_code == 2


def test_a_signal_interrupts_what_runs_and_starts_nothing_more(suite, tmp_path):
    class Stopping(Here):
        def ready(self, calls, seconds):
            return list(calls) if self.cancelled else []

        def result(self, call):
            raise TemporaryError("cancelled")

    engine = Stopping()
    looks = iter([0, 0])
    outcome, told = play(suite, tmp_path, engine, stop=lambda: next(looks, signal.SIGTERM))
    assert outcome.exit_code == 143
    assert [finished.state.status for finished in told] == ["interrupted", "interrupted"]
    assert len(engine.cancelled) == 2
    assert len(engine.asked) == 2


def test_files_that_a_machine_lacks_are_sent(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("evalkit.executors.shipping._is_same", lambda _path, _sent: False)
    engine = Here()
    outcome, _ = play(suite[2:], tmp_path / "out", engine)
    assert outcome.exit_code == 0
    assert len(engine.asked) == 3  # without content, then without the second file's, then with both
    sent = {path.name for path in (tmp_path / "cache" / "sent").glob("*/*.npz")}
    assert sent == {"real.npz", "samples.npz"}


def test_a_file_from_outside_the_folder_is_refused(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_left", lambda out: [])
    engine = Here()
    result = engine.result

    def hostile(call):
        ended = result(call)
        return type(ended)(exit_code=0, output=b"", log=b"", files={"../../escaped.json": b"{}"})

    monkeypatch.setattr(engine, "result", hostile)
    with pytest.raises(TemporaryError, match="a worker sent a file called"):
        play(suite[:1], tmp_path / "a" / "b", engine)
    assert not list(tmp_path.rglob("escaped.json"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a/real.npz", "/new/real.npz"),
        ("inception-v3=a/real.npz", "inception-v3=/new/real.npz"),
        ("a/real.npz@main", "/new/real.npz@main"),
        ("vae", "vae"),
        ("xa/real.npz", "xa/real.npz"),
    ],
)
def test_a_path_is_moved_where_it_stands(word, expected):
    assert remote._moved(word, {"a/real.npz": "/new/real.npz"}) == expected
