"""The fixture ``evalkit_gate`` in inner runs of pytest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# An inner run forgets the modules that it imported, and numpy cannot be imported twice in one process.
import evalkit.numerics.resampling  # noqa: F401

pytest_plugins = ["pytester"]


@pytest.fixture
def inner(pytester, monkeypatch):
    """Run a test file in which the records of ``scaled`` lie; return pytest's result."""
    # Only the plugin under test counts, whether its entry point is installed here or not.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def call(body, *arguments):
        pytester.makepyfile(body)
        return pytester.runpytest("-p", "evalkit.pytest_plugin", "-q", *arguments)

    return call


@pytest.fixture
def old(scaled):
    return scaled("old")


def calling(candidate, *options):
    arguments = ", ".join([repr(str(candidate)), *options])
    return f"""
        def test_quality(evalkit_gate):
            report = evalkit_gate({arguments})
            print(report.status)
    """


def test_a_good_model_passes_and_the_report_comes_back(inner, scaled, old):
    result = inner(calling(scaled("new"), f"baseline={str(old)!r}"), "-s", "-W", "error")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*pass*"])


def test_a_worse_model_fails_with_the_table_and_no_traceback(inner, scaled, old):
    new = scaled("new", 1.3)
    result = inner(calling(new, f"baseline={str(old)!r}", "rules=['kd rel=5%']"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "REGRESSION: ddpm is worse than its baseline (20270101T000000Z-old) in kd:efficientnet-lite0",
            "kd ↓ *regression*4.43 ± 0.10*",
            "kd:efficientnet-lite0: worse by *",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_another_protocol_fails_with_the_remedy(inner, scaled, bundled, old):
    protocol = bundled("ddpm")["protocol"]
    protocol["fields"]["num_images"] = 2048
    new = scaled("new", protocol=protocol | {"fingerprint": "f" * 64})
    result = inner(calling(new, f"baseline={str(old)!r}"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["NOT COMPARABLE*", "num_images: candidate 2048, baseline 1024"])
    result.stdout.fnmatch_lines(["Remedy: to compare ddpm with ddpm *"])


def test_a_missing_metric_fails(inner, old):
    result = inner(calling(old, f"baseline={str(old)!r}", "rules=['recal']"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["MISSING*", "*did you mean 'recall*"])


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["baseline='absent.json'"], "evalkit gate: no baseline at absent.json", 5),
        (["baseline=OLD", "rules=['kd ?']"], "evalkit gate: rule 'kd ?': unknown word*", 2),
        (["baseline=OLD", "rules='kd'"], "evalkit gate: rules is the text 'kd'", 2),
        (["baseline=OLD", "rules=['kd']", "spec='x'"], "evalkit gate: rules and spec do not go together", 2),
        ([], "evalkit gate: evalkit_gate has no baseline", 2),
    ],
)
def test_what_cannot_be_judged_fails_with_message_and_hint(inner, old, options, message, code):
    result = inner(calling(old, *[option.replace("OLD", repr(str(old))) for option in options]))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message, "   hint: *", f"(evalkit gate would exit with {code})"])
    result.stdout.no_fnmatch_line("*Error*pytest_plugin*")


def test_undecided_warns_at_the_line_of_the_test_or_fails(inner, scaled, old):
    near, baseline = scaled("near", 1.05), f"baseline={str(old)!r}"
    passing = inner(calling(near, baseline, "rules=['kd rel=5%']"), "-W", "default")
    passing.assert_outcomes(passed=1, warnings=1)
    passing.stdout.fnmatch_lines(["*test_undecided*.py:*EvalkitGateWarning: PASS: ddpm is not shown*"])
    failing = inner(calling(near, baseline, "rules=['kd rel=5%']", "burden='candidate'"))
    failing.assert_outcomes(failed=1)
    failing.stdout.fnmatch_lines(["INCONCLUSIVE: *"])
    strict = inner(calling(near, baseline, "rules=['kd rel=5%']"), "-W", "error")
    strict.assert_outcomes(failed=1)


def test_the_baseline_may_come_from_the_command_line_or_the_ini_file(inner, pytester, scaled, old, tmp_path):
    new = scaled("new")
    inner(calling(new), "--evalkit-baseline", str(old)).assert_outcomes(passed=1)
    pytester.makeini("[pytest]\nevalkit_baseline = baselines/ddpm.json\n")
    folder = pytester.mkdir("baselines")
    (folder / "ddpm.json").write_bytes(scaled("ini", 0.5).read_bytes())
    found = inner(calling(new))
    found.assert_outcomes(failed=1)  # twice as bad as the one of the ini file
    found.stdout.fnmatch_lines(["*20270101T000000Z-ini*"])
    # Relative to the ini file, wherever pytest is started.
    pytester.mkdir("below")
    pytester.chdir()
    result = pytester.runpytest("-p", "evalkit.pytest_plugin", "--rootdir", ".", "-q")
    result.assert_outcomes(failed=1)
    inner(calling(new), "--evalkit-baseline", str(old)).assert_outcomes(passed=1)


def test_a_record_and_a_spec_may_be_objects(inner, scaled, old):
    body = f"""
        from pathlib import Path
        from evalkit.gate.facts import GateSpec, Rule
        from evalkit.record import RunRecord

        def test_quality(evalkit_gate):
            record = RunRecord.read(Path({str(scaled("new"))!r}))
            spec = GateSpec(rules=(Rule(metric="kd", relative=0.05),), burden="candidate")
            assert evalkit_gate(record, baseline=Path({str(old)!r}), spec=spec).spec.burden == "candidate"
            rules = [Rule(metric="kd", relative=0.05), "precision rel=10%"]
            assert len(evalkit_gate(record, baseline={str(old)!r}, rules=rules).outcomes) == 2
    """
    inner(body).assert_outcomes(passed=1)


def test_a_spec_file_says_rules_and_burden(inner, scaled, old, tmp_path):
    spec = tmp_path / "gate.toml"
    spec.write_text('burden = "candidate"\n[[rule]]\nmetric = "kd"\nrelative = "5%"\n')
    result = inner(calling(scaled("near", 1.05), f"baseline={str(old)!r}", f"spec={str(spec)!r}"))
    result.assert_outcomes(failed=1)


def test_help_names_the_option(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest("-p", "evalkit.pytest_plugin", "--help")
    result.stdout.fnmatch_lines(["*--evalkit-baseline=REF*", "*evalkit_baseline (string)*"])
    fixtures = pytester.runpytest("-p", "evalkit.pytest_plugin", "--fixtures")
    fixtures.stdout.fnmatch_lines(["evalkit_gate * -- *"])


def test_loading_the_plugin_loads_nothing_else_of_evalkit():
    program = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport evalkit.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["evalkit", "evalkit.pytest_plugin"]


def test_the_entry_point_is_this_module():
    file = Path(__file__).parents[2] / "pyproject.toml"
    points = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["entry-points"]["pytest11"]
    assert points == {"evalkit": "evalkit.pytest_plugin"}
