"""Records: round trips, strictness, the published schema, atomic writes, identifiers and secrets."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import record as record_module
from evalkit import strict_json
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
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
    check_identifier,
    new_run_id,
    schema,
)
from evalkit.spec import Interval, Score

SHA = "0123456789abcdef" * 4


def minimal(**changes) -> RunRecord:
    base = RunRecord(
        run_id="20260131T120000.000000Z-00000000",
        status="started",
        created_utc="2026-01-31T12:00:00Z",
        model=ModelInfo(id="ddpm", family="diffusion", format="safetensors"),
        data=DataInfo(dataset="cifar10"),
        protocol=ProtocolInfo("embedded", {"num_images": 16}, SHA),
        inputs=Inputs(found=0, used=0),
    )
    return replace(base, **changes)


def full() -> RunRecord:
    result = MetricResult.from_score(
        Score(
            value=12.5,
            better="lower",
            n=1024,
            n_reference=10_000,
            stderr=0.5,
            ci=Interval(11.5, 13.5),
            bias_corrected=11.0,
            blocks=(12.0, 13.0),
            block_sizes=(512, 512),
            warnings=("small sample: 1 024 images",),
            details={"mean": 1.5},
        ),
        metric="fd:efficientnet-lite0",
        variant="block",
        unit="",
    )
    performance = Performance(
        scenario="single-stream",
        throughput=3.5,
        latency_p50_ms=280.0,
        latency_p90_ms=300.0,
        latency_p99_ms=330.0,
        nfe=50,
        parameters=35_713_027,
        flops_per_image=1.2e12,
        peak_memory_bytes=2**31,
        energy_per_image_joule=3.5,
        batch_size=1,
        images=1000,
        device="cpu",
        dtype="float32",
        warmup_seconds=0.5,
        extraction_throughput=150.0,
    )
    return minimal(
        status="complete",
        duration_seconds=12.25,
        model=ModelInfo(
            id="org/ddpm@v1",
            family="diffusion",
            format="safetensors",
            sha256=SHA,
            revision="main",
            n_params=7,
            dtype="float32",
        ),
        data=DataInfo(dataset="cifar10", split="test", resolution=32, reference_sha256=SHA, n_ref=10_000),
        sampling=SamplingInfo(
            n=1024,
            seeds=Seeds(base=0, scheme="philox", first=0, last=1023),
            sampler="ddim",
            steps=50,
            nfe=50,
            guidance=-1.5,
            labels="balanced",
        ),
        protocol=ProtocolInfo("embedded", {"z": [1, {"b": None}], "a": {"x": 1.5, "s": "é"}}, SHA),
        results=(result,),
        performance=(performance,),
        inputs=Inputs(found=1025, used=1024, rejected=("a.png: is truncated",)),
        env={"python": "3.11", "torch": None, "cuda": False, "cores": 2},
        command=("evalkit", "run"),
        notes="first try",
        warnings=("one image was rejected",),
    )


RECORDS = {
    "started": minimal(),
    "error": minimal(status="error", notes="disk full"),
    "partial": replace(full(), status="partial", performance=()),
    "complete": full(),
    "unscored images": replace(full(), sampling=None, results=()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_kind_of_record_is_valid_against_the_schema(name):
    jsonschema.Draft202012Validator(schema()).validate(RECORDS[name].to_json())


@pytest.mark.parametrize("name", RECORDS)
def test_round_trip_through_a_file(name, tmp_path):
    path = tmp_path / "runs" / "record.json"
    RECORDS[name].write(path)
    assert RunRecord.read(path) == RECORDS[name]
    first = path.read_bytes()
    RunRecord.read(path).write(path)
    assert path.read_bytes() == first
    assert first.endswith(b"}\n")
    assert b"\r" not in first


def test_the_schema_itself_is_valid_and_closed():
    jsonschema.Draft202012Validator.check_schema(schema())
    objects = [schema(), *(d for d in schema()["$defs"].values() if "properties" in d)]
    assert len(objects) == 11
    for item in objects:
        assert item["additionalProperties"] is False
        assert item["required"] == list(item["properties"])


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ("model", ModelInfo),
        ("data", DataInfo),
        ("seeds", Seeds),
        ("sampling", SamplingInfo),
        ("protocol", ProtocolInfo),
        ("interval", Interval),
        ("blocks", Blocks),
        ("result", MetricResult),
        ("performance", Performance),
        ("inputs", Inputs),
        (None, RunRecord),
    ],
)
def test_schema_and_dataclasses_have_the_same_keys_in_the_same_order(definition, kind):
    part = schema() if definition is None else schema()["$defs"][definition]
    names = [field.metadata.get("key", field.name) for field in dataclasses.fields(kind)]
    assert list(part["properties"]) == names


def test_key_order_does_not_depend_on_the_order_of_mappings():
    one = minimal(env={"a": 1, "b": 2})
    other = minimal(env={"b": 2, "a": 1})
    assert strict_json.dumps(one.to_json()) == strict_json.dumps(other.to_json())


def test_performance_is_written_as_perf():
    data = full().to_json()
    assert "performance" not in data
    assert data["perf"][0]["throughput"] == 3.5


def every_object(data, path=()):
    if isinstance(data, dict):
        # Free mappings take any key.
        if path[-1:] not in {("env",), ("details",)} and "fields" not in path:
            yield path
        for key, value in data.items():
            yield from every_object(value, (*path, key))
    elif isinstance(data, list):
        for position, value in enumerate(data):
            yield from every_object(value, (*path, position))


def at(data, path):
    for step in path:
        data = data[step]
    return data


@pytest.mark.parametrize("path", list(every_object(full().to_json())), ids=str)
def test_an_unknown_key_is_refused_anywhere(path):
    data = full().to_json()
    at(data, path)["nonsense"] = 1
    with pytest.raises(InvalidInputError, match=r"unknown key .*nonsense") as caught:
        RunRecord.from_json(data)
    assert caught.value.hint
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(data))


@pytest.mark.parametrize("path", list(every_object(full().to_json())), ids=str)
def test_a_missing_key_is_refused_anywhere(path):
    for key in at(full().to_json(), path):
        data = full().to_json()
        del at(data, path)[key]
        with pytest.raises(InvalidInputError):
            RunRecord.from_json(data)
        assert list(jsonschema.Draft202012Validator(schema()).iter_errors(data))


def test_an_unknown_key_suggests_the_right_one():
    data = full().to_json()
    data["modle"] = data.pop("model")
    with pytest.raises(InvalidInputError) as caught:
        RunRecord.from_json(data)
    assert caught.value.hint == "did you mean 'model'?"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), "done"),
        (("status",), ["complete"]),
        (("results",), {}),
        (("results", 0, "value"), "12"),
        (("results", 0, "value"), True),
        (("results", 0, "value"), None),
        (("results", 0, "value"), 10**400),
        (("results", 0, "n_gen"), 1.5),
        (("results", 0, "n_gen"), -1),
        (("results", 0, "se"), -0.1),
        (("results", 0, "direction"), "up"),
        (("results", 0, "metric"), "=SUM(A1)"),
        (("results", 0, "variant"), "<b>"),
        (("results", 0, "warnings"), "text"),
        (("results", 0, "details"), {"a": "b"}),
        (("results", 0, "blocks", "count"), 3),
        (("results", 0, "blocks", "sizes"), [1]),
        (("results", 0, "ci", "low"), 99.0),
        (("results", 0, "ci", "level"), 95),
        (("model", "id"), "../../etc/passwd"),
        (("model", "sha256"), "abc"),
        (("model",), []),
        (("created_utc",), "yesterday"),
        (("created_utc",), "2026-13-31T12:00:00Z"),
        (("command",), "evalkit run"),
        (("command",), [1]),
        (("env",), {"a": [1]}),
        (("inputs", "found"), "many"),
        (("perf", 0, "scenario"), "server"),
        (("protocol", "fields"), []),
    ],
    ids=str,
)
def test_wrong_values_are_refused(path, value):
    data = full().to_json()
    at(data, path[:-1])[path[-1]] = value
    with pytest.raises(InvalidInputError):
        RunRecord.from_json(data)


@pytest.mark.parametrize("other", [None, "evalkit.run/2", 1])
def test_another_schema_is_refused(other):
    with pytest.raises(InvalidInputError, match=r"evalkit\.run/1") as caught:
        RunRecord.from_json({**full().to_json(), "schema": other})
    assert caught.value.hint


@pytest.mark.parametrize("document", [[], None, 3, "x", {}])
def test_what_is_no_record_is_refused(document):
    with pytest.raises(InvalidInputError, match="schema is None"):
        RunRecord.from_json(document)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"schema": NaN}', '{"a": Infinity}', '{"a": 1, "a": 1}', "[" * 100_000, "1" * 5000],
    ids=["empty", "cut", "nan", "infinity", "twice", "deep", "digits"],
)
def test_text_that_is_not_strict_json_is_refused(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"record\.json: "):
        RunRecord.read(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        RunRecord.read(path)


def test_a_number_that_overflows_is_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(strict_json.dumps(full().to_json()).replace("12.5", "1e999"))
    with pytest.raises(InvalidInputError, match="finite"):
        RunRecord.read(path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_never_written(bad, tmp_path):
    path = tmp_path / "record.json"
    for record in (
        minimal(env={"x": bad}),
        minimal(protocol=ProtocolInfo("p", {"a": [{"b": bad}]}, SHA)),
        replace(full(), results=(replace(full().results[0], details={"mean": bad}),)),
    ):
        with pytest.raises(InvalidInputError, match="finite"):
            record.write(path)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_json_form_is_a_programming_error():
    with pytest.raises(TypeError, match=r"protocol\.fields\.a"):
        minimal(protocol=ProtocolInfo("p", {"a": object()}, SHA)).to_json()
    with pytest.raises(TypeError, match="keys"):
        minimal(protocol=ProtocolInfo("p", {1: "a"}, SHA)).to_json()


def test_a_metric_appears_once():
    result = full().results[0]
    with pytest.raises(InvalidInputError, match="twice"):
        minimal(results=(result, result))
    minimal(results=(result, replace(result, variant="pooled")))


def test_from_score_takes_numpy_numbers_and_keeps_everything():
    score = Score(
        value=np.float64(1.5), better="higher", n=np.int64(8), stderr=np.float32(0.5),
        blocks=(np.float32(1.0), np.float32(2.0)), block_sizes=(np.int64(4), np.int64(4)),
    )  # fmt: skip
    result = MetricResult.from_score(score, metric="is", variant="")
    assert result == MetricResult(
        "is", "", 1.5, direction="higher", se=0.5, n_gen=8, blocks=Blocks(2, (1.0, 2.0), (4, 4))
    )
    assert type(result.value) is float
    minimal(results=(result,)).to_json()
    assert full().results[0].ci == Interval(11.5, 13.5)
    assert full().results[0].details == {"mean": 1.5}


def test_undecodable_file_names_are_escaped(tmp_path):
    path = tmp_path / "record.json"
    minimal(inputs=Inputs(found=1, used=0, rejected=("caf\udce9.png: is truncated",))).write(path)
    assert RunRecord.read(path).inputs.rejected == ("caf\\udce9.png: is truncated",)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,20}", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, allow_infinity=False)
counts = st.integers(0, 2**63)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | numbers | st.text()
json_data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def results(draw):
    loo = tuple(draw(st.lists(numbers, max_size=4)))
    low, high = sorted([draw(numbers), draw(numbers)])
    return MetricResult(
        draw(names),
        draw(names | st.just("")),
        draw(numbers),
        unit=draw(st.text(max_size=5)),
        direction=draw(st.sampled_from(["lower", "higher"])),
        se=draw(st.none() | positive),
        ci=draw(st.none() | st.just(Interval(low, high))),
        n_gen=draw(counts),
        n_ref=draw(counts),
        blocks=Blocks(len(loo), loo, tuple(range(len(loo)))),
        bias_corrected=draw(st.none() | numbers),
        warnings=tuple(draw(st.lists(st.text(), max_size=2))),
        details=draw(st.dictionaries(st.text(), numbers, max_size=2)),
    )


@st.composite
def records(draw):
    return replace(
        full(),
        run_id=new_run_id(),
        status=draw(st.sampled_from(["started", "complete", "partial", "error"])),
        duration_seconds=draw(positive),
        model=ModelInfo(
            id=draw(names), family=draw(names), format=draw(st.text(max_size=5)), n_params=draw(counts)
        ),
        protocol=ProtocolInfo(draw(names), draw(st.dictionaries(st.text(), json_data, max_size=3)), SHA),
        results=tuple(draw(st.lists(results(), max_size=2, unique_by=lambda r: (r.metric, r.variant)))),
        env=draw(st.dictionaries(st.text(), scalars, max_size=3)),
        command=tuple(draw(st.lists(st.text(), max_size=3))),
        notes=draw(st.text()),
    )


@settings(max_examples=40, deadline=None)
@given(records())
def test_round_trip_law(record):
    text = strict_json.dumps(record.to_json())
    again = RunRecord.from_json(strict_json.loads(text))
    assert again == record
    assert strict_json.dumps(again.to_json()) == text
    jsonschema.Draft202012Validator(schema()).validate(json.loads(text))


@pytest.mark.fault("disk-full")
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    minimal().write(path)
    before = path.read_bytes()

    def full_disk(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(TemporaryError, match="No space left"):
        full().write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_any_place_that_cannot_be_written_is_temporary_and_named(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(TemporaryError, match=r"record\.json: Is a directory"):
        minimal().write(tmp_path / "record.json")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("good", ["a", "0", "org/model@v1.2+x:y_z-w", "a" * 200])
def test_identifiers(good):
    assert check_identifier(good) == good


@pytest.mark.parametrize(
    "bad", ["", "-a", "=1", "@x", "a b", "a\n", "ä", "a" * 201, "<script>", "../x", "a,b", "٣"]
)
def test_bad_identifiers(bad):
    with pytest.raises(UsageError, match="model id") as caught:
        check_identifier(bad)
    assert caught.value.hint
    with pytest.raises(UsageError):
        ModelInfo(id=bad, family="gan", format="safetensors")


def test_run_ids_sort_by_time_and_do_not_repeat():
    ids = [new_run_id() for _ in range(200)]
    assert len(set(ids)) == 200
    assert [i.split("-")[0] for i in ids] == sorted(i.split("-")[0] for i in ids)
    assert all(check_identifier(i) for i in ids)


def test_public_names_exist():
    assert all(hasattr(record_module, name) for name in record_module.__all__)


def test_import_is_light():
    code = "import sys, evalkit.record; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
