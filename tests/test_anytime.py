"""A gate while the model is sampled, end to end on a toy model: early verdicts, refusals, what is kept."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalkit.anytime import check_request, decision_table, score_until_decided
from evalkit.anytime.matching import paired_run
from evalkit.cli.main import run as command
from evalkit.console import Silent
from evalkit.errors import NotComparableError, NothingMeasuredError, UsageError
from evalkit.evaluate import run
from evalkit.extraction import Interrupted
from evalkit.gate.baselines import find_baseline
from evalkit.gate.facts import GateSpec
from evalkit.gate.rules import parse_rule
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.reporting.rendering import render
from evalkit.request import ScoreRequest
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

N = 256
METRICS = ("kd", "precision", "density", "fd")
KD = "kd abs=0.002"
BOARD = Path(__file__).parents[1] / "leaderboards" / "cifar10-jpeg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a model that reads its grey level from a checkpoint, and a reference."""
    root = tmp_path_factory.mktemp("toy")
    (root / "grey_tiles.py").write_text(
        "from dataclasses import dataclass\n"
        "from evalkit.generators.toy import GaussianTiles\n"
        "from evalkit.spec import Spec\n"
        "class Grey(GaussianTiles):\n"
        "    spec = property(lambda self: Spec.of('generator', 'grey'))\n"
        "def make(ckpt):\n"
        "    mean, std = ckpt.read_text().split()\n"
        "    return Grey(mean=float(mean), std=float(std))\n"
    )
    images = GaussianTiles().generate(image_seeds(7, np.arange(500))).numpy()
    write_samples(root / "real.npz", images, labels=None)
    for name, text in {"good": "128 20", "worse": "150 20", "near": "128.3 20", "other": "128 20.0"}.items():
        (root / f"{name}.txt").write_text(text)
    return root


