"""What ``evalkit gate`` and ``evalkit score --until-decided`` read alike: the rules, and who must prove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.gate.facts import Burden, GateSpec

BURDENS: dict[str, Burden] = {"pull-request": "regression", "release": "candidate"}
"""What ``--for`` may be."""


def read_gate_spec(
    rules: Sequence[str], spec_file: Path | None, purpose: str | None, alpha: float | None = None
) -> GateSpec:
    """Read the rules from one place; ``--for`` and ``--alpha`` overrule the file.

    Raises:
        UsageError: rules from two places, or as they are read.
    """
    from evalkit.gate.facts import GateSpec  # noqa: PLC0415 - not for --help
    from evalkit.gate.rules import checked_spec, parse_rule, read_spec  # noqa: PLC0415

    if rules and spec_file:
        raise UsageError(
            "--rule and --spec do not go together",
            hint=f"write the rule into {spec_file}, or leave --spec out",
        )
    spec = read_spec(spec_file) if spec_file else GateSpec(rules=tuple(map(parse_rule, rules)))
    if purpose is not None:
        spec = replace(spec, burden=BURDENS[purpose])
    return checked_spec(spec if alpha is None else replace(spec, alpha=alpha))
