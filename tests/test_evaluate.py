"""The pipeline end to end on a generator with a closed form: values, resume, batches, faults."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import evalkit
from evalkit import evaluate
from evalkit.console import Silent
from evalkit.errors import (
    BusyError,
    InvalidInputError,
    NotComparableError,
    NothingMeasuredError,
    TemporaryError,
    UsageError,
)
from evalkit.evaluate import run
from evalkit.extraction import Interrupted
from evalkit.extractors import build_extractor
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.references import ReferenceBuilder, write_reference
from evalkit.request import ScoreRequest
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.sources import DecodePolicy
from evalkit.subjects import ImageOptions

TOY = "evalkit.generators.toy:make"


def _images(generator: GaussianTiles, count: int, base: int) -> np.ndarray:
    return generator.generate(image_seeds(base, np.arange(count))).numpy()


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    write_samples(path, _images(GaussianTiles(), 2000, base=7), labels=None)
    return path


def _score(real: Path, out: Path, **changes) -> RunRecord:
    settings = {
        "model": TOY,
        "protocol": "pixels",
        "reference": str(real),
        "num_samples": 256,
        "out": out,
    }
    return evalkit.score(**{**settings, **changes})


def _values(record: RunRecord) -> dict[str, float]:
    return {result.metric: result.value for result in record.results}


def test_a_record_is_whole_and_written(tmp_path, reference):
    record = _score(reference, tmp_path)
    assert record.status == "complete"
    assert RunRecord.read(tmp_path / f"{record.run_id}.json") == record
    assert set(_values(record)) == {
        f"{name}:pixels" for name in ("fd", "kd", "is", "precision", "recall", "density", "coverage")
    }
    for result in record.results:
        assert result.n_gen == 256
        assert result.se is not None
        assert result.se > 0
        assert result.ci is not None
        assert result.ci.low <= result.value <= result.ci.high
        assert result.blocks.count == 16
    (speed,) = record.performance
    assert speed.images == 256
    assert speed.throughput > 0
    assert speed.extraction_throughput is not None


def test_closed_form_distance(tmp_path):
    """Between two known Gaussians the bias-corrected distance is the closed form within its error."""
    other = GaussianTiles(mean=140.0, std=25.0)
    path = tmp_path / "other.npz"
    write_samples(path, _images(other, 5000, base=3), labels=None)
    record = _score(path, tmp_path, num_samples=4096, metrics=["fd"])
    (fd,) = record.results
    expected = 48 * ((140 - 128) ** 2 + (25 - 20) ** 2) / 255**2
    assert fd.se is not None
    assert fd.bias_corrected == pytest.approx(expected, abs=4 * fd.se + 0.01 * expected)


def test_a_set_against_itself_is_zero(tmp_path, reference):
    record = _score(
        reference, tmp_path, model=None, images=reference, num_samples=2000, metrics=["fd", "precision"]
    )
    values = _values(record)
    assert values["fd:pixels"] == pytest.approx(0.0, abs=1e-6)
    assert values["precision:pixels"] == 1.0


@pytest.mark.parametrize("batch_size", [1, 5, 64, 1000])
def test_the_value_does_not_depend_on_the_batch_size(tmp_path, reference, batch_size):
    expected = _values(_score(reference, tmp_path / "a"))
    got = _values(_score(reference, tmp_path / "b", batch_size=batch_size))
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-5)


def test_the_protocol_is_the_fingerprint_and_not_the_machine(tmp_path, reference):
    one = _score(reference, tmp_path / "a", seed=0)
    two = _score(reference, tmp_path / "b", seed=1, batch_size=7, metrics=[])
    assert one.protocol.fingerprint == two.protocol.fingerprint
    assert _values(one) != _values(two)
    for change in ({"num_samples": 128}, {"metrics": ["fd"]}, {"metrics": ["fd@pixels"]}):
        assert _score(reference, tmp_path / "c", **change).protocol.fingerprint != one.protocol.fingerprint


def test_a_repeated_run_reuses_every_shard(tmp_path, reference):
    first = _score(reference, tmp_path)
    second = _score(reference, tmp_path)
    assert _values(first) == _values(second)
    assert [r.blocks for r in first.results] == [r.blocks for r in second.results]
    assert first.performance[0].throughput == second.performance[0].throughput


@pytest.mark.fault("signal")
def test_an_interruption_keeps_whole_shards_and_the_value(tmp_path, reference):
    expected = _score(reference, tmp_path / "whole")
    batches = 0

    def stop() -> int:
        nonlocal batches
        batches += 1
        return signal.SIGTERM if batches == 45 else 0  # 32 batches of the reference, then 13 of 32

    request = ScoreRequest(
        model=TOY,
        protocol="pixels",
        reference=str(reference),
        num_samples=256,
        out=tmp_path / "cut",
        batch_size=8,
    )
    with pytest.raises(Interrupted) as caught:
        run(request, console=Silent(), stop=stop)
    assert caught.value.exit_code == 143
    statuses = [RunRecord.read(path).status for path in (tmp_path / "cut").glob("*.json")]
    assert statuses == ["partial"]
    resumed = run(request, console=Silent())
    assert [r.value for r in resumed.results] == pytest.approx([r.value for r in expected.results], rel=1e-6)


@pytest.mark.fault("killed-at-random")
@pytest.mark.slow
def test_a_killed_process_resumes_to_the_identical_value(tmp_path, reference):
    command = [
        sys.executable, "-m", "evalkit.cli", "score", "--model", TOY, "--protocol", "pixels", "--reference",
        str(reference), "--num-samples", "4096", "--batch-size", "16", "--format", "json",
        "--metrics", "fd,kd",
    ]  # fmt: skip
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, check=True)
    cut = [*command, "--out", str(tmp_path / "cut")]
    state = tmp_path / "cut" / "state"
    for wanted in (3, 9, 14):
        process = subprocess.Popen(cut, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(state.glob("*-256/*.safetensors"))) >= wanted:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = subprocess.run(cut, capture_output=True, check=True)
    expected, got = json.loads(whole.stdout), json.loads(resumed.stdout)
    assert got["results"] == expected["results"]
    assert got["protocol"]["fingerprint"] == expected["protocol"]["fingerprint"]


@pytest.mark.fault("state-damaged")
def test_a_flipped_byte_in_the_state_is_computed_again(tmp_path, reference):
    expected = _values(_score(reference, tmp_path))
    path = sorted((tmp_path / "state").glob("*-16/*.safetensors"))[2]
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    console = Notes()
    assert _values(_score(reference, tmp_path, console=console)) == expected
    assert any("damaged" in note for note in console.notes)


@pytest.mark.fault("two-runs")
def test_two_runs_on_one_state_are_told_apart(tmp_path, reference):
    from filelock import FileLock

    _score(reference, tmp_path)
    folder = next((tmp_path / "state").glob("*-16"))
    with FileLock(folder / ".lock"), pytest.raises(TemporaryError, match="another evalkit run") as caught:
        _score(reference, tmp_path)
    assert "process" in caught.value.message


def test_metrics_can_be_added_later_without_sampling_again(tmp_path, reference):
    _score(reference, tmp_path, metrics=["fd"])

    def fail(*_args, **_kwargs):
        raise AssertionError("sampled again")

    with pytest.MonkeyPatch.context() as patch:
        calls = []
        original = GaussianTiles.generate
        patch.setattr(GaussianTiles, "generate", lambda *a, **k: calls.append(1) or original(*a, **k))
        _score(reference, tmp_path, metrics=["kd"])
        assert len(calls) <= 2  # the warm-up


def test_another_count_never_reuses_a_short_shard(tmp_path, reference):
    fresh = {n: _score(reference, tmp_path / str(n), num_samples=n, metrics=["fd"]) for n in (100, 120)}
    for count in (100, 120, 100):
        again = _score(reference, tmp_path / "shared", num_samples=count, metrics=["fd"])
        assert _values(again) == _values(fresh[count])


def test_heads_asked_for_in_turn_are_kept(tmp_path, reference, monkeypatch):
    calls = []
    original = GaussianTiles.generate
    monkeypatch.setattr(GaussianTiles, "generate", lambda *a, **k: calls.append(1) or original(*a, **k))
    for metrics, sampled in ((["fd"], True), (["fd@pixels"], True), (["fd"], False), (["fd@pixels"], False)):
        calls.clear()
        _score(reference, tmp_path, metrics=metrics)
        assert (len(calls) > 2) == sampled  # two calls are the warm-up


def test_a_callable_is_told_apart_by_its_checkpoint(tmp_path, reference, monkeypatch):
    module = tmp_path / "shifted_tiles.py"
    module.write_text(
        "from evalkit.generators.toy import GaussianTiles\n"
        "from evalkit.spec import Spec\n"
        "class Shifted(GaussianTiles):\n"
        "    spec = property(lambda self: Spec.of('generator', 'mine'))\n"
        "def make(ckpt):\n"
        "    return Shifted(mean=float(ckpt.read_text()))\n"
    )
    monkeypatch.chdir(tmp_path)
    values = []
    for mean in (128.0, 160.0):
        path = tmp_path / f"mean {mean}.txt"
        path.write_text(str(mean))
        record = _score(reference, tmp_path / "out", model="shifted_tiles:make", ckpt=path, metrics=["fd"])
        assert record.model.sha256 is not None
        values.append(record.results[0].value)
    assert values[1] > 10 * values[0]


@pytest.mark.parametrize("as_reference", [False, True])
def test_how_transparency_is_decoded_is_part_of_the_identity(tmp_path, reference, as_reference):
    from PIL import Image

    folder, rng = tmp_path / "rgba", np.random.default_rng(0)
    folder.mkdir()
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32, 4), dtype=np.uint8), "RGBA").save(
            folder / f"{number}.png"
        )
    records = []
    for alpha in ("white", "black"):
        options = ImageOptions(policy=DecodePolicy(alpha=alpha))
        side = (
            {"reference": str(folder)}
            if as_reference
            else {"model": None, "images": folder, "num_samples": 30}
        )
        records.append(_score(reference, tmp_path / "out", image_options=options, metrics=["fd"], **side))
    assert records[0].results[0].value != records[1].results[0].value
    prints = {record.protocol.fingerprint for record in records}
    assert len(prints) == (2 if as_reference else 1)


def test_a_strict_run_takes_nothing_over_from_one_that_was_not(tmp_path, reference):
    settings = {"model": None, "images": reference, "num_samples": 64, "metrics": ["fd"]}
    _score(reference, tmp_path, **settings)
    before = {path.parent.name for path in (tmp_path / "state").glob("*/*.safetensors")}
    _score(reference, tmp_path, **settings, strict=True)
    added = {path.parent.name for path in (tmp_path / "state").glob("*/*.safetensors")} - before
    assert added == {f"b-{name}" for name in before}  # of the images, and of those of the reference


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_what_a_reference_cannot_give_is_left_out_before_sampling(tmp_path):
    moments = tmp_path / "moments.npz"
    np.savez(moments, mu=np.full(48, 0.5), sigma=np.eye(48) * 0.006)
    console = Notes()
    with pytest.raises(NotComparableError):  # the foreign file is InceptionV3's by definition
        _score(moments, tmp_path, console=console)
    builder = ReferenceBuilder({"thumbnail": 48}, bank_size=0)
    rng = np.random.default_rng(0)
    builder.update({"thumbnail": rng.random((200, 48), dtype=np.float32)}, np.arange(200))
    bare = builder.build(
        name="bare", title="bare", dataset="bare", split=None, resolution=32, images_sha256="0" * 64,
        extractor=build_extractor("pixels").spec,
    )  # fmt: skip
    write_reference(bare, tmp_path / "bare.safetensors")
    record = _score(tmp_path / "bare.safetensors", tmp_path, console=console)
    assert [result.metric for result in record.results] == ["fd:pixels", "is:pixels"]
    assert any("left out kd" in note for note in console.notes)
    with pytest.raises(NothingMeasuredError):
        _score(tmp_path / "bare.safetensors", tmp_path, metrics=["kd"])


def test_a_callable_that_fails_is_named(tmp_path, reference, monkeypatch):
    monkeypatch.setattr(GaussianTiles, "generate", lambda *_args, **_flags: 1 / 0)
    with pytest.raises(InvalidInputError, match="toy:make failed: ZeroDivisionError"):
        _score(reference, tmp_path / "fresh")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": None}, UsageError, "exactly one subject"),
        ({"images": "x"}, UsageError, "exactly one subject"),
        ({"num_samples": 0}, UsageError, "at least 1"),
        ({"num_samples": 1}, InvalidInputError, "at least"),
        ({"metrics": ["fid"]}, UsageError, "only with the real InceptionV3"),
        ({"metrics": ["fdd"]}, UsageError, "unknown metric"),
        ({"metrics": ["fd@pooled"]}, UsageError, "no head"),
        ({"protocol": "embeded"}, UsageError, "unknown protocol"),
        ({"reference": None}, UsageError, "a reference is needed"),
        ({"reference": "cifar10-jpeg-tran"}, UsageError, "no reference, file or folder"),
        ({"name": "=HYPERLINK()"}, UsageError, "not an identifier"),
        ({"seed": -1}, UsageError, "negative"),
        ({"sampling": evalkit.SamplingOptions(steps=3)}, UsageError, "do not reach a callable"),
        ({"model": "ddpm", "sampling": evalkit.SamplingOptions(eta=7.0)}, UsageError, "takes no --eta"),
        ({"model": "vae", "sampling": evalkit.SamplingOptions(guidance=3.0)}, UsageError, "no --guidance"),
        ({"weights": {"inception-v3": "x"}}, UsageError, "not used"),
    ],
)
def test_bad_requests(tmp_path, reference, changes, error, message):
    with pytest.raises(error, match=message):
        _score(reference, tmp_path, **changes)


def test_a_reference_of_another_extractor_is_not_comparable(tmp_path):
    if "cifar10-jpeg-test" not in evalkit.load_reference.__globals__["bundled_references"]():
        pytest.skip("no bundled reference in this checkout")
    with pytest.raises(NotComparableError):
        _score(Path("cifar10-jpeg-test"), tmp_path)


def test_a_generator_that_returns_floats_is_refused(tmp_path, reference, monkeypatch):
    original = GaussianTiles.generate
    monkeypatch.setattr(GaussianTiles, "generate", lambda *a, **k: original(*a, **k).float() / 255)
    with pytest.raises(InvalidInputError, match="not uint8"):
        _score(reference, tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert RunRecord.read(path).status == "error"


def test_fewer_images_than_asked_for(tmp_path, reference):
    with pytest.raises(InvalidInputError, match="holds 2000 images, fewer than"):
        _score(reference, tmp_path, model=None, images=reference, num_samples=2001)


def test_a_folder_that_is_busy_after_the_images_is_no_refused_start(monkeypatch):
    def busy(_opened, _plan):
        raise BusyError("another evalkit run works on it", hint="wait for it")

    monkeypatch.setattr(evaluate, "probe_passes", busy)
    with pytest.raises(BusyError):
        evaluate._probed(None, None, begun=False)
    with pytest.raises(TemporaryError, match="works on it") as caught:
        evaluate._probed(None, None, begun=True)
    assert type(caught.value) is TemporaryError  # the record of what was done is kept
    assert caught.value.hint == "wait for it"
