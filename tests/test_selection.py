"""What may be typed after --metrics, and the names that are printed."""

from __future__ import annotations

import pytest

from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.protocol import PROTOCOLS, MetricRequest
from evalkit.selection import NAMED, metric_label, select

ROLES = {name: METRICS[name]().head for name in METRICS}


def chosen(protocol: str, *names: str, **params) -> tuple[MetricRequest, ...]:
    return select(PROTOCOLS[protocol], names, roles=ROLES, params=params)


def test_no_names_are_the_protocols_own():
    assert chosen("embedded") == PROTOCOLS["embedded"].metrics


@pytest.mark.parametrize(
    ("protocol", "text", "expected"),
    [
        ("embedded", "fd", MetricRequest("fd", "block")),
        ("embedded", "fd@pooled", MetricRequest("fd", "pooled")),
        ("embedded", "fd:pixels", MetricRequest("fd", "pixels", extractor="pixels")),
        ("embedded", "fid:inception-v3", MetricRequest("fd", "2048", extractor="inception-v3")),
        (
            "embedded",
            "fd:inception-v3/clean-fid@192",
            MetricRequest("fd", "192", extractor="inception-v3", preset="clean-fid"),
        ),
        ("standard", "fid", MetricRequest("fd", "2048")),
        ("standard", "fd:inception-v3", MetricRequest("fd", "2048", extractor="inception-v3")),
        ("embedded", "fd:efficientnet-lite0", MetricRequest("fd", "block")),
        ("embedded", "sfid", NAMED["sfid"]),
        ("adm", "kd", MetricRequest("kd", "2048")),
    ],
)
def test_names(protocol, text, expected):
    (request,) = chosen(protocol, text)
    assert request == expected


def test_a_metric_the_protocol_does_not_list_reads_the_head_of_its_role():
    (request,) = chosen("embedded", "is")
    assert request.head == "logits"
    (request,) = chosen("pytorch-fid", "is")  # the preset lists features only
    assert request.head == "logits_unbiased"


def test_parameters_join_those_of_the_protocol():
    (kd,) = chosen("standard", "kid", kd={"subsets": 10})
    assert dict(kd.params) == {"subset_size": 1000, "subsets": 10}


@pytest.mark.parametrize(
    ("names", "params", "message"),
    [
        (("fid",), {}, "only with the real InceptionV3"),
        (("fid:pixels",), {}, "only with the real InceptionV3"),
        (("fdd",), {}, "unknown metric"),
        (("fd:pixel",), {}, "unknown extractor"),
        (("fd:pixels/tall",), {}, "no preset"),
        (("fd",), {"kd": {"subsets": 1}}, "not among the metrics"),
    ],
)
def test_refusals(names, params, message):
    with pytest.raises(UsageError, match=message):
        chosen("embedded", *names, **params)


def test_a_name_asked_for_twice_is_computed_once():
    assert len(chosen("embedded", "fd", "fd", "fd@block")) == 1


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        (("fd", "2048", "inception-v3", "fid", True), "fid"),
        (("kd", "2048", "inception-v3", "adm", True), "kid"),
        (("fd", "2048", "inception-v3", "clean-fid", True), "fid:clean-fid"),
        (("fd", "2048", "inception-v3", "fid", False), "fd:inception-v3@1a2b3c4d"),
        (("fd", "spatial", "inception-v3", "adm", True), "sfid"),
        (("fd", "192", "inception-v3", "fid", True), "fd:inception-v3/192"),
        (("is", "logits_unbiased", "inception-v3", "fid", True), "is"),
        (("fd", "block", "efficientnet-lite0", None, True), "fd:efficientnet-lite0"),
        (("mifd", "2048", "inception-v3", "fid", True), "mifid"),
    ],
)
def test_printed_names(facts, label):
    metric, head, extractor, preset, published = facts
    printed = metric_label(
        metric=metric,
        head=head,
        extractor=extractor,
        preset=preset,
        sha256="1a2b3c4d" * 8,
        published=published,
    )
    assert printed == label
