"""Records of toy models, and boards made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.leaderboard.board import create_board
from evalkit.leaderboard.facts import BoardInfo
from evalkit.leaderboard.storage import Wishes, add_runs, locked
from evalkit.record import (
    DataInfo,
    Inputs,
    MetricResult,
    ModelInfo,
    Performance,
    ProtocolInfo,
    RunRecord,
    SamplingInfo,
    Seeds,
)
from evalkit.spec import Interval


def _record(
    model="ddpm", value=2.0, *, run=None, day=1, half=0.2, speed=10.0, device="cpu", family="gan",
    sampler="ddim", steps=20, fingerprint="p1", metric="kd:lite", direction="lower",
    status="complete", weights=None,
):  # fmt: skip
    """A complete record with two scores and an offline speed; ``speed=None`` for none."""
    ci = None if half is None else Interval(value - half, value + half)
    se = None if half is None else half / 2
    first = MetricResult(metric, "block", value, direction=direction, se=se, ci=ci, n_gen=64, n_ref=100)
    second = MetricResult("is:lite", "logits", 1.5, direction="higher", se=0.1, n_gen=64)
    measured = Performance(
        scenario="offline", throughput=speed or 0.0, latency_p50_ms=1.5, latency_p90_ms=2.5, nfe=20,
        parameters=1000, flops_per_image=1e6, peak_memory_bytes=2048, energy_per_image_joule=0.25,
        batch_size=8, images=64, device=device, dtype="float32", warmup_seconds=0.1,
    )  # fmt: skip
    seeds = Seeds(base=0, scheme="philox", first=2**63 + 1, last=2**64 - 1)
    return RunRecord(
        run_id=run or f"2026010{day}T000000Z-{model.replace('/', '-')}",
        status=status,
        created_utc=f"2026-01-0{day}T00:00:00Z",
        model=ModelInfo(
            id=model, family=family, format="safetensors", n_params=1000, sha256=weights and weights * 64
        ),
        data=DataInfo(dataset="toy", split="train", resolution=32, n_ref=100),
        sampling=SamplingInfo(n=64, seeds=seeds, sampler=sampler, steps=steps, nfe=steps),
        protocol=ProtocolInfo("embedded", {"num_images": 64}, fingerprint),
        results=(first, second),
        performance=() if speed is None else (measured,),
        inputs=Inputs(found=64, used=64),
        env={"evalkit": "0.1.0", "torch": "2.15.0"},
        command=("evalkit", "score"),
    )


@pytest.fixture(scope="session")
def make_record():
    return _record


@pytest.fixture
def publish():
    """Put records on a board, or say something of one."""

    def publish(folder, *records, **wishes):
        with locked(folder):
            return add_runs(folder, records, Wishes(**wishes))

    return publish


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "toys"
    create_board(folder, BoardInfo(name="toys", title="Toys"))
    return folder


@pytest.fixture
def board(empty, publish, make_record):
    """Three models: two close ones and one that is worse and fast."""
    publish(
        empty,
        make_record("ddpm", 2.0, family="diffusion", speed=10.0),
        make_record("gan", 2.1, speed=100.0),
        make_record("vae", 5.0, speed=50.0, family="vae"),
    )
    return empty


@pytest.fixture(scope="session")
def changed():
    """A copy of a record, or of one of its parts, with other fields."""
    return replace
