"""Records of different protocols are refused, field by field, with a remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.errors import NotComparableError
from evalkit.record import ProtocolInfo
from evalkit.reporting.comparability import differing_fields
from evalkit.reporting.table import comparison_table


def test_fingerprints_are_not_mixed(make):
    other = {
        "num_images": 50_000,
        "numerics_version": "2",
        "image_size": None,
        "rejected_images": 3,
        "extractor": {"kind": "extractor", "name": "inception-v3", "sha256": "f" * 64},
        "reference": {"sha256": "b" * 64, "count": 10_000},
        "metrics": [{"kind": "metric", "name": "fd", "head": "2048"}],
    }
    records = [
        make.record("a", make.result("fd", 1.0)),
        make.record("b", make.result("fd", 1.0)),
        make.record("c", make.result("fd", 1.0), fields=other, protocol="standard"),
    ]
    with pytest.raises(NotComparableError) as caught:
        comparison_table(records)
    message, hint = caught.value.message, caught.value.hint
    assert caught.value.exit_code == 3
    for line in (
        "c and a were measured differently:",
        "  num_images: 50000 against 1024",
        "  extractor.name: inception-v3 against efficientnet-lite0",
        "  reference.sha256: bbbbbbbbbbbb…bbbbbbbbbbbb against aaaaaaaaaaaa…aaaaaaaaaaaa",
        "  metrics[fd@2048]: present against absent",
        "  metrics[kd@block]: absent against present",
        "  image_size: null against [32,32]",
    ):
        assert line in message.splitlines()
    assert "b and" not in message
    for part in (
        "--protocol embedded",
        "--num-samples 1024",
        "--reference",
        "--metrics",
        "release of evalkit",
    ):
        assert part in hint
    assert "to compare c with a" in hint


def test_each_foreign_fingerprint_is_explained_once(make):
    records = [make.record(n, make.result("fd", 1.0)) for n in "ab"]
    records += [make.record(n, make.result("fd", 1.0), fields={"num_images": 9}) for n in "c"]
    records += [make.record(n, make.result("fd", 1.0), fields={"num_images": 7}) for n in "de"]
    with pytest.raises(NotComparableError) as caught:
        comparison_table(records)
    assert caught.value.message.count("measured differently") == 2
    assert caught.value.message.count("num_images") == 2


def test_one_model_under_two_protocols_is_told_apart_by_run(make):
    records = [
        make.record("a", make.result("fd", 1.0), run_id="r1"),
        make.record("a", make.result("fd", 1.0), fields={"num_images": 9}, run_id="r2"),
    ]
    with pytest.raises(NotComparableError, match=r"a \(r2\) and a \(r1\)"):
        comparison_table(records)


def test_equal_fields_with_different_fingerprints_are_still_refused(make):
    first = make.record("a", make.result("fd", 1.0))
    second = replace(first, protocol=ProtocolInfo("embedded", first.protocol.fields, "other"))
    with pytest.raises(NotComparableError, match="no recorded field") as caught:
        comparison_table([first, second])
    assert "--protocol embedded" in caught.value.hint


def test_differing_fields_are_flat():
    one = {"a": {"b": 1, "c": {"d": [1, 2]}}, "same": "x", "only": True}
    other = {"a": {"b": 2, "c": {"d": [1, 3]}}, "same": "x"}
    assert differing_fields(one, other) == {
        "a.b": ("1", "2"),
        "a.c.d": ("[1,2]", "[1,3]"),
        "only": ("true", "absent"),
    }
