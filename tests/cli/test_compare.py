"""``evalkit compare`` from files and folders to all four formats."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner

from evalkit.cli.compare import compare
from evalkit.errors import InvalidInputError, NotComparableError, NothingMeasuredError
from evalkit.record import (
    DataInfo,
    Inputs,
    MetricResult,
    ModelInfo,
    ProtocolInfo,
    RunRecord,
    SamplingInfo,
    Seeds,
)


def make_record(
    name, value, *, status="complete", day=1, n=8, nfe=None, run=None, weights=None, reference="r"
):
    sampling = None
    if nfe:
        seeds = Seeds(base=0, scheme="philox", first=0, last=7)
        sampling = SamplingInfo(n=8, seeds=seeds, sampler="ddim", steps=nfe, nfe=nfe)
    return RunRecord(
        run_id=run or f"2026010{day}T000000Z-{name}-{nfe}",
        status=status,
        created_utc=f"2026-01-0{day}T00:00:00Z",
        model=ModelInfo(id=name, family="gan", format="safetensors", sha256=weights and weights * 64),
        data=DataInfo(dataset="toy"),
        sampling=sampling,
        protocol=ProtocolInfo(
            "embedded", {"num_images": n, "reference": {"sha256": reference}}, f"p{n}{reference}"
        ),
        results=(MetricResult("fd:lite", "", value, direction="lower", se=0.1, n_gen=n),),
        inputs=Inputs(found=n, used=n),
    )


def run(*arguments):
    result = CliRunner().invoke(compare, [str(a) for a in arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path):
    for record in (make_record("a", 2.0, day=1), make_record("a", 3.0, day=2), make_record("b", 1.0)):
        record.write(tmp_path / "runs" / record.run_id / "record.json")
    return tmp_path / "runs"


def models(result):
    return [(row["model"], row["fd:lite"]) for row in json.loads(result.stdout)]


def test_a_folder_gives_the_latest_of_each_model(folder):
    result = run(folder, "--format", "json")
    assert models(result) == [("b", 1.0), ("a", 3.0)]
    assert "1 older record of the same models not shown" in result.stderr


def test_two_samplers_of_one_model_are_two_rows(tmp_path):
    for nfe in (10, 50):
        make_record("a", float(nfe), nfe=nfe).write(tmp_path / f"{nfe}.json")
    assert [value for _, value in models(run(tmp_path, "--format", "json"))] == [10.0, 50.0]


def test_files_named_one_by_one_are_all_kept(folder):
    result = run(*sorted(folder.rglob("*.json")), "--format", "json")
    assert sorted(value for _, value in models(result)) == [1.0, 2.0, 3.0]


def test_a_record_named_twice_is_one_row(folder):
    result = run(folder, next(folder.glob("*-b-*/record.json")), "--format", "json")
    assert len(models(result)) == 2


@pytest.mark.parametrize("status", ["started", "partial", "error"])
def test_incomplete_records_are_skipped_with_a_warning(folder, status):
    path = folder / "unfinished.json"
    make_record("c", 0.1, status=status, day=3).write(path)
    for arguments in ((folder,), (path, *folder.rglob("record.json"))):
        result = run(*arguments)
        assert f"unfinished.json is {status}, not complete; skipped" in result.stderr
        assert "c" not in [line.split()[0] for line in result.stdout.splitlines() if line.strip()]


def test_an_incomplete_newer_run_does_not_hide_the_older(tmp_path):
    make_record("a", 1.0, day=1).write(tmp_path / "1.json")
    make_record("a", 2.0, day=2, status="error").write(tmp_path / "2.json")
    assert models(run(tmp_path, "--format", "json")) == [("a", 1.0)]


def test_other_json_in_a_folder_is_left_alone(folder):
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "list.json").write_text("[1]")
    (folder / "broken.json").write_text("{")
    result = run(folder)
    assert "broken.json is not JSON; skipped" in result.stderr
    assert "config.json" not in result.stderr


def test_a_broken_record_is_not_left_out_in_silence(folder):
    data = make_record("c", 1.0).to_json()
    (folder / "broken.json").write_text(json.dumps({**data, "model": None}))
    with pytest.raises(InvalidInputError, match=r"broken\.json: model"):
        run(folder)


def test_a_named_file_must_be_a_record(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}')
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        run(tmp_path / "config.json")


def test_nothing_to_compare(tmp_path):
    make_record("a", 1.0, status="started").write(tmp_path / "runs" / "1.json")
    (tmp_path / "empty").mkdir()
    for arguments in ((), (tmp_path / "empty",), (tmp_path / "runs",), (tmp_path / "absent",)):
        with pytest.raises(NothingMeasuredError) as caught:
            run(*arguments)
        assert caught.value.exit_code == 5
        assert caught.value.hint
    assert caught.value.hint == "evalkit score writes records below --out (default evalkit-runs/)"


def test_fingerprints_of_named_files_are_not_mixed(folder):
    make_record("c", 1.0, n=9).write(folder / "c.json")
    with pytest.raises(NotComparableError, match="num_images: 9 against 8") as caught:
        run(*folder.rglob("*.json"))
    assert "--num-samples 8" in caught.value.hint
    with pytest.raises(NotComparableError):
        run(folder, folder / "c.json", next(folder.glob("*-b-*/record.json")))


def test_a_newer_trial_of_another_protocol_hides_nothing(folder):
    make_record("a", 9.0, day=5, n=4).write(folder / "trial.json")
    result = run(folder, "--format", "json")
    assert models(result) == [("b", 1.0), ("a", 3.0)]
    assert result.stderr.splitlines() == [
        "note: 1 older record of the same models not shown",
        "note: 1 record of another protocol (embedded, N = 4: a) is left out; name its file to see it",
    ]


def test_one_note_tells_of_all_that_is_left_out(folder):
    for day, (name, n) in enumerate((("a", 4), ("a", 4), ("b", 2)), start=5):
        make_record(name, 9.0, day=day, n=n).write(folder / f"{day}.json")
    assert (
        "note: 3 records of other protocols (embedded, N = 4: a; embedded, N = 2: b) are left out; "
        "name their files to see them"
    ) in run(folder).stderr


def test_a_note_names_few_models(folder):
    for name in "vwxyz":
        make_record(name, 9.0, n=4).write(folder / f"{name}.json")
    for name in "cdefg":
        make_record(name, 1.0).write(folder / f"{name}.json")
    assert "(embedded, N = 4: v, w, x, y, and others)" in run(folder).stderr


def test_a_note_tells_protocols_of_one_name_and_size_apart(folder):
    make_record("a", 9.0, day=5, reference="s").write(folder / "other.json")
    assert "(embedded, N = 8, other reference: a)" in run(folder).stderr


def test_the_newest_record_settles_between_protocols_of_as_many_models(tmp_path):
    for day, n in ((2, 8), (3, 4), (1, 2)):
        make_record("a", float(n), day=day, n=n).write(tmp_path / f"{n}.json")
    assert models(run(tmp_path, "--format", "json")) == [("a", 4.0)]


def test_models_count_and_not_records(tmp_path):
    for day in (3, 4, 5):
        make_record("a", 9.0, day=day, n=4).write(tmp_path / f"{day}.json")
    for name, value in (("a", 1.0), ("b", 2.0)):
        make_record(name, value).write(tmp_path / f"{name}.json")
    assert models(run(tmp_path, "--format", "json")) == [("a", 1.0), ("b", 2.0)]


def test_all_folders_choose_one_protocol(folder, tmp_path):
    make_record("c", 9.0, day=5, n=4).write(tmp_path / "more" / "c4.json")
    make_record("c", 2.0).write(tmp_path / "more" / "c8.json")
    result = run(tmp_path / "more", folder, "--format", "json")
    assert models(result) == [("b", 1.0), ("c", 2.0), ("a", 3.0)]
    assert "(embedded, N = 4: c) is left out" in result.stderr


def test_a_named_file_decides_the_protocol_of_the_folders(folder):
    make_record("a", 9.0, day=5, n=4).write(folder / "trial.json")
    result = run(folder, folder / "trial.json", "--format", "json")
    assert models(result) == [("a", 9.0)]
    assert result.stderr.splitlines() == [
        (
            "note: 3 records of another protocol (embedded, N = 8: a, b) are left out; "
            "name their files to see them"
        )
    ]


def test_an_unfinished_file_is_not_what_the_others_are_told_apart_from(folder):
    make_record("z", 9.0, status="error", day=6, reference="t").write(folder / "z.json")
    make_record("d", 9.0, day=5, reference="s").write(folder / "d.json")
    (folder.parent / "named.json").write_bytes((folder / "d.json").read_bytes())
    result = run(folder / "z.json", folder.parent / "named.json", folder)
    assert "3 records of another protocol (embedded, N = 8, other reference: a, b)" in result.stderr


def test_an_incomplete_record_does_not_decide_the_protocol(folder):
    make_record("c", 9.0, status="error", day=5, n=4).write(folder / "c.json")
    for arguments in ((folder,), (folder, folder / "c.json")):
        assert models(run(*arguments, "--format", "json")) == [("b", 1.0), ("a", 3.0)]


def test_a_named_older_record_is_shown_beside_the_latest(folder):
    result = run(folder, folder / "20260101T000000Z-a-None" / "record.json", "--format", "json")
    assert sorted(value for _, value in models(result)) == [1.0, 2.0, 3.0]
    assert result.stderr == ""


def test_other_weights_under_one_name_are_two_rows(tmp_path):
    for day, weights in enumerate("aab", start=1):
        make_record("x", float(day), day=day, weights=weights, run=f"r-000{day}").write(
            tmp_path / f"{day}.json"
        )
    result = run(tmp_path, "--format", "json")
    assert models(result) == [("x (0002)", 2.0), ("x (0003)", 3.0)]
    assert "1 older record of the same models not shown" in result.stderr


def test_formats(folder):
    assert "fd ↓" in run(folder).stdout
    assert "\x1b" not in run(folder).stdout
    assert "| b | gan | **1.00 ± 0.10** |" in run(folder, "--format", "md").stdout
    rows = list(csv.DictReader(io.StringIO(run(folder, "--format", "csv").stdout)))
    assert [(row["model"], row["fd:lite"], row["fd:lite_se"]) for row in rows] == [
        ("b", "1.0", "0.1"),
        ("a", "3.0", "0.1"),
    ]


def test_an_unknown_format_is_a_usage_error(folder):
    with pytest.raises(click.BadParameter):
        run(folder, "--format", "xml")


@pytest.mark.parametrize(
    ("name", "start"), [("t.md", "**2 models"), ("t.csv", "model,"), ("t.json", "["), ("t.txt", "2 models")]
)
def test_out_takes_its_format_from_the_suffix(folder, tmp_path, name, start):
    path = tmp_path / "new" / name
    result = run(folder, "--out", path)
    assert path.read_text(encoding="utf-8").startswith(start)
    assert b"\r" not in path.read_bytes()
    assert result.stdout == ""
    assert f"wrote {path}" in result.stderr


def test_an_explicit_format_wins_over_the_suffix(folder, tmp_path):
    run(folder, "--out", tmp_path / "t.md", "--format", "csv")
    assert (tmp_path / "t.md").read_text().startswith("model,")


def test_an_ascii_terminal_gets_ascii(folder):
    result = CliRunner(charset="ascii").invoke(compare, [str(folder)], standalone_mode=False)
    assert result.exception is None
    assert "1.00 +/- 0.10" in result.stdout


def test_equal_times_are_settled_by_run_id(tmp_path):
    for run_id, value in (("r2", 2.0), ("r1", 1.0)):
        replace(make_record("a", value), run_id=run_id).write(tmp_path / f"{run_id}.json")
    assert models(run(tmp_path, "--format", "json")) == [("a", 2.0)]
