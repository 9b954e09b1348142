"""A pytest fixture that fails a test where a model became worse than its baseline. No torch.

    def test_model_is_not_worse(evalkit_gate):
        evalkit_gate("evalkit-runs/", baseline="baselines/ddpm.json", rules=["kd rel=5%"])

pytest loads this module in every run where evalkit is installed, so it imports nothing of evalkit before the
fixture is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from evalkit.errors import EvalkitError
    from evalkit.gate.facts import Burden, GateReport, GateSpec, Rule
    from evalkit.record import RunRecord

_OPTION = "--evalkit-baseline"
_INI = "evalkit_baseline"
_HELP = "baseline of the evalkit_gate fixture: a record, a folder of records, or BOARD/scores.csv#MODEL"


class EvalkitGateWarning(UserWarning):
    """A gate passed though some rule is undecided."""


class GateCheck(Protocol):
    """What the fixture ``evalkit_gate`` is."""

    def __call__(
        self,
        candidate: str | Path | RunRecord,
        *,
        baseline: str | Path | None = None,
        rules: Sequence[str | Rule] = (),
        spec: str | Path | GateSpec | None = None,
        burden: Burden | None = None,
    ) -> GateReport:
        """Judge ``candidate``; see :func:`evalkit_gate`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--evalkit-baseline`` and the ini option ``evalkit_baseline``."""
    parser.getgroup("evalkit").addoption(_OPTION, metavar="REF", default=None, help=_HELP)
    parser.addini(_INI, f"{_HELP}; relative to the ini file", default="")


@pytest.fixture(scope="session")
def evalkit_gate(pytestconfig: pytest.Config) -> GateCheck:
    """Return a function that judges a candidate and fails the test where ``evalkit gate`` would fail.

    ``evalkit_gate(candidate, *, baseline=None, rules=(), spec=None, burden=None)`` returns the
    :class:`evalkit.gate.facts.GateReport`. The candidate is a record, its file, or a folder of records;
    ``baseline`` as of ``evalkit gate``, by default ``--evalkit-baseline`` or the ini option
    ``evalkit_baseline``. ``rules`` or ``spec`` (a TOML file) say what is judged.

    The burden ``regression`` (default, or the spec's) warns with :class:`EvalkitGateWarning` where a rule is
    undecided; under ``candidate`` that fails the test.
    """

    def check(
        candidate: str | Path | RunRecord,
        *,
        baseline: str | Path | None = None,
        rules: Sequence[str | Rule] = (),
        spec: str | Path | GateSpec | None = None,
        burden: Burden | None = None,
    ) -> GateReport:
        __tracebackhide__ = True
        from evalkit.errors import EvalkitError  # noqa: PLC0415 - not in every run of pytest

        ref = baseline if baseline is not None else _default_baseline(pytestconfig)
        try:
            report = _judge(candidate, ref, _spec(rules, spec, burden))
        except EvalkitError as error:
            pytest.fail(_told(error), pytrace=False)
        _conclude(report)
        return report

    return check


def _judge(candidate: str | Path | RunRecord, ref: str | Path | None, spec: GateSpec) -> GateReport:
    from evalkit.errors import UsageError  # noqa: PLC0415 - not in every run of pytest
    from evalkit.gate.baselines import find_baseline, find_candidate  # noqa: PLC0415
    from evalkit.gate.decision import gate  # noqa: PLC0415
    from evalkit.record import RunRecord  # noqa: PLC0415

    if ref is None:
        raise UsageError(
            "evalkit_gate has no baseline", hint=f"give baseline=…, {_OPTION}, or {_INI} in the ini file"
        )
    if isinstance(candidate, RunRecord):
        return gate((candidate,), find_baseline(str(ref), (candidate,)), spec, source="the test")
    records = find_candidate(candidate)
    return gate(records, find_baseline(str(ref), records), spec, source=str(candidate))


def _spec(rules: Sequence[str | Rule], spec: str | Path | GateSpec | None, burden: Burden | None) -> GateSpec:
    from dataclasses import replace  # noqa: PLC0415 - not in every run of pytest

    from evalkit.errors import UsageError  # noqa: PLC0415
    from evalkit.gate.facts import GateSpec  # noqa: PLC0415
    from evalkit.gate.rules import parse_rule, read_spec  # noqa: PLC0415

    if isinstance(rules, str):
        raise UsageError(f"rules is the text {rules!r}", hint=f"give a list: rules=[{rules!r}]")
    if rules and spec is not None:
        raise UsageError("rules and spec do not go together", hint="say the rules in one place")
    if isinstance(spec, GateSpec):
        chosen = spec
    elif spec is not None:
        chosen = read_spec(Path(spec))
    else:
        chosen = GateSpec(rules=tuple(parse_rule(rule) if isinstance(rule, str) else rule for rule in rules))
    return chosen if burden is None else replace(chosen, burden=burden)


def _conclude(report: GateReport) -> None:
    """Fail the test, or warn of what the gate lets pass."""
    __tracebackhide__ = True
    from evalkit.gate.sentences import verdict  # noqa: PLC0415 - not in every run of pytest

    if report.exit_code:
        from evalkit.gate.table import gate_table  # noqa: PLC0415
        from evalkit.reporting.rendering import to_terminal  # noqa: PLC0415

        pytest.fail(to_terminal(gate_table(report)), pytrace=False)
    if any(outcome.status == "inconclusive" for outcome in report.outcomes):
        told = "; ".join(o.reason for o in report.outcomes if o.status == "inconclusive")
        # The test that called the fixture, not this file.
        warnings.warn(f"{verdict(report)} ({told})", EvalkitGateWarning, stacklevel=3)


def _default_baseline(config: pytest.Config) -> str | None:
    """Return the baseline of the command line, else of the ini file, whose folder it is relative to."""
    option: str | None = config.getoption(_OPTION)
    ini: str = config.getini(_INI)
    if option or not ini:
        return option
    return str((config.inipath.parent if config.inipath else config.rootpath) / ini)


def _told(error: EvalkitError) -> str:
    hint = f"\n   hint: {error.hint}" if error.hint else ""
    return f"evalkit gate: {error.message}{hint}\n(evalkit gate would exit with {error.exit_code})"
