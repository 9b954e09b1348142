"""What trackers get of a record: names that every one of them takes, and numbers as they were measured."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from evalkit.record import MetricResult
from evalkit.tracking import entry_of
from tests.tracking.fakes import make_record


def test_metrics_have_value_error_and_interval_under_one_group():
    assert dict(entry_of(make_record()).metrics) == {
        "fd_pixels/value": 3.5,
        "fd_pixels/se": 0.25,
        "fd_pixels/ci_low": 3.0,
        "fd_pixels/ci_high": 4.0,
        "fd_pixels/bias_corrected": 3.25,
        "speed_offline/throughput": 100.0,
        "speed_offline/latency_p50_ms": 10.0,
        "speed_offline/warmup_seconds": 0.5,
        "run/duration_seconds": 2.5,
    }


def test_parameters_say_what_was_judged_and_how_and_leave_out_what_is_unknown():
    entry = entry_of(make_record())
    assert dict(entry.params) == {
        "model": "vae", "family": "vae", "model_sha256": "a" * 64, "parameters": 1000, "dataset": "toy",
        "n_ref": 24, "n_gen": 16, "protocol": "pixels", "fingerprint": "f" * 64, "sampler": "prior", "nfe": 1,
        "seed": 7, "device": "cpu", "batch_size": 8,
    }  # fmt: skip
    assert dict(entry.tags) == {
        "run_id": "run-1", "status": "complete", "created_utc": "2026-01-31T12:00:00Z", "evalkit": "0.1.0",
        "torch": "2.15.0",
    }  # fmt: skip


def test_images_have_no_sampling_parameters():
    entry = entry_of(make_record(sampling=None, performance=()))
    assert not {"seed", "sampler", "device"} & set(entry.params)


def result(metric, variant="", value=1.0):
    return MetricResult(metric, variant, value, direction="lower", n_gen=16)


def names(*results):
    return [
        name.removesuffix("/value")
        for name in entry_of(make_record(results=results)).metrics
        if "/value" in name
    ]


def test_the_variant_is_named_where_the_label_does_not_say_it():
    assert names(result("kd:pixels", "thumbnail")) == ["kd_pixels"]
    assert names(result("ppl", "ppl2_wend")) == ["ppl_ppl2_wend"]


def test_another_metric_of_the_run_does_not_rename_a_curve():
    alone = names(result("ppl", "ppl2_wend"))[0]
    assert names(result("ppl", "ppl2_wend"), result("ppl", "ppl_zfull"))[0] == alone


identifiers = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,12}\Z")


@given(
    st.lists(st.tuples(identifiers, identifiers | st.just("")), unique=True, max_size=8),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_names_are_legal_everywhere_and_none_is_lost(labels, value):
    record = make_record(results=tuple(result(metric, variant, value) for metric, variant in labels))
    metrics = entry_of(record).metrics
    assert sum(name.endswith("/value") for name in metrics) == len(labels)
    assert all(math.isfinite(number) for number in metrics.values())
    # MLflow takes these characters on every system; files and nested tables take one level of groups.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+/[a-z0-9_]+", name) for name in metrics)
    folders = {str(PurePosixPath(name).parent) for name in metrics}
    assert not folders & set(metrics)


def test_names_that_become_alike_are_numbered():
    assert names(result("a:b"), result("a/b"), result("a+b")) == ["a_b", "a_b_2", "a_b_3"]
