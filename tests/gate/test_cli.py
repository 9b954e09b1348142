"""``evalkit gate`` as a shell sees it: exit codes through the console script, outputs, and acceptance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from evalkit.cli.main import run
from evalkit.record import RunRecord

SCRIPT = Path(sys.executable).with_name("evalkit")


def shell(*arguments, **variables):
    """Run the console script; return its exit code, stdout and stderr."""
    environment = os.environ | {"NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"} | variables
    done = subprocess.run(
        [SCRIPT, "gate", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def gate(capsys):
    """Run the gate in this process; return its exit code, stdout and stderr."""

    def call(*arguments):
        code = run(["gate", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def old(scaled):
    return scaled("old")


def broken(path, before, after):
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    return path


def test_0_the_same_quality_passes(old, scaled):
    code, out, err = shell(scaled("new", 1.001), "--baseline", old)
    assert (code, err) == (0, "")
    assert out.startswith("PASS: ddpm is not worse than its baseline (20270101T000000Z-old)")


def test_1_a_worse_model_is_a_regression(old, scaled):
    code, out, err = shell(scaled("new", 1.3), "--baseline", old, "--rule", "kd rel=5%")
    assert (code, err) == (1, "")
    assert out.startswith("REGRESSION: ddpm is worse than its baseline")
    assert "more than" in out or "exceed the margin" in out


def test_2_a_wrong_rule_is_explained(old):
    code, out, err = shell(old, "--baseline", old, "--rule", "kd real=5%")
    assert (code, out) == (2, "")
    assert "'rel='" in err
    assert "Traceback" not in err


def test_3_another_protocol_does_not_compare(old, scaled, bundled):
    protocol = bundled("ddpm")["protocol"]
    protocol["fields"]["num_images"] = 2048
    new = scaled("new", protocol=protocol | {"fingerprint": "f" * 64})
    code, out, _ = shell(new, "--baseline", old)
    assert code == 3
    assert out.startswith("NOT COMPARABLE")
    assert "num_images: candidate 2048, baseline 1024" in out
    assert "--num-samples 1024" in out


def test_4_undecided_fails_a_release_and_passes_a_pull_request(old, scaled, gate):
    near = scaled("near", 1.05)  # as much worse as the margin tolerates: no sample size would tell
    arguments = [near, "--baseline", old, "--rule", "kd rel=5%"]
    code, out, _ = shell(*arguments, "--for", "release")
    assert code == 4
    assert out.startswith("INCONCLUSIVE: ddpm is not shown to be as good as its baseline")
    code, out, _ = gate(*arguments)
    assert code == 0
    assert "undecided" in out


def test_5_a_missing_metric_is_named(old):
    code, out, _ = shell(old, "--baseline", old, "--rule", "recal rel=5%")
    assert code == 5
    assert out.startswith("MISSING")
    assert "did you mean 'recall" in out


def test_6_nan_in_a_record_is_invalid(old, scaled):
    new = scaled("new")
    value = json.loads(new.read_text(encoding="utf-8"))["results"][0]["value"]
    code, out, err = shell(broken(new, f'"value": {value}', '"value": NaN'), "--baseline", old)
    assert (code, out) == (6, "")
    assert "new.json" in err
    assert "NaN" in err
    assert "Traceback" not in err


def test_70_an_exception_inside_is_no_regression(old, tmp_path):
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import evalkit.gate.decision\n"
        "def fail(*arguments, **options):\n"
        "    raise RuntimeError('a bug')\n"
        "evalkit.gate.decision.gate = fail\n"
    )
    code, out, err = shell(old, "--baseline", old, PYTHONPATH=str(hook))
    assert (code, out) == (70, "")
    assert "internal error: a bug" in err


def test_75_a_file_that_cannot_be_written_may_be_tried_again(old, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = shell(old, "--baseline", old, "--junit", tmp_path / "file" / "junit.xml")
    assert code == 75
    assert out.startswith("PASS")  # the verdict is not lost
    assert "cannot write" in err


def unread(*arguments, stream):
    """Run the console script with ``stream`` a pipe that nobody reads; return its exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | {stream: writer}
    try:
        done = subprocess.run(
            [SCRIPT, *map(str, arguments)], **streams, encoding="utf-8", timeout=60, check=False
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(("factor", "code"), [(1.001, 0), (1.3, 1)])
def test_a_reader_who_leaves_early_changes_no_verdict(old, scaled, factor, code):
    """``evalkit gate … | head -1``, which must neither fail a good model nor pass a bad one."""
    junit = old.parent / "gate.xml"
    new = scaled("new", factor)
    assert unread("gate", new, "--baseline", old, "--junit", junit, stream="stdout") == (
        code,
        f"wrote {junit}\n",
    )
    assert ET.parse(junit).find(".//property[@name='exit_code']").get("value") == str(code)


def test_an_error_that_nobody_reads_is_no_regression(old):
    assert unread("gate", old, "--baseline", old.parent / "absent", stream="stderr")[0] == 5
    assert unread("gate", old, "--baselyne", old, stream="stderr")[0] == 2
    assert unread("list", "models", stream="stdout") == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_75_a_report_that_cannot_be_printed_may_be_tried_again(old, scaled):
    new = scaled("new", 1.3)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [SCRIPT, "gate", new, "--baseline", old], stdout=full, stderr=subprocess.PIPE, encoding="utf-8",
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 75
    assert done.stderr.startswith("evalkit: cannot print the report: No space left on device")
    assert "Traceback" not in done.stderr


def test_the_gate_needs_no_torch(old, scaled):
    program = (
        "import sys\nfrom evalkit.cli.main import run\n"
        "code = run(['gate', *sys.argv[1:]])\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'matplotlib', 'diffusers', 'PIL'} & sys.modules.keys()\n"
        "sys.exit(f'loads {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, scaled("new", 1.3), "--baseline", old, "--rule", "kd"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "REGRESSION" in done.stdout


def test_help_says_rules_examples_and_exit_codes(gate):
    code, out, _ = gate("--help")
    assert code == 0
    assert out.startswith("Usage: evalkit gate --baseline REF [OPTIONS] CANDIDATE")
    for part in (
        "--for [pull-request|release]",
        "Exit codes:",
        "3  not comparable",
        "gate calibrate",
        "band=",
    ):
        assert part in out
    assert all(len(line) <= 100 for line in out.splitlines())
    assert gate("-h")[1] == out


def test_only_the_first_word_calibrate_is_the_command(old, gate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old.rename("calibrate")
    assert gate("./calibrate", "--baseline", "calibrate")[0] == 0
    assert gate("--baseline", "calibrate", "calibrate")[0] == 0
    code, out, _ = gate("calibrate", "--help")
    assert code == 0
    assert out.startswith("Usage: evalkit gate calibrate")


def test_json_on_stdout_is_the_report_alone(old, scaled, gate):
    code, out, err = gate(scaled("new", 1.3), "--baseline", old, "--format", "json")
    data = json.loads(out)
    assert (code, err) == (1, "")
    assert (data["schema"], data["status"], data["exit_code"]) == ("evalkit.gate/1", "regression", 1)
    assert data["baseline"]["source"] == str(old)


def test_markdown_on_stdout(old, gate):
    _, out, _ = gate(old, "--baseline", old, "--format", "md")
    assert out.startswith("## ✅ evalkit gate: pass")


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.3, 1)])
def test_files_are_written_whatever_the_verdict(old, scaled, gate, tmp_path, factor, code):
    summary = tmp_path / "summary.md"
    summary.write_text("# Earlier\n", encoding="utf-8")
    files = ["--junit", tmp_path / "j.xml", "--json", tmp_path / "r.json", "--summary", summary]
    found, out, err = gate(scaled("new", factor), "--baseline", old, *files)
    assert found == code
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["exit_code"] == code
    suite = ET.fromstring((tmp_path / "j.xml").read_text(encoding="utf-8"))[0]
    assert suite.get("failures") == str(code)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("# Earlier\n## ")
    assert f"wrote {tmp_path / 'j.xml'}" in err
    assert f"added to {summary}" in err
    assert "wrote" not in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--rule", "kd stat stat"], 2),
        (["--alpha", "0.9"], 2),
        (["--spec", "absent.toml"], 5),
        (["--baseline", "absent.json"], 5),
    ],
)
def test_a_refusal_is_shown_in_every_file(old, gate, tmp_path, arguments, code, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["--junit", "j.xml", "--json", "r.json", "--summary", "s.md"]
    found, out, err = gate(old, "--baseline", old, *arguments, *files)
    assert (found, out) == (code, "")
    message = json.loads(Path("r.json").read_text(encoding="utf-8"))["message"]
    assert message in err
    error = ET.fromstring(Path("j.xml").read_text(encoding="utf-8")).find(".//error")
    assert error.get("message") == message
    assert f"no verdict (exit code {code})" in Path("s.md").read_text(encoding="utf-8")


def test_a_refusal_that_cannot_be_written_keeps_its_code(gate, old, tmp_path):
    code, _, err = gate(old, "--baseline", old, "--rule", "kd ?", "--summary", tmp_path / "no" / "s.md")
    assert code == 2
    assert "warning: cannot write" in err
    assert "unknown word" in err


def test_a_spec_says_the_rules_and_flags_overrule_it(old, scaled, gate, tmp_path):
    spec = tmp_path / "gate.toml"
    spec.write_text('alpha = 0.01\nburden = "candidate"\n[[rule]]\nmetric = "kd"\nrelative = "5%"\n')
    near = scaled("near", 1.05)
    code, out, _ = gate(near, "--baseline", old, "--spec", spec)
    assert code == 4
    assert "99 % bounds" in out
    code, out, _ = gate(near, "--baseline", old, "--spec", spec, "--for", "pull-request", "--alpha", "0.1")
    assert code == 0
    assert "90 % bounds" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--baseline"),
        (["--baseline", "OLD", "--rule", "kd", "--spec", "x.toml"], 2, "do not go together"),
        (["--baseline", "OLD", "--why", "x"], 2, "--why goes with --accept"),
        (["--baseline", "OLD", "--accept"], 2, "--accept needs a reason"),
        (["--baseline", "OLD", "--accept", "--why", " "], 2, "--accept needs a reason"),
        (["--baseline", "board/scores.csv#a", "--accept", "--why", "x"], 2, "evalkit leaderboard add"),
        (["--baseline", "OLD", "--for", "fun"], 2, "pull-request"),
        (["--baseline", "OLD", "--juint", "x"], 2, "--junit"),
        (["--baseline", "absent"], 5, '--accept --why "the first"'),
        (["--baseline", ""], 2, "the baseline is empty"),
        (["--baseline", "x" * 300], 5, "File name too long"),
        (["--baseline", "x" * 300, "--accept", "--why", "x"], 2, "no file can be named"),
        (["--baseline", "OLD", "--alpha", "1e-17"], 2, "alpha is 1e-17"),
    ],
)
def test_what_cannot_be_is_told_with_its_code(old, gate, arguments, code, message):
    before = old.read_bytes()
    found, _, err = gate(old, *[str(old) if word == "OLD" else word for word in arguments])
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert old.read_bytes() == before


