"""Numeric parameters of metrics out of range are wrong usage, refused before anything is read."""

import dataclasses
import math
import typing

import pytest

from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.protocol import PROTOCOLS
from evalkit.selection import NAMED

NAN, INFINITE = math.nan, math.inf

OUT_OF_RANGE = {
    ("accuracy", "k"): [0, -1],
    ("clip-score", "scale"): [0, -2.5, NAN, INFINITE],
    ("cmmd", "sigma"): [0, -10, NAN, INFINITE],
    ("cmmd", "scale"): [0, -1, NAN, INFINITE],
    ("coverage", "k"): [0, -1],
    ("ct", "cells"): [0, -1],
    ("ct", "components"): [0, -1],
    ("ct", "more_than"): [-1],
    ("density", "k"): [0, -1],
    ("f-score", "k"): [0, -1],
    ("f-score", "beta"): [0, -1, NAN, INFINITE],
    ("fd", "report_at"): [-1],
    ("fd-infinity", "points"): [1, 0, -1],
    ("fd-infinity", "fraction"): [0, -0.1, 1, 1.5, NAN],
    ("fld", "size"): [1, 0, -1],
    ("is", "splits"): [0, -1],
    ("is", "chunk_size"): [0, -1],
    ("is", "shuffle_seed"): [-1, 1 << 32],
    ("kd", "subsets"): [0, -1],
    ("kd", "subset_size"): [1, 0, -1],
    ("mifd", "epsilon"): [0, -0.1, 1.1, NAN],
    ("ppl", "epsilon"): [0, -1e-4, 1, NAN],
    ("ppl", "lower"): [-1, 99, 100, NAN],
    ("ppl", "higher"): [1, 0, 101, NAN],
    ("precision", "k"): [0, -1],
    ("realism", "k"): [0, -1],
    ("recall", "k"): [0, -1],
    ("separability", "attributes"): [0, -1],
    ("separability", "keep"): [0, -0.5, 1.1, NAN],
    ("separability", "c"): [0, -1, NAN, INFINITE],
    ("vendi", "order"): [0, -1, NAN, INFINITE, "infinite"],
    ("vendi", "rank"): [-1],
}

ANY_VALUE: dict[tuple[str, str], str] = {}
"""Why a numeric parameter has no bound; none is without one so far."""

BESIDE = {("kd", "subset_size"): {"subsets": 10}}
"""What else a parameter needs, so that nothing but its own value is refused."""

EDGES = [
    ("ct", {"cells": 1, "components": 1, "more_than": 0}),
    ("fd-infinity", {"points": 2}),
    ("fld", {"size": 2}),
    ("is", {"splits": 1, "shuffle_seed": (1 << 32) - 1}),
    ("is", {"chunk_size": 1, "shuffle_seed": 0}),
    ("kd", {"subsets": 1, "subset_size": 2}),
    ("mifd", {"epsilon": 1}),
    ("ppl", {"lower": 0, "higher": 100}),
    ("precision", {"k": 1}),
    ("separability", {"keep": 1}),
    ("vendi", {"order": "inf"}),
]


def numeric(name):
    """Parameters of a metric that may be an int or a float."""
    hints = typing.get_type_hints(METRICS[name])
    kinds = {field.name: hints[field.name] for field in dataclasses.fields(METRICS[name])}
    return {key for key, kind in kinds.items() if {int, float} & {kind, *typing.get_args(kind)}}


def rebuilt(metric):
    return METRICS[metric.name](**dict(metric.spec.params))


def test_the_tables_name_every_numeric_parameter_and_no_other():
    expected = {(name, parameter) for name in METRICS for parameter in numeric(name)}
    assert set(OUT_OF_RANGE) | set(ANY_VALUE) == expected
    assert not set(OUT_OF_RANGE) & set(ANY_VALUE)
    assert all(OUT_OF_RANGE.values())
    assert all(ANY_VALUE.values())


@pytest.mark.parametrize(
    ("name", "parameter", "bad"), [(*key, bad) for key, values in OUT_OF_RANGE.items() for bad in values]
)
def test_out_of_range_is_wrong_usage(name, parameter, bad):
    beside = BESIDE.get((name, parameter), {})
    METRICS[name](**beside)
    with pytest.raises(UsageError) as caught:
        METRICS[name](**beside, **{parameter: bad})
    assert str(bad) in caught.value.message


@pytest.mark.parametrize(("name", "params"), EDGES)
def test_the_ends_of_a_range_belong_to_it(name, params):
    metric = METRICS[name](**params)
    assert rebuilt(metric) == metric
    assert metric.minimum_images >= 1


@pytest.mark.parametrize(
    ("name", "ignored", "needed"),
    [
        ("kd", {"subset_size": 50}, {"subsets": 100}),
        ("is", {"chunk_size": 5000, "splits": 5}, {"chunk_size": None}),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(name, ignored, needed):
    ((key, value),) = needed.items()
    with pytest.raises(UsageError) as caught:
        METRICS[name](**ignored)
    assert f"--param {name}.{key}={'null' if value is None else value}" in caught.value.hint
    metric = METRICS[name](**ignored | needed)
    assert rebuilt(metric) == metric


def test_what_protocols_and_published_names_ask_for_is_in_range():
    asked = [request for name in PROTOCOLS for request in PROTOCOLS[name].metrics] + list(NAMED.values())
    for request in asked:
        metric = METRICS[request.metric](**dict(request.params))
        assert rebuilt(metric) == metric
