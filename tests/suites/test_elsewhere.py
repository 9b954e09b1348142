"""Cells as tasks of a cluster leave what cells of this machine leave: records, manifest, exit codes, logs."""

from __future__ import annotations

import functools
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli import main
from evalkit.cli.suite import score_flags
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
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


def play(suite, folder: Path, engine: Here | None, *, fresh: bool = False, **more):
    orders = Orders(folder=folder, devices=("cpu",), jobs=2, fresh=fresh)
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


class Patient(Here):
    """Works only when it is told to stop."""

    def ready(self, calls, seconds):
        return list(calls) if self.cancelled else []


def test_a_signal_interrupts_what_runs_and_starts_nothing_more(suite, tmp_path):
    class Stopping(Patient):
        def result(self, call):
            raise TemporaryError("cancelled")

    engine = Stopping()
    looks = iter([0, 0])
    outcome, told = play(suite, tmp_path, engine, stop=lambda: next(looks, signal.SIGTERM))
    assert outcome.exit_code == 143
    assert [finished.state.status for finished in told] == ["interrupted", "interrupted"]
    assert len(engine.cancelled) == 2
    assert len(engine.asked) == 2


class Drawing:
    """Counts the images that are drawn, without single ones against the clock.

    ``stop_at`` is the batch in which SIGINT arrives, or ``error`` is raised.
    """

    error: Exception | None = None

    def __init__(self, monkeypatch) -> None:
        self.batches, self.images, self.stop_at = 0, 0, 0
        draw = GaussianTiles.generate

        def generate(tiles, seeds, *, labels=None):
            if len(seeds) > 1:
                self.batches, self.images = self.batches + 1, self.images + len(seeds)
                if self.batches == self.stop_at and self.error:
                    raise self.error
                if self.batches == self.stop_at:
                    signal.raise_signal(signal.SIGINT)
            return draw(tiles, seeds, labels=labels)

        monkeypatch.setattr(GaussianTiles, "generate", generate)

    def restart(self, *, stop_at: int = 0) -> None:
        self.batches, self.images, self.stop_at = 0, 0, stop_at


def test_an_interrupted_cell_hands_back_its_shards_and_goes_on_from_them(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    drawing, key = Drawing(monkeypatch), suite[0].key
    plain, _ = play(suite[:1], tmp_path / "plain", Here())
    assert drawing.images == 40

    reference = len(list((tmp_path / "plain").rglob("*.safetensors"))) - 5  # its shards come back too

    drawing.restart(stop_at=4)
    looks = iter([0])
    stop = functools.partial(next, looks, signal.SIGTERM)
    stopped, told = play(suite[:1], tmp_path / "out", Patient(), stop=stop)
    assert stopped.exit_code == 143
    assert (told[0].state.status, told[0].state.exit_code) == ("interrupted", 130)
    (listing,) = (tmp_path / "out" / "logs").glob("*.shards")
    kept = listing.read_text().splitlines()
    assert all((tmp_path / "out" / "records" / name).is_file() for name in kept)
    whole = len(kept) - reference
    assert whole > 0

    drawing.restart(stop_at=2)  # by somebody on the worker's machine, not by a signal to the suite
    again, _ = play(suite[:1], tmp_path / "out", Here())
    assert again.exit_code == 75
    more = len(listing.read_text().splitlines()) - reference
    assert whole < more < 5

    drawing.restart()
    done, _ = play(suite[:1], tmp_path / "out", Here())
    assert drawing.images == 8 * (5 - more)
    assert done.records[key].results == plain.records[key].results
    assert not listing.exists()


def test_a_cell_goes_on_after_an_error_too(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    drawing = Drawing(monkeypatch)
    drawing.stop_at, drawing.error = 4, InvalidInputError("the model drew nothing")
    failed, _ = play(suite[:1], tmp_path / "out", Here())
    assert (failed.exit_code, drawing.images) == (6, 32)
    drawing.restart()
    done, _ = play(suite[:1], tmp_path / "out", Here())
    assert done.exit_code == 0
    assert drawing.images < 40


def test_fresh_cells_are_sent_no_shards(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    drawing = Drawing(monkeypatch)
    drawing.restart(stop_at=4)
    play(suite[:1], tmp_path / "out", Here())
    drawing.restart()
    outcome, _ = play(suite[:1], tmp_path / "out", Here(), fresh=True)
    assert (outcome.exit_code, drawing.images) == (0, 40)


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
