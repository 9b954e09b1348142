"""Text pipelines: `score --model … --prompts` and `sample --prompts` draw image i from line i."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from evalkit.cli.main import run
from evalkit.core import PromptedGenerator
from evalkit.spec import Spec


@dataclass(frozen=True)
class Painter:
    """Draws noise whose mean is the number that the prompt says."""

    family: str = "other"
    num_classes: int = 0
    resolution: int = 32
    takes_prompts: bool = True

    @property
    def spec(self):
        return Spec.of("generator", "painter")

    def generate(self, seeds, *, labels=None):
        raise AssertionError("never without words")

    def generate_prompted(self, seeds, prompts, *, labels=None):
        images = [torch.from_numpy(np.random.default_rng(int(s)).integers(0, 40, (3, 32, 32))) for s in seeds]
        words = torch.tensor([int(prompt) for prompt in prompts])
        return (torch.stack(images) + words[:, None, None, None]).to(torch.uint8)


@pytest.fixture
def painter(monkeypatch):
    assert isinstance(Painter(), PromptedGenerator)
    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda _name: Painter())


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("0\n100\n200\n")
    return file


def _score(tmp_path, capsys, *arguments):
    code = run(
        ["score", "--num-samples", "32", "--metrics", "kd", "--protocol", "embedded", "--device", "cpu",
         "--reference", "cifar10-jpeg-test", "--out", str(tmp_path / "runs"), "--format", "json", *arguments]
    )  # fmt: skip
    return code, capsys.readouterr()


@pytest.mark.usefixtures("painter")
@pytest.mark.parametrize("determinism", ["standard", "strict"])
def test_samples_follow_the_lines_and_begin_again(capsys, tmp_path, prompts, determinism):
    out = tmp_path / "x.npz"
    command = [
        "sample",
        "--model",
        "mine:model",
        "-n",
        "7",
        "--batch-size",
        "2",
        "--determinism",
        determinism,
    ]
    assert run([*command, "--prompts", str(prompts), "--out", str(out)]) == 0, capsys.readouterr().err
    means = np.load(out)["arr_0"].reshape(7, -1).mean(axis=1)
    assert np.allclose(means, [20, 120, 220, 20, 120, 220, 20], atol=3)


@pytest.mark.usefixtures("painter")
def test_other_prompts_are_other_images_and_another_score(capsys, tmp_path, prompts):
    code, captured = _score(tmp_path, capsys, "--model", "mine:model", "--prompts", str(prompts))
    assert code == 0, captured.err
    first = json.loads(captured.out)
    prompts.write_text("50\n")
    code, captured = _score(tmp_path, capsys, "--model", "mine:model", "--prompts", str(prompts))
    assert code == 0, captured.err
    assert "continued" not in captured.err
    assert json.loads(captured.out)["results"][0]["value"] != first["results"][0]["value"]


@pytest.mark.usefixtures("painter")
def test_words_are_needed(capsys, tmp_path):
    code, captured = _score(tmp_path, capsys, "--model", "mine:model")
    assert code == 2
    assert "--prompts FILE" in captured.err


def test_a_model_without_words_takes_none(capsys, tmp_path, prompts):
    code, captured = _score(tmp_path, capsys, "--model", "vae", "--prompts", str(prompts))
    assert code == 2
    assert "takes no prompts" in captured.err