def test_how_to_start_a_baseline_is_told_only_where_one_could_start(old, gate, tmp_path):
    board = tmp_path / "scores.csv"
    board.write_text("model_id,metric,direction,value,fingerprint,run_id,date_utc\nx,kd,lower,1,f,r,2026\n")
    code, _, err = gate(old, "--baseline", f"{board}#ddpm")
    assert (code, "--accept" in err) == (5, False)
    assert "known: x" in err


def test_an_empty_candidate_is_not_the_folder_one_is_in(old, gate, monkeypatch):
    monkeypatch.chdir(old.parent)
    code, out, err = gate("", "--baseline", old)
    assert (code, out) == (2, "")
    assert "the candidate is empty" in err


@pytest.mark.parametrize("candidate", ["absent.json", "empty", "cut.json", "list.json", "binary.json"])
def test_a_candidate_that_is_none_is_told(old, gate, tmp_path, monkeypatch, candidate):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("cut.json").write_bytes(old.read_bytes()[:500])
    Path("list.json").write_text("[]")
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    code, out, err = gate(candidate, "--baseline", old)
    assert code == (5 if candidate in {"absent.json", "empty"} else 6)
    assert out == ""
    assert candidate in err
    assert "Traceback" not in err


def test_accept_after_a_regression_is_loud_and_exits_0(old, scaled, gate):
    new = scaled("new", 1.3)
    code, out, err = gate(new, "--baseline", old, "--accept", "--why", "a smaller network, on purpose")
    assert code == 0
    assert out.startswith("REGRESSION")
    assert "WARNING: the verdict was REGRESSION, and it is accepted" in err
    assert "replaced" in err
    assert RunRecord.read(old).run_id == "20270101T000000Z-new"
    line = json.loads((old.parent / "accepted.jsonl").read_text(encoding="utf-8"))
    assert (line["why"], line["verdict"]) == ("a smaller network, on purpose", "regression")
    assert gate(new, "--baseline", old)[0] == 0


