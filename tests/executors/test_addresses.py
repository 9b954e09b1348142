"""What ``--executor`` says, and how what it cannot say is refused."""

from __future__ import annotations

import pytest

from evalkit.errors import UsageError
from evalkit.executors import RayOptions, parse_executor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", None),
        ("ray", RayOptions()),
        ("ray:auto", RayOptions(address="auto")),
        ("ray://auto", RayOptions(address="auto")),
        ("ray:10.0.0.1:6379", RayOptions(address="10.0.0.1:6379")),
        ("ray://head:10001", RayOptions(address="ray://head:10001")),
        ("ray?num_cpus=4", RayOptions(num_cpus=4.0)),
        (
            "ray:auto?num_gpus=0.5&memory=8e9&max_retries=0&a100=1",
            RayOptions(
                address="auto", num_gpus=0.5, memory=8_000_000_000, max_retries=0, resources={"a100": 1.0}
            ),
        ),
    ],
)
def test_forms(text, expected):
    assert parse_executor(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raay", "unknown executor 'raay'"),
        ("", "unknown executor ''"),
        ("ray:", "unknown executor 'ray:'"),
        ("ray://", "unknown executor 'ray://'"),
        ("local?num_cpus=2", "unknown executor 'local"),
        ("dask://head", "unknown executor 'dask://head'"),
        ("ray?num_cpus", "'num_cpus' is not of the form name=amount"),
        ("ray?num_cpus=many", "num_cpus=many is no amount"),
        ("ray?num_cpus=0", "num_cpus=0 is no amount"),
        ("ray?num_gpus=-1", "num_gpus=-1 is no amount"),
        ("ray?max_retries=1.5", r"max_retries=1\.5 is no amount"),
        ("ray?memory=inf", "memory=inf is no amount"),
        ("ray?num_cpus=1&num_cpus=2", "num_cpus is given twice"),
        ("rray://me:hunter2secret@head", r"rray://\[redacted\]@head"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_executor(text)
    assert caught.value.exit_code == 2
    assert "hunter2secret" not in caught.value.message