@pytest.fixture(autouse=True)
def _on_path(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


def _request(folder: Path, out: Path, name: str = "good", **changes) -> ScoreRequest:
    settings = {
        "model": "grey_tiles:make", "ckpt": folder / f"{name}.txt", "protocol": "pixels", "name": "toy",
        "reference": str(folder / "real.npz"), "metrics": METRICS, "num_samples": N, "out": out,
    }  # fmt: skip
    return ScoreRequest(**{**settings, **changes})


@pytest.fixture(scope="module")
def baseline(folder, tmp_path_factory) -> Path:
    """A finished run of the good model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        out = tmp_path_factory.mktemp("baseline")
        record = run(_request(folder, out), console=Silent())
        return out / f"{record.run_id}.json"


def _decide(request: ScoreRequest, baseline: Path, *rules: str, **spec):
    gate = GateSpec(rules=tuple(map(parse_rule, rules)), **spec)
    return score_until_decided(request, baseline=str(baseline), spec=gate, console=Silent())


def _argv(folder: Path, out: Path, baseline: Path, name: str, *more: str) -> list[str]:
    return [
        "score", "--model", "grey_tiles:make", "--ckpt", str(folder / f"{name}.txt"), "--name", "toy",
        "--protocol", "pixels", "--reference", str(folder / "real.npz"), "--metrics", ",".join(METRICS),
        "--num-samples", str(N), "--out", str(out), "--until-decided", "--baseline", str(baseline), *more,
    ]  # fmt: skip


def test_the_same_checkpoint_passes_at_the_first_look(folder, baseline, tmp_path):
    decision = _decide(_request(folder, tmp_path), baseline, KD, "precision abs=0.05")
    assert decision.report.status == "pass"
    assert decision.report.exit_code == 0
    assert (decision.drawn, decision.planned) == (80, 256)  # 5 of 16 blocks
    kernel, precision = decision.report.outcomes
    assert kernel.errors == "paired"
    # The very same images: precision, a mean, differs by nothing; its bounds are exact.
    assert (precision.difference, precision.low, precision.high) == (0.0, 0.0, 0.0)
    assert abs(kernel.difference) < 1e-3
    assert "saved (69%)" in render(decision_table(decision), "table")


def test_evaluations_are_counted_only_while_images_are_drawn(folder, baseline, tmp_path):
    """A finished record tells its NFE, a run that begins does not: they are still the same images."""
    record = RunRecord.read(baseline)
    replace(record, sampling=replace(record.sampling, nfe=20)).write(tmp_path / "counted.json")
    decision = _decide(_request(folder, tmp_path), tmp_path / "counted.json", "precision")
    assert (decision.report.status, decision.drawn) == ("pass", 80)


def test_no_margin_is_enough_for_the_very_same_images(folder, baseline, tmp_path):
    decision = _decide(_request(folder, tmp_path), baseline, "precision")
    assert decision.report.status == "pass"
    assert decision.drawn == 80


def test_a_record_that_stopped_early_holds_no_scores_and_is_no_baseline(folder, baseline, tmp_path):
    decision = _decide(_request(folder, tmp_path, "worse"), baseline, KD)
    kept = RunRecord.read(tmp_path / f"{decision.record.run_id}.json")
    assert kept == decision.record
    assert kept.status == "partial"
    assert not kept.results
    assert kept.notes.startswith("decided after 80 of 256 images: regression: kd:pixels")
    with pytest.raises(NothingMeasuredError, match="partial"):
        _decide(_request(folder, tmp_path), tmp_path / f"{kept.run_id}.json", KD)
    with pytest.raises(NothingMeasuredError, match="no complete record"):
        _decide(_request(folder, tmp_path), tmp_path, KD)


def test_the_state_continues_to_the_whole_run(folder, baseline, tmp_path, monkeypatch):
    _decide(_request(folder, tmp_path / "a", "worse"), baseline, KD)
    drawn = []
    original = GaussianTiles.generate

    def counted(self, seeds, **kwargs):
        drawn.append(len(seeds))
        return original(self, seeds, **kwargs)

    monkeypatch.setattr(GaussianTiles, "generate", counted)
    continued = run(_request(folder, tmp_path / "a", "worse"), console=Silent())
    assert sum(drawn) == N - 80 + 2  # two of the warm-up
    whole = run(_request(folder, tmp_path / "b", "worse"), console=Silent())
    assert continued.status == "complete"
    assert [r.value for r in continued.results] == [r.value for r in whole.results]
    assert continued.protocol == whole.protocol


def _kernel_distance(record: RunRecord) -> float:
    return next(result.value for result in record.results if result.metric == "kd:pixels")


@pytest.fixture(scope="module")
def undecidable(folder, baseline, tmp_path_factory) -> str:
    """A rule whose margin is just how much worse the model is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        record = run(_request(folder, tmp_path_factory.mktemp("near"), "near"), console=Silent())
    return f"kd abs={_kernel_distance(record) - _kernel_distance(RunRecord.read(baseline)):.9f}"


def test_what_stays_undecided_is_drawn_to_the_end(folder, baseline, undecidable, tmp_path):
    decision = _decide(_request(folder, tmp_path, "near"), baseline, undecidable, burden="candidate")
    assert (decision.drawn, decision.planned) == (256, 256)
    assert decision.report.status == "inconclusive"
    assert decision.report.exit_code == 4
    assert decision.record.status == "complete"
    assert len(decision.record.results) == 4
    (outcome,) = decision.report.outcomes
    assert outcome.low < outcome.margin < outcome.high
    lenient = _decide(_request(folder, tmp_path, "near"), baseline, undecidable)
    assert lenient.report.exit_code == 0
    assert "drew all 256 images" in render(decision_table(lenient), "table").lower()


def test_one_broken_rule_ends_it_and_the_others_say_what_they_saw(folder, baseline, tmp_path):
    decision = _decide(
        _request(folder, tmp_path, "worse"), baseline, KD, "precision abs=9", "density abs=1e-6"
    )
    statuses = [outcome.status for outcome in decision.report.outcomes]
    assert statuses[:2] == ["regression", "pass"]
    assert decision.report.exit_code == 1
    assert decision.drawn < N
    assert all("images" in outcome.reason for outcome in decision.report.outcomes)


def test_more_rules_make_a_regression_harder_and_a_pass_not_easier(folder, baseline, tmp_path):
    request = _request(folder, tmp_path, "worse")
    one = _decide(request, baseline, KD).report.outcomes[0]
    two = _decide(request, baseline, KD, "precision abs=9").report.outcomes[0]
    assert two.difference == one.difference
    assert two.low < one.low
    assert two.high == one.high


def test_a_deterministic_verdict(folder, baseline, tmp_path):
    first = _decide(_request(folder, tmp_path / "a", "worse"), baseline, KD)
    again = _decide(_request(folder, tmp_path / "a", "worse", batch_size=5), baseline, KD)
    assert first.report.outcomes == again.report.outcomes


def test_an_interruption_resumes_to_the_same_verdict(folder, baseline, tmp_path):
    spec = GateSpec(rules=(parse_rule(KD),))
    expected = _decide(_request(folder, tmp_path / "whole", "worse"), baseline, KD)
    batches = 0

    def stop() -> int:
        nonlocal batches
        batches += 1
        # 16 batches of the reference's 500 images in 32 each, then 3 of 16.
        return signal.SIGINT if batches == 19 else 0

    request = _request(folder, tmp_path / "cut", "worse")
    with pytest.raises(Interrupted):
        score_until_decided(request, baseline=str(baseline), spec=spec, console=Silent(), stop=stop)
    (cut,) = (RunRecord.read(path) for path in (tmp_path / "cut").glob("*.json"))
    assert cut.status == "partial"
    resumed = _decide(request, baseline, KD)
    assert resumed.report.outcomes == expected.report.outcomes
    assert resumed.drawn == expected.drawn


def test_regression_through_the_command(folder, baseline, tmp_path, capsys):
    assert command(_argv(folder, tmp_path, baseline, "worse", "--rule", KD)) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("REGRESSION: toy")
    assert "80 of 256 images: 176 saved (69%)" in shown.out
    assert "bounds hold at every look" in " ".join(shown.out.split())
    assert "Holm" not in shown.out
    assert "(partial)" in shown.err
    assert "draws the other 176 images" in shown.err


@pytest.mark.parametrize("form", ["json", "md", "csv"])
def test_other_formats(folder, baseline, tmp_path, capsys, form):
    assert command(_argv(folder, tmp_path, baseline, "good", "--rule", KD, "--format", form)) == 0
    out = capsys.readouterr().out
    if form == "json":
        report = json.loads(out)
        assert (report["status"], report["exit_code"]) == ("pass", 0)
        assert "80 of 256 images" in report["outcomes"][0]["reason"]
    elif form == "md":
        assert "evalkit gate: pass" in out
        assert "176 saved" in out
    else:
        assert out.splitlines()[1].startswith("kd:pixels,thumbnail")


def test_rules_from_a_file_and_the_burden(folder, baseline, undecidable, tmp_path):
    spec = tmp_path / "gate.toml"
    margin = undecidable.partition("=")[2]
    spec.write_text(f'alpha = 0.01\n[[rule]]\nmetric = "kd"\nabsolute = {margin}\n')
    argv = _argv(folder, tmp_path, baseline, "near", "--spec", str(spec))
    assert command(argv) == 0
    assert command([*argv, "--for", "release"]) == 4


def test_without_a_rule_the_headline_is_judged_and_that_is_said(folder, baseline, tmp_path, capsys):
    record = RunRecord.read(baseline)
    kernel_first = replace(record, results=tuple(sorted(record.results, key=lambda r: r.metric[:2] != "kd")))
    path = tmp_path / "kd-first.json"
    kernel_first.write(path)
    assert command(_argv(folder, tmp_path, path, "worse")) == 1
    assert "no rule was given: only kd:pixels" in capsys.readouterr().out


def test_what_the_values_are_of_is_said_where_they_are_of_other_images(
    folder, baseline, undecidable, tmp_path, capsys
):
    assert command(_argv(folder, tmp_path, baseline, "good", "--rule", KD)) == 0
    early = " ".join(capsys.readouterr().out.split())
    assert "values are of all images of the baseline and of those drawn so far" in early
    assert command(_argv(folder, tmp_path, baseline, "near", "--rule", undecidable)) == 0
    assert "drawn so far" not in " ".join(capsys.readouterr().out.split())


def _refused(capsys, argv: list[str]) -> tuple[int, str]:
    code = command(argv)
    return code, capsys.readouterr().err


def test_a_metric_that_depends_on_the_number_of_images_is_refused(folder, baseline, tmp_path, capsys):
    code, told = _refused(capsys, _argv(folder, tmp_path, baseline, "good", "--rule", "fd rel=5%"))
    assert code == 2
    assert "fd:pixels/thumbnail: it depends on the number of images" in told
    assert "kd:pixels, precision:pixels, density:pixels" in told
    assert "evalkit gate" in told


def test_other_seeds_are_refused(folder, baseline, tmp_path, capsys):
    code, told = _refused(capsys, _argv(folder, tmp_path, baseline, "good", "--rule", KD, "--seed", "3"))
    assert code == 3
    assert "same seeds" in told
    assert "--seed 0" in told


def test_another_number_of_images_is_refused(folder, baseline, tmp_path, capsys):
    argv = _argv(folder, tmp_path, baseline, "good", "--rule", KD)
    argv[argv.index("--num-samples") + 1] = "512"
    code, told = _refused(capsys, argv)
    assert code == 3
    assert "num_images" in told
    assert "--num-samples 256" in told


def test_another_size_of_images_is_refused(folder, baseline, tmp_path):
    record = RunRecord.read(baseline)
    fields = {**record.protocol.fields, "image_size": [64, 64]}
    other = replace(record, protocol=replace(record.protocol, fields=fields, fingerprint="a" * 64))
    other.write(tmp_path / "other.json")
    with pytest.raises(NotComparableError, match="image_size"):
        _decide(_request(folder, tmp_path), tmp_path / "other.json", KD)


def test_a_model_that_draws_another_size_than_it_says(folder, baseline, tmp_path, monkeypatch):
    original = GaussianTiles.generate
    monkeypatch.setattr(
        GaussianTiles, "generate", lambda *a, **k: original(*a, **k).repeat_interleave(2, dim=2)
    )
    with pytest.raises(NotComparableError, match="64"):
        _decide(_request(folder, tmp_path), baseline, KD)


def test_blocks_of_other_sizes_are_refused(folder, baseline, tmp_path):
    record = RunRecord.read(baseline)
    results = tuple(
        replace(r, blocks=replace(r.blocks, sizes=(15, 17, *r.blocks.sizes[2:]))) for r in record.results
    )
    replace(record, results=results).write(tmp_path / "other.json")
    with pytest.raises(NotComparableError, match="blocks of other sizes"):
        _decide(_request(folder, tmp_path), tmp_path / "other.json", KD)


def test_a_metric_that_the_baseline_lacks(folder, baseline, tmp_path, capsys):
    code, told = _refused(capsys, _argv(folder, tmp_path, baseline, "good", "--rule", "precison abs=0.1"))
    assert code == 5
    assert "precision" in told


@pytest.mark.parametrize("rule", ["kd abs abs=0.1", "kd rel rel=5%", "kd band=0..1"])
def test_other_modes_are_refused_before_anything_is_loaded(folder, baseline, tmp_path, rule):
    with pytest.raises(UsageError, match="error bars"):
        _decide(_request(folder, tmp_path), baseline, rule)
    assert not list(tmp_path.iterdir())


def test_speed_is_no_metric_of_images(folder, baseline, tmp_path):
    with pytest.raises(UsageError, match="throughput"):
        _decide(_request(folder, tmp_path), baseline, "throughput")


def test_too_few_images_for_a_look(folder, tmp_path):
    out = tmp_path / "few"
    few = {"num_samples": 40, "metrics": ("kd",)}
    record = run(_request(folder, out, **few), console=Silent())
    with pytest.raises(UsageError, match="nothing can be saved"):
        _decide(_request(folder, out, **few), out / f"{record.run_id}.json", KD)


def test_uneven_blocks_are_weighed(folder, tmp_path):
    """300 images: 18 shards of 16 and one of 12."""
    many = {"num_samples": 300, "metrics": ("kd", "precision")}
    record = run(_request(folder, tmp_path, **many), console=Silent())
    assert len(set(record.results[0].blocks.sizes)) == 2
    path = tmp_path / f"{record.run_id}.json"
    assert _decide(_request(folder, tmp_path, **many), path, KD).report.status == "pass"
    assert _decide(_request(folder, tmp_path, "worse", **many), path, KD).report.status == "regression"


def test_kid_over_subsets_is_watched_by_its_exact_statistic(folder, tmp_path):
    published = {
        "num_samples": 128, "metrics": ("kd",), "params": {"kd": {"subsets": 5, "subset_size": 100}},
    }  # fmt: skip
    record = run(_request(folder, tmp_path, **published), console=Silent())
    path = tmp_path / f"{record.run_id}.json"
    decision = _decide(_request(folder, tmp_path, **published), path, KD)
    assert decision.report.status == "pass"
    assert decision.drawn < 100  # fewer images than a subset
    assert abs(decision.report.outcomes[0].difference) < 1e-3


def test_a_mean_over_subsets_without_its_exact_statistic(folder, tmp_path):
    published = {
        "num_samples": 128, "metrics": ("kd",), "params": {"kd": {"subsets": 5, "subset_size": 100}},
    }  # fmt: skip
    record = run(_request(folder, tmp_path, **published), console=Silent())
    bare = replace(record, results=tuple(replace(result, details={}) for result in record.results))
    bare.write(tmp_path / "bare.json")
    with pytest.raises(NotComparableError, match="without the exact statistic"):
        _decide(_request(folder, tmp_path, **published), tmp_path / "bare.json", KD)


def test_a_row_of_a_leaderboard_names_the_record_it_was_built_from(baseline, tmp_path):
    known, record = find_baseline(str(baseline), ()), RunRecord.read(baseline)
    source = str(tmp_path / "scores.csv#toy")
    row = replace(known, records=(), side=replace(known.side, source=source))
    with pytest.raises(UsageError, match="row of a leaderboard") as caught:
        paired_run(row, record)
    assert caught.value.hint.startswith(f"name the record of run {record.run_id}:")
    kept = tmp_path / "records" / f"{record.run_id}.json"
    kept.parent.mkdir()
    shutil.copy(baseline, kept)
    with pytest.raises(UsageError) as caught:
        paired_run(row, record)
    assert f"--baseline {kept}" in caught.value.hint


def test_the_command_tells_of_a_row_of_the_bundled_leaderboard(capsys):
    row = f"{BOARD / 'scores.csv'}#cgan"
    argv = ["score", "--model", "cgan", "--until-decided", "--baseline", row, "--rule", "kd rel=5%"]
    code, told = _refused(capsys, [*argv, "--out", "new"])
    assert code == 2
    assert f"--baseline {BOARD / 'records'}" in told


def test_a_folder_of_several_seeds_gives_the_run_that_pairs(folder, tmp_path):
    kept = tmp_path / "kept"
    for seed in (0, 1):
        record = run(_request(folder, tmp_path / "out", seed=seed, metrics=("kd",)), console=Silent())
        kept.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "out" / f"{record.run_id}.json", kept)
    decision = _decide(_request(folder, tmp_path / "new", metrics=("kd",)), kept, KD)
    assert decision.report.status == "pass"
    assert "base 0" in decision.report.baseline.seeds


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model", "cgan", "--baseline", "x.json"], "--baseline belongs to --until-decided"),
        (["--model", "cgan", "--rule", "kd"], "--rule belongs to --until-decided"),
        (["--model", "cgan", "--for", "release"], "--for belongs to --until-decided"),
        (["--model", "cgan", "--spec", "g.toml"], "--spec belongs to --until-decided"),
        (["--model", "cgan", "--until-decided"], "needs --baseline"),
        (["--images", "x", "--until-decided", "--baseline", "x.json"], "samples one --model"),
        (["--model", "a", "--model", "b", "--until-decided", "--baseline", "x.json"], "samples one --model"),
        (
            [
                "--task",
                "reconstruct",
                "--model",
                "vae",
                "--images",
                "x",
                "--until-decided",
                "--baseline",
                "y",
            ],
            "samples one --model",
        ),
        (
            ["--model", "cgan", "--until-decided", "--baseline", "x", "--rule", "kd", "--spec", "g.toml"],
            "do not go together",
        ),
        (["--model", "cgan", "--until-decided", "--baseline", "x", "--rule", "kd rell=5%"], "unknown word"),
    ],
)
def test_flags_that_do_not_go_together(argv, told, capsys):
    code, error = _refused(capsys, ["score", *argv])
    assert code == 2
    assert told in error


def test_no_baseline_is_said_before_sampling(folder, tmp_path, capsys):
    code, told = _refused(capsys, _argv(folder, tmp_path, tmp_path / "none.json", "good", "--rule", KD))
    assert code == 5
    assert "none.json" in told
    assert not [path for path in (tmp_path / "state").rglob("*-16/*.safetensors") if "real" in str(path)]


def test_only_a_model_is_watched(folder, tmp_path):
    with pytest.raises(UsageError, match="samples a --model"):
        check_request(
            _request(folder, tmp_path, model=None, ckpt=None, images=folder / "real.npz"), GateSpec()
        )