def test_another_protocol_can_be_accepted(old, scaled, bundled, gate):
    new = scaled("new", protocol=bundled("ddpm")["protocol"] | {"fingerprint": "f" * 64})
    code, _, err = gate(new, "--baseline", old, "--accept", "--why", "new protocol")
    assert code == 0
    assert "NOT COMPARABLE, and it is accepted" in err
    assert gate(new, "--baseline", old)[0] == 0


def test_an_accepted_improvement_is_not_loud(old, scaled, gate):
    better = scaled("better", 0.5)
    _, out, _ = gate(better, "--baseline", old)
    assert "--accept --why" in out
    code, _, err = gate(better, "--baseline", old, "--accept", "--why", "better")
    assert code == 0
    assert "WARNING" not in err


def test_the_first_baseline_is_begun_by_accepting(old, gate, tmp_path):
    ref = tmp_path / "baselines" / "ddpm.json"
    code, out, err = gate(old, "--baseline", ref, "--accept", "--why", "the first")
    assert (code, out) == (0, "")
    assert f"there was no baseline at {ref}" in err
    assert gate(old, "--baseline", ref)[0] == 0


def test_what_is_refused_is_not_accepted(old, scaled, gate):
    before = old.read_bytes()
    unfinished = scaled("new", status="partial")
    code, _, err = gate(unfinished, "--baseline", old, "--accept", "--why", "x")
    assert code == 5
    assert "partial, not complete" in err
    assert gate(scaled("fine"), "--baseline", old, "--rule", "kd ?", "--accept", "--why", "x")[0] == 2
    assert old.read_bytes() == before
    assert not (old.parent / "accepted.jsonl").exists()
