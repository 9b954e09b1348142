"""The README promises two lines, and CI runs those very lines."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _marked(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```sh\n(.+?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has lost the block marked {name}"
    return found.group(1)


def test_both_promises_are_one_line_each():
    for name, command in (("main", "evalkit score --model ddpm"), ("test", "pytest")):
        line = _marked(name)
        assert "\n" not in line
        assert "pip install" in line
        assert command in line


def test_ci_takes_its_test_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "test_line=$(line_of test)" in script
    assert 'bash -euo pipefail -c "$test_line"' in script
    assert "pytest" not in script, "CI must not have a test command of its own"
    assert 'bash -euo pipefail -c "$main_line"' in script
    extract = re.search(r"line_of\(\) \{.*?\n\}", script, re.DOTALL)
    assert extract
    done = subprocess.run(
        ["bash", "-c", f"{extract.group(0)}\nline_of test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == _marked("test")


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc", "base"])
def test_no_module_without_a_name(name):
    assert not list((ROOT / "evalkit").rglob(f"{name}.py"))
