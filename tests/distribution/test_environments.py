"""The record of merged parts says where they were computed; those of another release are refused."""

from __future__ import annotations

import json

import pytest

from evalkit.console import Silent
from evalkit.distribution.environments import MERGED_WITH, common_environment
from evalkit.distribution.manifest import PartManifest
from evalkit.distribution.merging import merge
from evalkit.distribution.parts import compute
from evalkit.errors import InvalidInputError
from evalkit.shards import Part


def test_one_environment_is_itself():
    env = {"torch": "2", "threads": 4, "onnxruntime": None}
    assert common_environment([env, dict(env)], env) == (env, ())


def test_values_that_differ_are_all_named_and_warned_of():
    first, second = {"torch": "2.1", "onnxruntime": None}, {"torch": "2.2", "onnxruntime": "1.0"}
    env, warnings = common_environment([first, second, first], first)
    assert env == {
        "torch": "2.1, 2.2",
        "onnxruntime": "none, 1.0",
        MERGED_WITH: "torch 2.1, onnxruntime none",
    }
    told = "torch is 2.1 and 2.2; onnxruntime is none and 1.0"
    assert warnings == (f"the parts were computed in different environments: {told}",)


@pytest.fixture
def parts(asked, tmp_path):
    """Two manifests, changed by a function before they are merged; gives what merges them."""
    request = asked(num_samples=40)
    paths = [
        compute(request, console=Silent(), part=Part(index, 2)).manifest.write(request.out)
        for index in (0, 1)
    ]

    def merged(change):
        for number, path in enumerate(paths):
            data = json.loads(path.read_text())
            change(number, data)
            path.write_text(json.dumps(data))
        return merge([request.out], tmp_path / "merged", console=Silent())

    return merged


def test_the_record_has_the_environment_of_the_parts(parts):
    (record,) = parts(lambda number, data: data["env"].update(torch="0.1", threads=number + 7))
    assert record.env["torch"] == "0.1"
    assert record.env["threads"] == "7, 8"
    assert "torch " in str(record.env[MERGED_WITH])
    assert "the parts were computed in different environments: threads is 7 and 8" in record.warnings


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data["env"].update(evalkit="0.0.1"), "computed by evalkit 0.0.1, and this is evalkit "),
        (lambda data: data["env"].pop("evalkit"), "computed by evalkit of no known release"),
        (lambda data: data.update(env=[]), "computed by evalkit of no known release"),
        (
            lambda data: data["identity"]["protocol"].update(numerics_version="0"),
            "computed by numerics 0, and this is numerics ",
        ),
    ],
)
def test_parts_of_another_release_are_refused(parts, change, told):
    with pytest.raises(InvalidInputError, match=told) as caught:
        parts(lambda number, data: change(data) if number else None)
    assert "-part-2-of-2.json: " in caught.value.message
    assert "merge with the release that computed the parts" in str(caught.value.hint)


@pytest.mark.parametrize("text", [None, b"\xff", b"{}"])
def test_every_manifest_that_cannot_be_read_says_what_to_do(tmp_path, text):
    path = tmp_path / "part.json"
    path.mkdir() if text is None else path.write_bytes(text)
    with pytest.raises(InvalidInputError) as caught:
        PartManifest.read(path)
    assert caught.value.hint
