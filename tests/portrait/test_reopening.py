"""From a record to the request that makes its images again, and the refusals on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evalkit.cli.report import asked_for
from evalkit.console import Silent
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.plan import make_plan
from evalkit.portrait.reopening import check_same, restored
from evalkit.record import ProtocolInfo, RunRecord
from evalkit.request import ScoreRequest
from evalkit.subject_opening import open_subject
from evalkit.subjects import Subject

RECORDS = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg" / "records"


@pytest.fixture(scope="module")
def board() -> dict[str, RunRecord]:
    """The published records of the bundled models: one command scored all of them."""
    found = sorted((RunRecord.read(path) for path in RECORDS.glob("*.json")), key=lambda r: r.run_id)
    return {record.model.id: record for record in reversed(found)}


def again(record: RunRecord, **changes: object) -> ScoreRequest:
    settings = {"ckpt": None, "model": None, "device": "cpu"} | changes
    return restored(record, asked_for(record), **settings)  # type: ignore[arg-type]


def opened(request: ScoreRequest) -> Subject:
    plan = make_plan(request.protocol, request=request, notify=lambda _text: None)
    return open_subject(request, plan, device=torch.device("cpu"), console=Silent())


@pytest.mark.parametrize("name", ["cgan", "ddpm", "gated-pixelcnn", "sngan", "stylegan", "vae", "vq-vae"])
def test_published_records_open_again(board, name):
    """Of a command with seven models the right one, with its sampler, steps and seeds."""
    record = board[name]
    request = again(record)
    assert (request.model, request.num_samples, request.seed) == (name, 1024, 0)
    subject = opened(request)
    check_same(subject, record)
    assert subject.sampling == replace(record.sampling, nfe=None)


def test_a_sampler_of_the_command_is_kept(board):
    record = board["vae-mixture"]
    assert again(record).sampling.sampler == "mixture"
    assert again(record).name == "vae-mixture"
    check_same(opened(again(record)), record)


def test_without_a_command_the_record_is_enough(board):
    """A run from Python says ``evalkit.score``: the id tells the bundled model, the record its steps."""
    record = replace(board["ddpm"], command=("evalkit.score",))
    assert asked_for(record) is None
    request = again(record)
    assert (request.model, request.sampling.steps, request.sampling.sampler) == ("ddpm", 20, "dpm-solver++")
    check_same(opened(request), record)


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("evalkit",),
        ("rm", "-rf", "/"),
        ("evalkit", "gate", "x"),
        ("evalkit", "score", "--no-such-flag"),
        ("evalkit", "score", "--help"),
        ("evalkit", "score", "--model"),
        ("evalkit", "score", "--seed", "[redacted]"),
    ],
)
def test_a_command_that_cannot_be_read_is_no_error(board, command):
    assert asked_for(replace(board["cgan"], command=command)) is None


def test_the_command_of_a_curve_is_read_too(board):
    command = ("evalkit", "bench", "ddpm", "vae", "--curve", "5,10", "--num-samples", "512", "--seed", "3")
    model = replace(board["ddpm"].model, id="ddpm-5")
    asked = asked_for(replace(board["ddpm"], model=model, command=command))
    assert asked is not None
    assert (asked.model, asked.num_samples, asked.seed) == ("ddpm", 512, 3)


def test_each_checkpoint_of_a_command_goes_with_its_model(board):
    command = ("evalkit", "score", "--model", "vae", "--ckpt", "a.pt", "--model", "vae", "--ckpt", "b.pt")
    model = replace(board["vae"].model, id="vae@b")
    asked = asked_for(replace(board["vae"], model=model, command=command))
    assert asked is not None
    assert asked.ckpt == Path("b.pt")


@pytest.mark.parametrize("where", ["command", "id"])
def test_code_that_a_record_names_is_never_run(board, where):
    """A record may come from anybody: ``--model os:abort`` in it must not import anything."""
    record = replace(board["cgan"], command=("evalkit", "score", "--model", "antigravity:main"))
    if where == "id":
        model = replace(record.model, id="antigravity:main", family="other")
        record = replace(record, model=model, command=("evalkit.score",))
    with pytest.raises(UsageError, match="antigravity") as caught:
        again(record)
    assert "--model antigravity:main" in str(caught.value.hint)
    assert "antigravity" not in __import__("sys").modules


def test_code_of_attributes_is_left_out(board):
    command = (*board["cgan"].command, "--attributes", "antigravity:main", "--attribute-names", "a")
    assert again(replace(board["cgan"], command=command)).attributes is None


def test_what_the_record_says_wins_over_the_command(board):
    record = board["ddpm"]
    command = ("evalkit", "score", "--model", "ddpm", "--steps", "7", "--seed", "9", "--num-samples", "5")
    request = again(replace(record, command=command))
    assert (request.sampling.steps, request.seed, request.num_samples) == (20, 0, 1024)


def test_a_checkpoint_that_is_not_there_is_asked_for(board, tmp_path):
    record = board["ddpm"]
    asked = replace(asked_for(record), ckpt=tmp_path / "gone.safetensors")
    with pytest.raises(UsageError, match=r"is not at .*gone\.safetensors") as caught:
        restored(record, asked, ckpt=None, model=None, device="cpu")
    assert "--ckpt FILE" in caught.value.hint
    assert record.model.sha256[:12] in caught.value.hint
    here = restored(record, asked, ckpt=tmp_path / "here.safetensors", model=None, device="cpu")
    assert here.ckpt == tmp_path / "here.safetensors"


def test_another_place_of_the_checkpoint(board, tmp_path):
    request = again(board["cgan"], ckpt=tmp_path / "moved.safetensors")
    assert request.ckpt == tmp_path / "moved.safetensors"


@pytest.mark.parametrize("status", ["started", "partial", "error"])
def test_incomplete_records_are_refused(board, status):
    with pytest.raises(NothingMeasuredError, match=status) as caught:
        again(replace(board["cgan"], status=status))
    assert "evalkit score --model cgan" in str(caught.value.hint)


def test_records_without_images_are_refused(board):
    speed = ProtocolInfo(name="speed", fields={"trial": 1}, fingerprint="abc")
    with pytest.raises(NothingMeasuredError, match="no scores of a set of images"):
        again(replace(board["cgan"], protocol=speed))


def test_an_unknown_model_is_asked_for(board):
    model = replace(board["cgan"].model, id="mine", family="other")
    with pytest.raises(UsageError, match="does not tell which model"):
        again(replace(board["cgan"], model=model, command=()))


def test_other_weights_are_refused(board):
    record = replace(board["vae"], model=replace(board["vae"].model, sha256="0" * 64))
    with pytest.raises(InvalidInputError, match="not the checkpoint that was scored") as caught:
        check_same(opened(again(record)), record)
    assert "--ckpt" in str(caught.value.hint)


@pytest.mark.parametrize(
    "changes", [{"sampler": "euler"}, {"guidance": 3.0}, {"labels": "at random"}, {"truncation": 0.5}]
)
def test_other_sampling_is_refused(board, changes):
    record = board["cgan"]
    subject = opened(again(record))
    with pytest.raises(InvalidInputError, match="would not be sampled as it was scored"):
        check_same(subject, replace(record, sampling=replace(record.sampling, **changes)))


def test_other_seeds_are_refused(board):
    record = board["cgan"]
    seeds = replace(record.sampling.seeds, scheme="another")
    with pytest.raises(InvalidInputError, match="seeds"):
        check_same(opened(again(record)), replace(record, sampling=replace(record.sampling, seeds=seeds)))
