"""Checks against published numbers: what runs, what is compared, and what is said where nothing can run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from evalkit.cli.verify import verify as command
from evalkit.console import Silent
from evalkit.errors import InvalidInputError, NotComparableError, OfflineError, UsageError
from evalkit.generators.toy import GaussianTiles
from evalkit.protocol import PROTOCOLS
from evalkit.references import REGISTERED
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.verification import PUBLISHED, DataFile, Expected, VerifyRequest, select_checks, verify

ADM = next(check for check in PUBLISHED if check.name == "adm-imagenet256")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))


def toy_check(value: float, tolerance: float):
    """The same machinery on images that are here, under a protocol that needs no weights."""
    return replace(
        ADM,
        name="toy",
        protocol="pixels",
        num_samples=200,
        metrics=("fd",),
        expected=(Expected("fd:pixels", value, tolerance),),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    for key, base in (("adm-samples", 0), ("adm-reference", 5)):
        images = GaussianTiles().generate(image_seeds(base, np.arange(200))).numpy()
        write_samples(folder / f"{key}.npz", images, labels=None)
    return {key: folder / f"{key}.npz" for key in ("adm-samples", "adm-reference")}


def test_the_table_is_whole():
    names = [check.name for check in PUBLISHED]
    assert len(set(names)) == len(names)
    for check in PUBLISHED:
        assert check.protocol in PROTOCOLS
        assert check.expected
        assert check.source
        assert all(expected.tolerance > 0 for expected in check.expected)
        for part in (check.images, check.reference):
            assert part is None or isinstance(part, DataFile) or part in REGISTERED
            assert not isinstance(part, DataFile) or part.url.startswith("https://")


def test_a_measurement_is_compared_with_its_tolerance(files, tmp_path):
    request = VerifyRequest(files=files, out=tmp_path)
    (first,) = verify([toy_check(0.0, 1e9)], request, console=Silent())
    assert first.status == "agrees"
    measured = first.measured["fd:pixels"]
    assert measured > 0
    (near,) = verify([toy_check(measured * 1.01, measured * 0.02)], request, console=Silent())
    (far,) = verify([toy_check(measured * 1.01, measured * 0.005)], request, console=Silent())
    assert (near.status, far.status) == ("agrees", "DIFFERS")


def test_what_is_missing_is_said_with_where_to_get_it(tmp_path):
    outcomes = verify(PUBLISHED, VerifyRequest(out=tmp_path), console=Silent())
    assert {outcome.status for outcome in outcomes} == {"not run"}
    by_name = {outcome.check.name: outcome.missing for outcome in outcomes}
    assert "CIFAR-10" in by_name["cifar10-test-fid"]
    assert "VIRTUAL_imagenet256_labeled.npz" in by_name["adm-imagenet256"]
    assert "--file adm-samples=PATH" in by_name["adm-imagenet256"]


def test_missing_weights_are_missing_and_no_failure(files, tmp_path):
    (outcome,) = verify(
        [replace(ADM, num_samples=200)], VerifyRequest(files=files, out=tmp_path), console=Silent()
    )
    assert outcome.status == "not run"
    assert "InceptionV3" in outcome.missing


def test_other_failures_are_not_swallowed(files, tmp_path):
    with pytest.raises(InvalidInputError, match="fewer than"):
        verify(
            [replace(toy_check(0, 1), num_samples=999)],
            VerifyRequest(files=files, out=tmp_path),
            console=Silent(),
        )


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no check 'adm'"):
        select_checks(["adm"])
    with pytest.raises(UsageError, match="no check needs a file 'adm-sample'"):
        verify(PUBLISHED, VerifyRequest(files={"adm-sample": tmp_path}, out=tmp_path), console=Silent())


def test_the_command_prints_every_published_value_and_leaves_with_75(tmp_path):
    result = CliRunner().invoke(command, ["--format", "json", "--out", str(tmp_path)])
    rows = json.loads(result.stdout)
    assert {row["published"] for row in rows} >= {3.1508, 11.24, 3.9426, 6.1404, 215.837, 0.8265, 0.5309}
    assert all(row["measured"] is None for row in rows)
    assert isinstance(result.exception, OfflineError)
    assert "was not run" in result.stderr


def test_a_difference_leaves_with_3(files, tmp_path, monkeypatch):
    monkeypatch.setattr("evalkit.verification.PUBLISHED", (toy_check(1e6, 1.0),))
    flags = [f"--file={key}={path}" for key, path in files.items()]
    result = CliRunner().invoke(command, [*flags, "--out", str(tmp_path)])
    assert isinstance(result.exception, NotComparableError)
    assert "DIFFERS" in result.stdout
