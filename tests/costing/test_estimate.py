"""What is said of a run beforehand: its parts add up, and nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.console import Silent
from evalkit.costing import Estimate, estimate_run
from evalkit.costing.pass_probe import MOST_BATCHES, probe_pass
from evalkit.errors import UsageError
from evalkit.evaluate import run
from evalkit.extractors import build_extractor
from evalkit.generators.toy import GaussianTiles
from evalkit.opening import open_run, pass_jobs
from evalkit.request import ScoreRequest
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.shards import ShardLayout

TOY = "evalkit.generators.toy:make"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


@pytest.fixture
def request_of(tmp_path, reference):
    def make(**changes) -> ScoreRequest:
        fixed = {"model": TOY, "protocol": "pixels", "reference": str(reference), "num_samples": 640}
        return ScoreRequest(**{**fixed, "out": tmp_path / "out", **changes})

    return make


def _estimate(request: ScoreRequest, *, workers: int = 1) -> Estimate:
    return estimate_run(request, console=Silent(), workers=workers, budget=0.05)


def test_the_steps_add_up_and_nothing_is_written(request_of, tmp_path):
    found = _estimate(request_of())
    assert [line.step for line in found.lines] == [
        *("start", "open", "reference", "warm-up", "sampling", "networks", "writing"),
        *("Fréchet distance", "kernel distance", "neighbours", "Inception score"),
    ]
    assert found.seconds == pytest.approx(sum(line.seconds for line in found.lines), abs=0.1)
    assert found.worker_seconds == found.seconds
    assert (found.images, found.reused, found.shards, found.shard_size) == (640, 0, 20, 32)
    assert found.notes == ()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".evalkit-plan-*"))


def test_the_disk_is_what_a_run_takes(request_of, tmp_path):
    found = _estimate(request_of())
    run(request_of(), console=Silent())
    taken = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found.disk_bytes == pytest.approx(taken, rel=0.3)


def test_memory_grows_with_the_features_only_where_a_metric_holds_them(request_of):
    """The thumbnail of the pixels has 192 numbers; one copy, however many metrics hold it."""
    more = 200_000 - 20_000

    def growth(*metrics):
        few, many = (_estimate(request_of(metrics=metrics, num_samples=n)) for n in (20_000, 200_000))
        return (many.memory_bytes - few.memory_bytes) / more

    width = build_extractor("pixels").heads["thumbnail"]
    assert growth("fd") < width
    assert 4 * width < growth("kd", "precision") < 16 * width + 100


def test_workers_divide_the_images_and_nothing_else(request_of):
    request = request_of()
    one, three = _estimate(request), _estimate(request, workers=3)
    shared = sum(line.seconds for line in three.lines if line.shared)
    own = sum(line.seconds for line in three.lines if not line.shared)
    assert three.seconds == pytest.approx(own + shared * 7 / 20, abs=0.1), "of 20 shards the busiest has 7"
    assert three.worker_seconds >= three.seconds
    assert three.disk_bytes == one.disk_bytes
    assert any("each worker is supposed to have" in note for note in three.notes)


def test_more_workers_than_shards(request_of):
    found = _estimate(request_of(num_samples=64), workers=50)
    assert any(note.startswith("50 workers for 8 shards: 42 of them") for note in found.notes)


def test_a_reference_of_images_is_counted_not_made(request_of):
    found = _estimate(request_of())
    (line,) = [line for line in found.lines if line.step == "reference"]
    assert line.detail == "300 images"
    assert "m = 300" in next(line.detail for line in found.lines if line.step == "kernel distance")


def test_what_is_there_already_is_left_out(request_of):
    run(request_of(), console=Silent())
    found = _estimate(request_of())
    assert found.reused == 640
    assert sum(line.seconds for line in found.lines if line.shared) == 0.0
    assert next(line.detail for line in found.lines if line.step == "reference").endswith(
        "300 of them there already"
    )
    assert _estimate(request_of(fresh=True)).reused == 0


def test_images_instead_of_a_model(request_of, reference):
    found = _estimate(request_of(model=None, images=reference, num_samples=300, metrics=("kd",)))
    assert [line.step for line in found.lines][3:] == ["reading", "networks", "writing", "kernel distance"]
    assert found.images == 300


def test_a_pass_is_tried_in_batches_of_the_run(request_of):
    opened = open_run(request_of(batch_size=8), console=Silent())
    (job,) = pass_jobs(opened, opened.plan)
    cost = probe_pass(job, budget=0.05)
    assert (cost.images, cost.reused, cost.shards) == (640, 0, ShardLayout(640).shards)
    assert cost.batch == 8
    assert 1 <= cost.probed_batch <= 8
    assert cost.bytes_an_image == 4 * sum(
        opened.extractors[network].heads[head]
        for network in opened.plan.networks
        for head in opened.plan.heads(network)
    )
    assert cost.wall > 0
    assert cost.read > 0
    assert cost.extract > 0
    assert cost.seconds == pytest.approx(640 * (cost.wall + cost.write))


def test_a_pass_of_few_images_never_asks_for_more(request_of):
    opened = open_run(request_of(num_samples=11), console=Silent())
    (job,) = pass_jobs(opened, opened.plan)
    asked: list[int] = []

    class Watching:
        spec, labels = job.source.spec, None

        def __len__(self) -> int:
            return 11

        def read(self, index):
            asked.extend(index.tolist())
            return job.source.read(index)

    from dataclasses import replace

    probe_pass(replace(job, source=Watching()), budget=0.01)
    assert set(asked) <= set(range(11))
    assert len(asked) <= 11 * (MOST_BATCHES + 6)


def test_what_a_run_refuses_a_plan_refuses(request_of):
    with pytest.raises(UsageError):
        _estimate(request_of(metrics=("no-such",)))
