"""Speeds: enough batches, percentiles an image, memory limits, and energy only where it means something."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from evalkit import energy
from evalkit.benchmark import SpeedRequest, measure_speed
from evalkit.console import Silent
from evalkit.errors import TemporaryError, UsageError
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.sources.generated import GeneratedSource
from evalkit.speed_trials import FEWEST_BATCHES, Timed, TrialRules, offline, summary, time_batches
from evalkit.throughput import WarmUp, climb, plateau

CPU = torch.device("cpu")
WARM = WarmUp(seconds=0.5, flops=7)


class _Slow(GaussianTiles):
    def generate(self, seeds, *, labels=None):
        time.sleep(0.01 * len(seeds))
        return super().generate(seeds, labels=labels)


def test_a_trial_lasts_its_seconds_and_its_batches():
    source = GeneratedSource(_Slow(), 2**40)
    short = time_batches(source, batch_size=2, rules=TrialRules(0.001), device=CPU)
    assert len(short.seconds) == FEWEST_BATCHES
    long = time_batches(source, batch_size=2, rules=TrialRules(0.2), device=CPU)
    assert sum(long.seconds) >= 0.2
    assert min(long.seconds) >= 0.02
    assert long.joules_per_image is None


def test_summary_is_in_milliseconds_an_image():
    timed = Timed(batch_size=4, seconds=(0.4, 0.8, 1.2))
    row = summary(
        timed, scenario="offline", generator=GaussianTiles(), warm=WARM, device=CPU, dtype="float32"
    )
    assert row.throughput == pytest.approx(12 / 2.4)
    assert row.latency_p50_ms == pytest.approx(200.0)
    assert row.latency_p90_ms == pytest.approx(np.percentile([100, 200, 300], 90))
    assert (row.images, row.flops_per_image, row.warmup_seconds) == (12, 7, 0.5)


def test_the_99th_percentile_needs_a_thousand():
    def p99(count):
        timed = Timed(batch_size=1, seconds=tuple(np.linspace(0.001, 0.002, count)))
        return summary(
            timed, scenario="single-stream", generator=GaussianTiles(), warm=WARM, device=CPU, dtype="float32"
        ).latency_p99_ms

    assert p99(999) is None
    assert p99(1000) == pytest.approx(1.99, rel=1e-3)


def test_a_sweep_ends_where_memory_does():
    class Small(GaussianTiles):
        def generate(self, seeds, *, labels=None):
            if len(seeds) > 4:
                raise torch.OutOfMemoryError
            return super().generate(seeds, labels=labels)

    common = {"rules": TrialRules(0.001), "warm": WARM, "device": CPU, "dtype": "float32"}
    assert [p.batch_size for p in offline(Small(), batch_sizes=(1, 4, 16), **common)] == [1, 4]
    with pytest.raises(TemporaryError, match="batch of 8"):
        offline(Small(), batch_sizes=(8,), **common)


@pytest.mark.parametrize(
    ("seconds", "measured", "chosen"),
    [
        (lambda n: 1.0 + 0.01 * n, [1, 2, 4, 8, 16, 32, 64, 128, 256], 256),  # overhead: grows to the end
        (lambda n: 0.1 * max(n, 8), [1, 2, 4, 8, 16, 32], 8),  # full at 8: two more are tried
        (lambda n: n * (3.0 if n == 4 else 1.0) / min(n, 16), [1, 2, 4, 8, 16, 32, 64], 16),  # one unlucky
        (lambda n: 1.0 if n < 8 else None, [1, 2, 4], 4),  # memory ends at 8
    ],
    ids=["overhead", "full", "unlucky", "memory"],
)
def test_the_batch_grows_until_that_does_not_pay(seconds, measured, chosen):
    asked = []

    def rate_of(size):
        asked.append(size)
        return None if seconds(size) is None else size / seconds(size)

    rates = climb((1 << k for k in range(9)), rate_of)
    assert list(rates) == measured
    assert plateau(rates) == chosen
    assert asked[: len(measured)] == measured
    assert len(asked) <= len(measured) + 1


def test_without_sizes_the_batch_doubles_until_memory_ends(monkeypatch):
    now = 0.0

    class Full(GaussianTiles):
        def generate(self, seeds, *, labels=None):
            nonlocal now
            if len(seeds) > 16:
                raise torch.OutOfMemoryError
            now += 1.0 + 0.001 * len(seeds)
            return super().generate(seeds, labels=labels)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    common = {"rules": TrialRules(0.001), "warm": WARM, "device": CPU, "dtype": "float32"}
    measured = offline(Full(), batch_sizes=(), **common)
    assert [p.batch_size for p in measured] == [1, 2, 4, 8, 16]
    assert measured[-1].throughput == pytest.approx(16 / 1.016)


def test_energy_needs_ten_seconds_and_a_counter_that_is_ours():
    assert energy.energy_per_image(100.0, 400.0, seconds=12.0, images=100) == pytest.approx(3.0)
    assert energy.energy_per_image(100.0, 400.0, seconds=9.0, images=100) is None
    assert energy.energy_per_image(None, 400.0, seconds=12.0, images=100) is None
    assert energy.energy_counter(CPU)() is None


def test_a_shared_gpu_gives_no_energy():
    class Process:
        def __init__(self, pid):
            self.pid = pid

    class Nvml:
        def __init__(self, *pids):
            self.pids = pids

        def nvmlDeviceGetComputeRunningProcesses(self, _handle):  # noqa: N802 - NVML's name
            return [Process(pid) for pid in self.pids]

    import os

    assert energy._is_alone(Nvml(os.getpid()), None)
    assert not energy._is_alone(Nvml(os.getpid(), 1), None)


def test_the_record_holds_every_trial_and_counts_evaluations(tmp_path):
    from evalkit.generators import SamplingOptions

    request = SpeedRequest(
        score=ScoreRequest(
            model="ddpm", sampling=SamplingOptions(steps=2, guidance=2.0), out=tmp_path, device="cpu"
        ),
        batch_sizes=(1, 2),
        rules=TrialRules(0.001),
    )
    record = measure_speed(request, console=Silent())
    assert [(p.scenario, p.batch_size, p.nfe) for p in record.performance] == [
        ("offline", 1, 4),  # guidance calls the network twice a step
        ("offline", 2, 4),
        ("single-stream", 1, 4),
    ]
    assert RunRecord.read(next(tmp_path.glob("*.json"))) == record


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_sizes": (0,)}, "--batch-sizes"),
        ({"rules": TrialRules(0.0)}, "--min-seconds"),
        ({"score": ScoreRequest(images="x")}, "bench needs"),
    ],
)
def test_what_cannot_be_timed_is_refused(change, match):
    with pytest.raises(UsageError, match=match):
        SpeedRequest(**{"score": ScoreRequest(model="cgan"), **change}).check()
