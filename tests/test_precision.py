"""`--precision fast`: a protocol of its own, in its fingerprint and in every name that is printed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from evalkit.errors import UsageError
from evalkit.plan import make_plan
from evalkit.protocol import EvalProtocol, MeasuredMetric
from evalkit.request import ScoreRequest
from evalkit.spec import Spec

EXACT = Spec.of("extractor", "inception-v3", sha256="1a2b3c4d" * 8, resizer="tf1")
FAST = Spec.of("extractor", "inception-v3", sha256="1a2b3c4d" * 8, resizer="tf1", precision="fast")


@dataclass(frozen=True)
class Network:
    """What a plan asks an extractor when it prints a name."""

    spec: Spec
    published: bool = True


def protocol(extractor: Spec) -> EvalProtocol:
    return EvalProtocol(
        name="standard",
        extractor=extractor,
        metrics=(MeasuredMetric(Spec.of("metric", "fd"), "2048"),),
        num_images=50_000,
        image_size=(32, 32),
        reference_sha256="0" * 64,
        reference_count=50_000,
        numerics_version="3",
        seed_scheme="s",
    )


def test_fast_and_exact_never_share_a_fingerprint_and_say_which_arithmetic_ran():
    exact, fast = protocol(EXACT), protocol(FAST)
    assert exact.fingerprint() != fast.fingerprint()
    differing = {key for key in exact.fields() if exact.fields()[key] != fast.fields()[key]}
    assert differing == {"extractor", "dtype_policy"}
    assert "bfloat16" in fast.fields()["dtype_policy"]
    assert "float32" in exact.fields()["dtype_policy"]


def test_every_printed_name_of_a_fast_network_says_so():
    request = ScoreRequest(
        images="x", reference="y", metrics=("fid", "kid", "is", "cmmd"), protocol="standard"
    )
    plan = make_plan("standard", request=request, notify=lambda _text: None)
    exact = [plan.label(planned, Network(EXACT)) for planned in plan.metrics]
    fast = [plan.label(planned, Network(FAST)) for planned in plan.metrics]
    assert exact[:3] == ["fid", "kid", "is"]
    assert fast == [f"{name}:fast" for name in exact]
    other = replace(plan.metrics[0], label="clip-fid")
    assert plan.label(other, Network(FAST, published=False)) == "clip-fid:inception-v3@1a2b3c4d:fast"


def test_strict_determinism_needs_exact_float32():
    request = ScoreRequest(model="cgan", strict=True, precision="fast")
    with pytest.raises(UsageError, match="--precision fast does not go with --determinism strict"):
        request.check()
    replace(request, strict=False).check()
