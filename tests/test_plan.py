"""What a protocol's name and the flags become, and the command that the loud note gives."""

from __future__ import annotations

import shlex

import pytest

from evalkit.errors import UsageError
from evalkit.plan import make_plan, standard_command
from evalkit.request import ScoreRequest


@pytest.fixture
def notes(monkeypatch, tmp_path):
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    return []


def test_auto_without_weights_is_embedded_and_says_so(notes):
    command = ("evalkit", "score", "--model", "my model", "--reference", "cifar10-jpeg-test")
    request = ScoreRequest(model="ddpm", reference="cifar10-jpeg-test", command=command)
    plan = make_plan("auto", request=request, notify=notes.append)
    assert plan.preset.name == "embedded"
    (note,) = notes
    assert "EMBEDDED" in note
    assert "not FID" in note
    assert "evalkit score --model 'my model' --protocol standard --reference cifar10" in note


def test_auto_with_weights_and_images_is_standard(notes, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    request = ScoreRequest(model="ddpm", reference=str(tmp_path), weights={"inception-v3": weights})
    assert make_plan("auto", request=request, notify=notes.append).preset.name == "standard"
    request = ScoreRequest(model="ddpm", reference="cifar10", weights={"inception-v3": weights})
    with pytest.raises(UsageError, match="is not used") as caught:  # weights alone are not enough
        make_plan("auto", request=request, notify=notes.append)
    assert caught.value.hint == "add --protocol standard"
    assert "InceptionV3 statistics of 'cifar10'" in notes[-1]


def test_the_command_keeps_images_on_disk_and_redacts(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    folder = tmp_path / "real images"
    folder.mkdir()
    command = ("evalkit", "score", "--images", "x", "--protocol", "auto", "--name", "hf_verysecretvalue")
    text = standard_command(ScoreRequest(images=folder, reference=str(folder), command=command))
    assert "verysecret" not in text
    assert text.endswith("--protocol standard --reference " + shlex.quote(str(folder)))
    assert "auto" not in text


@pytest.mark.parametrize(
    ("protocol", "metrics", "heads"),
    [
        ("embedded", (), ("block", "logits")),
        ("embedded", ("fd", "fd@pooled"), ("block", "pooled")),
        ("standard", ("fid", "kid"), ("2048",)),
        ("adm", (), ("2048", "spatial", "logits_unbiased")),
    ],
)
def test_each_head_is_extracted_once(notes, protocol, metrics, heads):
    plan = make_plan(protocol, request=ScoreRequest(model="ddpm", metrics=metrics), notify=notes.append)
    assert plan.heads(plan.headline) == heads
    assert plan.networks == (plan.headline,)


def test_a_parameter_joins_the_protocols_own(notes):
    request = ScoreRequest(model="ddpm", metrics=("kd",), params={"kd": {"subset_size": 50}})
    (kernel,) = make_plan("standard", request=request, notify=notes.append).metrics
    assert dict(kernel.metric.spec.params) == {"subset_size": 50, "subsets": 100}
    with pytest.raises(UsageError, match="draws no subsets of 50") as caught:
        make_plan("pixels", request=request, notify=notes.append)
    assert caught.value.hint == "add --param kd.subsets=100"
