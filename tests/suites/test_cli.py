"""``evalkit suite`` end to end: files in, commands, tables and exit codes out."""

from __future__ import annotations

import csv
import io
import json
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.cli.suite import score_flags
from evalkit.record import RunRecord
from evalkit.suites import bundled_suites, cells_of, read_suite
from evalkit.suites.session import Orders

TWO = """
title = "Two models"
protocols = ["pixels"]
seeds = [0, 1]
[defaults]
num_samples = 16
reference = "real.npz"
[[model]]
name = "cgan"
[[model]]
name = "vae"
sampler = "mixture"
as = "vae-mixture"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images)
    (tmp_path / "two.toml").write_text(TWO)
    return tmp_path


@pytest.fixture
def fake(folder, stage, monkeypatch):
    """Cells run the program of the stage; its rows are named by their models."""

    def perform(**acts):
        stage.acts, stage.values = acts, {"cgan": 2.0, "vae": 1.0}
        monkeypatch.setattr("evalkit.suites.Orders", partial(Orders, program=stage.orders().program))

    perform()
    return perform


def test_a_suite_makes_records_and_tables_and_continues(fake, folder, capsys):
    assert run(["suite", "two.toml"]) == 0
    told = capsys.readouterr()
    assert "Two models: 4 runs to do; in evalkit-runs/two" in told.err
    assert "[4/4] vae-mixture · pixels · seed 1: fd:pixels 2.00 ± 0.10" in told.err
    assert "over seeds" in told.out
    assert "vae-mixture@seed0" in told.out
    out = folder / "evalkit-runs" / "two"
    assert {file.name for file in out.glob("table-*")} == {
        f"table-pixels{kind}.{suffix}" for kind in ("", "-seeds") for suffix in ("md", "csv")
    }
    assert "1.50 ± 0.50" in (out / "table-pixels-seeds.md").read_text()
    assert run(["suite", "two.toml"]) == 0
    again = capsys.readouterr()
    assert "0 runs to do, 4 done before" in again.err
    assert again.out == told.out


def test_what_fails_is_told_with_its_log_and_its_code(fake, folder, capsys):
    fake(vae="exit 6")
    assert run(["suite", "two.toml"]) == 6
    told = capsys.readouterr()
    assert "vae-mixture · pixels · seed 0: failed, exit 6" in told.err
    assert "logs/vae-mixture-pixels-seed0-" in told.err
    assert "hint: look closer" in told.err
    assert "2 of 4 runs are not done; the same command tries again" in told.err
    assert "Not measured: vae-mixture · pixels · seed 0; vae-mixture · pixels · seed 1." in told.out.replace(
        "\n  ", " "
    )
    fake()
    assert run(["suite", "two.toml"]) == 0
    assert "2 runs to do, 2 done before" in capsys.readouterr().err


def test_nothing_but_failures_prints_no_table(fake, capsys):
    fake(cgan="exit 75", vae="crash")
    assert run(["suite", "two.toml", "--only", "vae-mixture"]) == 70
    assert run(["suite", "two.toml"]) == 75
    assert capsys.readouterr().out == ""


def test_formats(fake, capsys):
    assert run(["suite", "two.toml", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["model"], row["seed"], row["value"]) for row in rows] == [
        ("cgan", "0", "2.0"), ("cgan", "1", "3.0"), ("vae-mixture", "0", "1.0"), ("vae-mixture", "1", "2.0"),
    ]  # fmt: skip
    assert run(["suite", "two.toml", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["suite"] == "two"
    assert [cell["status"] for cell in data["cells"]] == ["done"] * 4
    assert [table["kind"] for table in data["tables"]] == ["models", "seeds"]
    assert run(["suite", "two.toml", "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("**2 models on toy · protocol pixels")


def test_only_runs_its_rows_but_the_tables_show_all_that_is_done(fake, folder, capsys):
    assert run(["suite", "two.toml", "--only", "cgan"]) == 0
    assert "Not measured: vae-mixture · pixels · seed 0" in capsys.readouterr().out
    assert run(["suite", "two.toml", "--only", "vae-mixture"]) == 0
    out = capsys.readouterr().out
    assert "cgan@seed1" in out
    assert "Not measured" not in out
    assert run(["suite", "two.toml", "--only", "cgna"]) == 2
    assert "did you mean 'cgan'?" in capsys.readouterr().err


def test_jobs_default_to_the_devices_and_sharing_one_is_said(fake, stage, capsys):
    assert run(["suite", "two.toml", "--device", "cpu", "--jobs", "2"]) == 0
    assert "2 runs at once on 1 device: their images/s are lower than alone" in capsys.readouterr().err
    assert run(["suite", "two.toml", "--device", "cuda:0,cuda:1", "--fresh"]) == 0
    assert "their images/s" not in capsys.readouterr().err
    assert {device for _, _, device, _ in stage.started[4:]} == {"cuda:0", "cuda:1"}


def test_a_dry_run_prints_commands_that_run_and_marks_what_is_done(fake, folder, capsys):
    assert run(["suite", "two.toml", "--dry-run", "--out", "my runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == (
        "evalkit score --model vae --reference real.npz --num-samples 16 --sampler mixture "
        "--name vae-mixture --protocol pixels --seed 1 --out 'my runs/records'"
    )
    assert not (folder / "my runs").exists()
    assert run(["suite", "two.toml", "--only", "cgan", "--out", "my runs"]) == 0
    capsys.readouterr()
    assert run(["suite", "two.toml", "--dry-run", "--out", "my runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("  # done") for line in lines] == [True, True, False, False]
    assert all(shlex.split(line, comments=True)[-1] == "my runs/records" for line in lines)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ('name = "ddmp"', "[[model]] 3 (ddmp): unknown model 'ddmp'", "did you mean 'ddpm'?"),
        ('name = "edm"', "no checkpoint of 'edm' ships", "give the one you have with ckpt"),
        ('name = "ddpm"\nsampler = "dim"', "ddpm has no sampler 'dim'", "did you mean 'ddim'?"),
        ('name = "ddpm"\nmetrics = ["fdd"]', "(ddpm): unknown metric 'fdd'", "did you mean"),
        (
            'name = "ddpm"\nparam = ["kd.subset=3"]',
            "(ddpm): metric 'kd' has no parameter 'subset'",
            "did you",
        ),
        ('name = "ddpm"\nnum_samples = 0', "(ddpm): --num-samples must be at least 1", None),
        ('name = "ddpm"\nbatch_size = "big"', "(ddpm): ", None),
        ('name = "ddpm"\nsteps = "ten"', "(ddpm): Invalid value for '--steps'", None),
        ('name = "ddpm"\nreference = "cifar"', "no reference, file or folder called 'cifar'", "did you mean"),
        ('name = "ddpm"\nuntil_decided = true', "unknown key 'until_decided'", None),
        ('name = "ddpm"\nlog = ["jsonl:x"]', "unknown key 'log'", None),
        ('images = "real.npz"\nsteps = 3', "(?): --sampler, --steps", None),
        ('images = "real.npz"\npreset = "x"', "--preset and --weights raw belong to --model", None),
        ('name = "vae"\ntask = "reconstruct"', "--task reconstruct needs a model and images", None),
    ],
)
def test_everything_is_checked_before_the_first_run(folder, capsys, line, message, hint):
    (folder / "two.toml").write_text(f"{TWO}[[model]]\n{line}\n")
    assert run(["suite", "two.toml"]) == 2
    told = capsys.readouterr().err
    assert message.replace("(?): ", "") in told
    assert "two.toml: [[model]] 3" in told
    assert hint is None or hint in told
    assert not (folder / "evalkit-runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which suite?"),
        (["cifar10"], "did you mean 'cifar10-jpeg'?"),
        (["none.toml"], "no suite file at none.toml"),
        (["two.toml", "--jobs", "0"], "--jobs"),
    ],
)
def test_usage_errors(folder, capsys, arguments, message):
    assert run(["suite", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_foreign_manifest_is_invalid_input(folder, capsys):
    out = folder / "runs"
    out.mkdir()
    (out / "suite.json").write_text("{}")
    assert run(["suite", "two.toml", "--out", "runs"]) == 6
    assert "--fresh" in capsys.readouterr().err


def test_the_bundled_suites_are_listed_and_whole(capsys):
    assert run(["suite", "--list"]) == 0
    assert "cifar10-jpeg" in capsys.readouterr().out
    for file in bundled_suites().values():
        suite = read_suite(file, score_flags())
        assert suite.name == file.stem
        assert cells_of(suite)


def test_the_bundled_suite_asks_for_what_the_leaderboard_was_made_of():
    board = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg" / "records"
    records = [RunRecord.read(file) for file in board.glob("*.json")]
    measured = {
        (record.model.id, record.protocol.name, record.sampling.seeds.base, record.data.dataset)
        for record in records
    }
    cells = cells_of(read_suite(bundled_suites()["cifar10-jpeg"], score_flags()))
    assert {(cell.row, cell.protocol, cell.seed, "cifar10-jpeg") for cell in cells} <= measured
    mixtures = {record.model.id for record in records if record.sampling.sampler == "mixture"}
    assert mixtures == {cell.row for cell in cells if "mixture" in cell.arguments}
    assert all("cifar10-jpeg-train" in cell.arguments for cell in cells)


def test_flags_of_a_suite_are_those_of_score_but_for_what_is_said_elsewhere():
    flags = score_flags()
    assert {"ckpt", "preset", "images", "steps", "guidance", "metrics", "weights", "dtype"} <= set(flags)
    assert not {"model", "name", "protocol", "seed", "device", "out", "fresh", "format", "log"} & set(flags)
    assert (flags["metrics"].kind, flags["param"].kind, flags["ckpt"].kind) == ("list", "repeated", "one")
    assert (flags["ckpt"].place, flags["reference"].place, flags["weights"].place) == (
        "path", "name-or-path", "pair",
    )  # fmt: skip


@pytest.mark.slow
def test_a_real_cell_leaves_a_record_that_says_its_command(folder, capsys):
    """One process of ``evalkit score``; what several do together is tested with a quicker program."""
    text = TWO.replace("seeds = [0, 1]", "seeds = [0]").replace("[defaults]", '[defaults]\nmetrics = ["kd"]')
    (folder / "two.toml").write_text(text)
    assert run(["suite", "two.toml", "--only", "vae-mixture", "--device", "cpu"]) == 0
    assert "vae-mixture" in capsys.readouterr().out
    out = folder / "evalkit-runs" / "two"
    (state,) = json.loads((out / "suite.json").read_text())["cells"].values()
    record = RunRecord.read(out / "records" / f"{state['run_id']}.json")
    assert (record.model.id, record.status, record.protocol.name) == ("vae-mixture", "complete", "pixels")
    assert record.command[:2] == ("evalkit", "score")
    assert (record.sampling.n, record.sampling.sampler) == (16, "mixture")
