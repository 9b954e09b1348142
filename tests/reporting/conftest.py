"""Records of three imaginary models, measured alike."""

from __future__ import annotations

import pytest

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

FIELDS = {
    "extractor": {"kind": "extractor", "name": "efficientnet-lite0", "sha256": "e" * 64},
    "metrics": [
        {"kind": "metric", "name": "fd", "head": "block"},
        {"kind": "metric", "name": "kd", "head": "block"},
    ],
    "num_images": 1024,
    "numerics_version": "1",
    "image_size": [32, 32],
    "rejected_images": 0,
    "reference": {"sha256": "a" * 64, "count": 10_000},
}


def make_result(metric, value, se=None, *, direction="lower", warnings=(), **more):
    ci = Interval(value - 2 * se, value + 2 * se) if se else None
    return MetricResult(
        metric, more.pop("variant", ""), value, direction=direction, se=se, ci=ci, n_gen=1024, n_ref=10_000,
        warnings=tuple(warnings), **more,
    )  # fmt: skip


def make_performance(**changes):
    values = {
        "scenario": "offline", "throughput": 10.0, "latency_p50_ms": 100.0, "latency_p90_ms": 110.0,
        "batch_size": 8, "images": 64, "device": "cpu", "dtype": "float32", "warmup_seconds": 0.1, **changes,
    }  # fmt: skip
    return Performance(**values)


def make_record(
    name="ddpm", *results, family="diffusion", performance=(), fields=None, protocol="embedded", **changes
):
    fields = FIELDS if fields is None else {**FIELDS, **fields}
    values = {
        "status": "complete",
        "created_utc": "2026-01-31T12:00:00Z",
        "model": ModelInfo(id=name, family=family, format="safetensors"),
        "data": DataInfo(
            dataset="cifar10", split="train", resolution=32, reference_sha256="a" * 64, n_ref=10_000
        ),
        "protocol": ProtocolInfo(protocol, fields, f"print-{abs(hash(str(fields)))}"),
        "results": results,
        "performance": tuple(performance),
        "inputs": Inputs(found=1024, used=1024),
        **changes,
    }
    return RunRecord(**values)


def make_sampling(nfe):
    return SamplingInfo(
        n=1024, seeds=Seeds(base=0, scheme="philox", first=0, last=1023), sampler="ddim", nfe=nfe
    )


@pytest.fixture
def make():
    """Builders as one namespace: ``make.record("a", make.result("fd", 1.0))``."""

    class Make:
        record = staticmethod(make_record)
        result = staticmethod(make_result)
        performance = staticmethod(make_performance)
        sampling = staticmethod(make_sampling)

    return Make


@pytest.fixture
def three(make):
    def one(name, family, fd, *, speed, nfe):
        return make.record(
            name,
            make.result("fd:lite", fd, 0.5),
            make.result("is:lite", 10 - fd / 10, 0.05, direction="higher"),
            family=family,
            sampling=make.sampling(nfe),
            performance=[
                make.performance(throughput=speed, latency_p50_ms=1000 / speed, parameters=nfe * 1000)
            ],
        )

    return [
        one("gan", "gan", 30.0, speed=1000.0, nfe=1),
        one("ddpm", "diffusion", 20.0, speed=10.0, nfe=50),
        one("vae", "vae", 50.0, speed=2000.0, nfe=1),
    ]
