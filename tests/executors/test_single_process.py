"""What one process alone does is refused elsewhere: a usage error with a hint, before anything is drawn."""

from __future__ import annotations

import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from tests.executors.conftest import TOY

_RANK = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
}
_RECONSTRUCT = ("--task", "reconstruct", "--images", "photos")
_DECIDING = ("--until-decided", "--baseline", "old.json", "--rule", "kd rel=5%")


@pytest.mark.parametrize("alone", [_RECONSTRUCT, _DECIDING], ids=lambda flags: flags[0])
@pytest.mark.parametrize("elsewhere", [("--shard", "1/2"), ("--executor", "ray"), ()], ids=str)
def test_it_is_refused_with_a_hint_before_anything_is_drawn(tmp_path, monkeypatch, capsys, alone, elsewhere):
    def draw(*_arguments, **_options):
        raise AssertionError("it was drawn")

    monkeypatch.setattr(GaussianTiles, "generate", draw)
    for name, value in _RANK.items() if not elsewhere else ():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    assert run(["score", "--model", TOY, "--protocol", "pixels", "--out", str(out), *elsewhere, *alone]) == 2
    told = capsys.readouterr().err
    place = elsewhere[0] if elsewhere else "torchrun"
    message, hint = told.splitlines()
    assert place in message
    assert "does not go with" in message
    assert alone[0] in message
    assert hint.strip().startswith("hint: leave")
    assert not out.exists()
