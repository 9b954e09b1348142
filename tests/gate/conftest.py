"""Reports made by hand: what the outputs of the gate must show."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evalkit.gate.facts import GateReport, GateSpec, Quantity, Rule, RuleOutcome, Side
from evalkit.record import (
    Blocks,
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
from evalkit.spec import Interval, sha256_of


def make_quantity(value, se=None, *, metric="fd:efficientnet-lite0", direction="lower", n=1024, **more):
    return Quantity(
        metric=metric, variant=more.pop("variant", "block"), unit=more.pop("unit", ""), direction=direction,
        value=value, se=se, degrees=15 if se else None, n=n, **more,
    )  # fmt: skip


def make_outcome(
    status="pass", *, metric="fd:efficientnet-lite0", direction="lower", values=(10.0, 10.5), **more
):
    """An outcome with both quantities; ``values`` are the baseline's and the candidate's."""
    se = more.pop("value_se", 0.3)
    unit, n = more.pop("unit", ""), more.pop("n", 1024)
    sides = [make_quantity(v, se, metric=metric, direction=direction, unit=unit, n=n) for v in values]
    sign = 1 if direction == "lower" else -1
    found = {
        "rule": Rule(metric=metric),
        "reason": f"{metric} is what it is",
        "baseline": sides[0],
        "candidate": sides[1],
        "difference": sign * (values[1] - values[0]),
        "se": 0.2,
        "errors": "paired",
        "low": 0.15,
        "high": 0.85,
        "p_value": 0.01,
        "adjusted": 0.02,
        "margin": 0.25,
    }
    return RuleOutcome(status=status, **(found | more))


def make_report(*outcomes, burden="regression", **more):
    candidate = Side(
        model="ddpm", run_id="20260102T000000Z-b", fingerprint="f" * 64, source="new.json", seeds="0"
    )
    baseline = Side(
        model="ddpm", run_id="20260101T000000Z-a", fingerprint="f" * 64, source="old.json", seeds="0"
    )
    sides = {"candidate": candidate, "baseline": baseline}
    return GateReport(**(sides | {"spec": GateSpec(burden=burden), "outcomes": outcomes} | more))


@pytest.fixture(scope="session")
def quantity() -> Callable[..., Quantity]:
    return make_quantity


@pytest.fixture(scope="session")
def outcome() -> Callable[..., RuleOutcome]:
    return make_outcome


@pytest.fixture(scope="session")
def report() -> Callable[..., GateReport]:
    return make_report


@pytest.fixture(scope="session")
def bundled() -> Callable[[str], dict]:
    """Return a real record of the repository as JSON data, by the id of its model."""
    folder = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg" / "records"
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return lambda model: copy.deepcopy(next(record for record in records if record["model"]["id"] == model))


@pytest.fixture
def scaled(bundled, tmp_path) -> Callable[..., Path]:
    """Write a bundled record as a run of other weights, its kernel distance ``factor`` times as large."""

    def write(name, factor=1.0, *, model="ddpm", **changes):
        record = bundled(model)
        record["run_id"] = f"20270101T000000Z-{name}"
        record["model"]["sha256"] = hashlib.sha256(name.encode()).hexdigest()
        for result in record["results"]:
            if result["metric"].startswith("kd"):
                result["value"] *= factor
                result["blocks"]["loo"] = [value * factor for value in result["blocks"]["loo"]]
                result["ci"] |= {"low": result["ci"]["low"] * factor, "high": result["ci"]["high"] * factor}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(record | changes), encoding="utf-8")
        return path

    return write


def make_score(metric="kd:lite", value=2.0, se=None, *, blocks=16, size=64, seed=0, **more):
    """A result whose blocks give exactly the standard error ``se``."""
    n, loo = blocks * size, ()
    if se is not None:
        noise = np.random.default_rng(seed).standard_normal(blocks)
        noise = (noise - noise.mean()) / noise.std(ddof=1) * se * blocks**0.5
        loo = tuple((value - noise / (blocks - 1)).tolist())
        reach = 2.131 * se
        more = {
            "ci": Interval(value - reach, value + reach),
            "blocks": Blocks(blocks, loo, (size,) * blocks),
        } | more
    more = {"variant": "block", "direction": "lower", "n_gen": n, "n_ref": 5000} | more
    return MetricResult(metric, more.pop("variant"), value, se=se, **more)


FIELDS = {
    "num_images": 1024,
    "reference": {"sha256": "a" * 64, "count": 5000},
    "extractor": {"name": "lite"},
}


def make_run(*results, model="ddpm", sha="a" * 64, seeds=0, day=1, fields=None, sampling=True, **more):
    """A complete record, made on the given day of January."""
    shown = FIELDS if fields is None else FIELDS | fields
    drawn = SamplingInfo(
        n=1024, seeds=Seeds(base=seeds, scheme="philox", first=seeds * 10_000, last=seeds * 10_000 + 1023),
        sampler="ddim", steps=20, nfe=20, guidance=1.0, labels="balanced by index",
    )  # fmt: skip
    values = {
        "run_id": f"202601{day:02}T000000Z-{model}-{seeds}",
        "status": "complete",
        "created_utc": f"2026-01-{day:02}T00:00:00Z",
        "model": ModelInfo(id=model, family="diffusion", format="evalkit", sha256=sha),
        "data": DataInfo(dataset="cifar10", reference_sha256="a" * 64, n_ref=5000),
        "sampling": drawn if sampling else None,
        "protocol": ProtocolInfo("embedded", shown, sha256_of(shown)),
        "inputs": Inputs(found=1024, used=1024),
        "env": {"evalkit": "0.1.0", "determinism": "standard", "accelerator": "none"},
        "results": results,
    }
    return RunRecord(**(values | more))


def make_speed(throughput=100.0, **more):
    values = {
        "scenario": "offline", "throughput": throughput, "latency_p50_ms": 10.0, "latency_p90_ms": 12.0,
        "batch_size": 64, "images": 1024, "device": "cpu", "dtype": "float32", "warmup_seconds": 0.1,
    }  # fmt: skip
    return Performance(**(values | more))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Records made by hand: ``make.run(make.score("kd:lite", 2.0, 0.1), performance=(make.speed(),))``."""
    return SimpleNamespace(score=make_score, run=make_run, speed=make_speed)
