"""The rows of docs/robustness.md: what goes wrong, what is expected, which tests prove it. Runs nothing."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
FAULTS = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """A row."""

    section: str
    id: str
    fault: str
    expected: str


@dataclass(frozen=True)
class Proof:
    """A test function, and the rows that it names."""

    node: str
    faults: tuple[str, ...]
    exhaustive: bool


def read_faults() -> tuple[Fault, ...]:
    """Return the rows in order."""
    return tuple(Fault(**row) for row in tomllib.loads(FAULTS.read_text(encoding="utf-8"))["fault"])


def find_proofs() -> list[Proof]:
    """Return every test that names a row, in the order of files and lines."""
    return [proof for path in sorted(TESTS.rglob("test_*.py")) for proof in _in_file(path)]


def _in_file(path: Path) -> Iterator[Proof]:
    text = path.read_text(encoding="utf-8")
    if "mark.fault(" not in text:
        return
    for item in ast.parse(text).body:
        if isinstance(item, ast.FunctionDef):
            calls = [found for found in item.decorator_list if isinstance(found, ast.Call)]
            named = [call for call in calls if _mark(call.func) == "fault"]
            if named:
                ids = tuple(str(ast.literal_eval(word)) for call in named for word in call.args)
                marks = {_mark(found) for found in item.decorator_list}
                node = f"{path.relative_to(TESTS.parent).as_posix()}::{item.name}"
                yield Proof(node, ids, "exhaustive" in marks)


def _mark(decorator: ast.expr) -> str:
    return decorator.attr if isinstance(decorator, ast.Attribute) else ""
