"""The GitHub Action as a runner would run it, and the example pipelines as their readers parse them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from evalkit.cli.gate import gate
from evalkit.cli.main import cli

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
EVIL = '"; touch pwned; echo "$(touch pwned)`touch pwned`'


def substituted(text, inputs):
    """Replace the expressions of an env value or a condition as a runner does."""
    values = {f"inputs.{name}": value for name, value in inputs.items()}
    values |= {"github.action_path": "/the/action"}
    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda match: values[match[1]], text)


class Runner:
    """Runs the ``run:`` steps of the action; ``uses:`` steps are skipped."""

    def __init__(self, folder, inputs):
        self.folder = folder
        self.inputs = {name: spec.get("default", "") for name, spec in ACTION["inputs"].items()} | inputs
        self.output, self.summary = folder / "output", folder / "summary.md"

    def run(self, step_id, **variables):
        step = next(step for step in STEPS if step.get("id") == step_id)
        script = self.folder / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        bin_folder = str(Path(sys.executable).parent)
        environment = {
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
            "HOME": str(self.folder),
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            **{name: substituted(value, self.inputs) for name, value in step["env"].items()},
            **variables,
        }
        # As the runner starts a step with `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, encoding="utf-8", check=False
        )

    def outputs(self):
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def runner(tmp_path):
    return lambda **inputs: Runner(tmp_path, inputs)


def test_a_regression_fails_the_step_and_is_shown_everywhere(runner, scaled, tmp_path):
    made = runner(
        candidate=scaled("new", 1.3).name,
        baseline=scaled("old").name,
        rules="kd rel=5%\n\n  precision rel=50%\n",
    )
    done = made.run("gate")
    assert done.returncode == 1, done.stderr
    outputs = made.outputs()
    assert (outputs["verdict"], outputs["exit-code"]) == ("regression", "1")
    report = json.loads(Path(outputs["report"]).read_text(encoding="utf-8"))
    assert [outcome["status"] for outcome in report["outcomes"]] == ["regression", "pass"]
    assert done.stdout.startswith("REGRESSION")
    assert "## ❌ evalkit gate: regression" in made.summary.read_text(encoding="utf-8")
    suite = ET.fromstring((tmp_path / "evalkit-gate.xml").read_text(encoding="utf-8"))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_a_spec_and_no_junit(runner, scaled, tmp_path):
    spec = tmp_path / "gate spec.toml"
    spec.write_text('[[rule]]\nmetric = "kd"\nrelative = "5%"\n')
    new, old = scaled("new"), scaled("old")
    made = runner(candidate=new.name, baseline=old.name, spec=spec.name, junit="", mode="release")
    done = made.run("gate")
    assert done.returncode == 0, done.stderr
    assert made.outputs()["verdict"] == "pass"
    assert not list(tmp_path.glob("*.xml"))


@pytest.mark.parametrize("name", ["candidate", "baseline", "rules", "spec", "mode", "junit"])
def test_no_input_is_run_as_a_command(runner, scaled, tmp_path, name):
    inputs = {"candidate": scaled("new").name, "baseline": scaled("old").name}
    made = runner(**inputs | {name: EVIL})
    done = made.run("gate")
    assert not list(tmp_path.rglob("pwned"))
    expected = {"candidate": "5", "baseline": "5", "rules": "2", "spec": "5", "mode": "2", "junit": "0"}
    assert made.outputs()["exit-code"] == expected[name] == str(done.returncode)
    assert made.outputs().keys() == {"verdict", "exit-code", "report"}


def test_a_candidate_that_looks_like_an_option_is_a_path(runner, scaled):
    scaled("old")
    made = runner(candidate="--accept", baseline="old.json")
    done = made.run("gate")
    assert done.returncode == 5
    assert "no record or folder at --accept" in done.stderr
    assert made.outputs()["verdict"] == "missing"


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("", "/the/action"), ("evalkit==0.1.0", "evalkit==0.1.0"), ("-r evil.txt", "-r evil.txt"), (EVIL, EVIL)],
)
def test_what_is_installed_is_what_was_asked_for(runner, tmp_path, version, wanted):
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    (fake / "python").chmod(0o755)
    path = os.pathsep.join([str(fake), os.environ["PATH"]])
    done = runner(candidate="x", baseline="y", version=version).run("install", PATH=path)
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["-m", "pip", "install", "--quiet", "--", wanted]
    assert not list(tmp_path.rglob("pwned"))


def test_the_action_is_well_formed():
    assert ACTION["runs"]["using"] == "composite"
    assert {name for name, spec in ACTION["inputs"].items() if spec.get("required")} == {
        "candidate",
        "baseline",
    }
    assert all(spec["description"] for part in ("inputs", "outputs") for spec in ACTION[part].values())
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == ACTION["inputs"].keys()
    for step in STEPS:
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            assert "${{" not in step["run"]  # an input inside a script would be run
            assert step["shell"] == "bash"
        else:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
    outputs = {
        re.search(r"steps\.gate\.outputs\.([\w-]+)", spec["value"])[1] for spec in ACTION["outputs"].values()
    }
    assert outputs == ACTION["outputs"].keys() == {"verdict", "exit-code", "report"}
    keep = STEPS[-1]
    assert keep["if"].startswith("always()")  # also of a gate that failed


def commands(text):
    """Yield the evalkit commands of an example, as words."""
    for line in text.splitlines():
        found = re.match(r"\s*(?:- |run: |cmd: |#\s+)?(evalkit (?:score|gate) .*)", line)
        if found:
            yield shlex.split(found[1])


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-ci.yml", "dvc.yaml"])
def test_the_commands_of_the_examples_exist(name):
    text = (ROOT / "docs" / "ci" / name).read_text(encoding="utf-8")
    found = list(commands(text))
    assert {words[1] for words in found} == {"score", "gate"}
    for words in found:
        command = gate if words[1] == "gate" else cli.get_command(None, words[1])
        context = command.make_context(words[1], words[2:])
        assert context.params["baseline" if words[1] == "gate" else "models"]


def test_the_github_example_uses_the_action_as_it_is():
    workflow = yaml.safe_load((ROOT / "docs" / "ci" / "github-workflow.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    assert "pull_request" in workflow[True]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    used = next(step for step in steps if step.get("id") == "gate")
    assert used["with"].keys() <= ACTION["inputs"].keys()
    assert {"candidate", "baseline"} <= used["with"].keys()
    assert all("${{" not in step.get("run", "") for step in steps)


def test_the_gitlab_example_keeps_the_junit_report_of_a_failed_gate():
    pipeline = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab-ci.yml").read_text(encoding="utf-8"))
    for name in ("gate", "release-gate"):
        job = pipeline[name]
        assert job["artifacts"]["when"] == "always"
        assert f"--junit {job['artifacts']['reports']['junit']}" in job["script"][0]
        assert job["stage"] in pipeline["stages"]
        # GitLab leaves a job without rules out of the pipelines of merge requests.
        assert {rule["if"] for rule in job["rules"]} <= {rule["if"] for rule in pipeline["score"]["rules"]}
    assert "--for release" in pipeline["release-gate"]["script"][0]


def test_the_dvc_example_depends_on_what_its_command_reads():
    stages = yaml.safe_load((ROOT / "docs" / "ci" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert all(dep in stages["gate"]["cmd"] for dep in stages["gate"]["deps"])
    assert "evalkit-runs" in stages["score"]["cmd"]
    assert "--json gate.json" in stages["gate"]["cmd"]
