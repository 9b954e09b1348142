"""``evalkit gate``: judge a candidate's record against its baseline. Reads JSON only, without torch."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from evalkit.atomic import write_atomically
from evalkit.errors import EvalkitError, NothingMeasuredError, TemporaryError, UsageError

if TYPE_CHECKING:
    from evalkit.gate.acceptance import Accepted
    from evalkit.gate.facts import Burden, GateReport, GateSpec
    from evalkit.record import RunRecord

_Form = Literal["table", "json", "md"]
_COMMANDS = ("calibrate",)
_BURDENS: dict[str, Burden] = {"pull-request": "regression", "release": "candidate"}


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where the report goes besides stdout."""

    junit: Path | None
    summary: Path | None
    json: Path | None

    def write(self, report: GateReport) -> None:
        from evalkit.gate.export import to_json, to_markdown  # noqa: PLC0415 - only where asked for
        from evalkit.gate.junit import to_junit  # noqa: PLC0415

        if self.junit:
            _write(self.junit, to_junit(report))
        if self.json:
            _write(self.json, to_json(report))
        if self.summary:
            _append(self.summary, to_markdown(report))

    def write_refusal(self, error: EvalkitError, candidate: str) -> None:
        """Show in CI why there is no verdict. What cannot be written must not hide that."""
        from evalkit.gate.export import refusal_json, refusal_markdown  # noqa: PLC0415 - only where asked for
        from evalkit.gate.junit import refusal_junit  # noqa: PLC0415

        try:
            if self.junit:
                _write(self.junit, refusal_junit(error, candidate=candidate))
            if self.json:
                _write(self.json, refusal_json(error))
            if self.summary:
                _append(self.summary, refusal_markdown(error))
        except TemporaryError as failure:
            click.echo(f"warning: {failure.message}", err=True)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="--baseline REF [OPTIONS]",
    epilog="One more command: `evalkit gate calibrate --help` measures the false-alarm rate of the gate. A "
    "candidate of that name is ./calibrate.",
)
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    required=True,
    metavar="REF",
    help="What to compare with: a record, a folder of records, or BOARD/scores.csv#MODEL.",
)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="RULE",
    help="What one metric may do; repeatable. Default: the headline metric, 5 %.",
)
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with the rules, alpha and burden, instead of --rule.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(list(_BURDENS)),
    help="Who must prove. pull-request: what is not shown to be worse passes. release: what is not shown to "
    "be as good exits 4. Default: the spec's burden, else pull-request.",
)
@click.option(
    "--alpha",
    type=float,
    metavar="A",
    help="Chance of one false alarm over all rules. Default: the spec's, else 0.05.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "md"]),
    default="table",
    show_default=True,
    help="How to print the report.",
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML, for CI.")
@click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append Markdown, for example to $GITHUB_STEP_SUMMARY.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report as JSON too.",
)
@click.option(
    "--accept", "accepting", is_flag=True, help="Make CANDIDATE the baseline, whatever the verdict."
)
@click.option("--why", metavar="TEXT", help="Reason of --accept; it is kept in accepted.jsonl.")
def _judge(
    candidate: Path,
    baseline: str,
    rules: Sequence[str],
    spec: Path | None,
    purpose: str | None,
    alpha: float | None,
    form: _Form,
    junit: Path | None,
    summary: Path | None,
    json_file: Path | None,
    accepting: bool,
    why: str | None,
) -> int:
    """Fail where CANDIDATE, a record or a folder of records, became worse than its baseline.

    \b
    evalkit gate new.json --baseline baselines/ddpm.json
    evalkit gate evalkit-runs/ --baseline leaderboards/x/scores.csv#ddpm \\
        --rule "kd rel=5%" --rule "throughput rel rel=10%"
    evalkit gate new.json --baseline baselines/ddpm.json --spec gate.toml --for release
    evalkit gate new.json --baseline baselines/ddpm.json --accept --why "new sampler"

    A rule is METRIC[/VARIANT] and words:

    \b
    rel=5%, abs=0.1   the margin: the larger of both is tolerated
    stat              compare confidence bounds with the margin; the default where error bars exist
    rel, abs          compare the plain difference with the margin (throughput has no error bar)
    band=0..400       hold the candidate itself between two values

    The baseline never changes but by --accept; --accept starts one too.

    \b
    Exit codes:
      0  pass, or accepted        4  undecided, for a release
      1  regression               5  nothing measured: no baseline, no such metric
      2  wrong usage              6  invalid record: corrupt, NaN
      3  not comparable           70 internal error; 75 try again
    """
    if accepting or why is not None:
        _check_acceptance(baseline, accepting=accepting, why=why)
    outputs = _Outputs(junit, summary, json_file)
    try:
        return _run(candidate, baseline, _spec(rules, spec, purpose, alpha), form, outputs, why)
    except EvalkitError as error:
        outputs.write_refusal(error, candidate.name)
        raise


def _run(candidate: Path, ref: str, spec: GateSpec, form: _Form, outputs: _Outputs, why: str | None) -> int:
    from evalkit.gate.baselines import find_baseline, find_candidate  # noqa: PLC0415 - not for --help
    from evalkit.gate.decision import gate as decide  # noqa: PLC0415

    records = find_candidate(candidate)
    try:
        found = find_baseline(ref, records)
    except NothingMeasuredError as error:
        if why is None:
            start = 'to start a baseline: --accept --why "the first"'
            hint = f"{error.hint}; {start}" if error.hint else start
            raise NothingMeasuredError(error.message, hint=hint) from error
        return _accept(records, ref, None, why)
    report = decide(records, found, spec, source=str(candidate))
    click.echo(_rendered(report, form), nl=False)
    outputs.write(report)
    return report.exit_code if why is None else _accept(records, ref, report, why)


def _spec(rules: Sequence[str], spec_file: Path | None, purpose: str | None, alpha: float | None) -> GateSpec:
    """Read the rules from one place; --for and --alpha overrule the file."""
    from evalkit.gate.facts import GateSpec  # noqa: PLC0415 - not for --help
    from evalkit.gate.rules import checked_spec, parse_rule, read_spec  # noqa: PLC0415

    if rules and spec_file:
        raise UsageError(
            "--rule and --spec do not go together",
            hint=f"write the rule into {spec_file}, or leave --spec out",
        )
    spec = read_spec(spec_file) if spec_file else GateSpec(rules=tuple(map(parse_rule, rules)))
    if purpose is not None:
        spec = replace(spec, burden=_BURDENS[purpose])
    return checked_spec(spec if alpha is None else replace(spec, alpha=alpha))


def _check_acceptance(ref: str, *, accepting: bool, why: str | None) -> None:
    from evalkit.gate.acceptance import check_acceptable  # noqa: PLC0415 - only where asked for

    if not accepting:
        raise UsageError("--why goes with --accept", hint="nothing is accepted without --accept")
    check_acceptable(ref, why or "")


def _accept(records: Sequence[RunRecord], ref: str, report: GateReport | None, why: str) -> int:
    """Make the candidate the baseline, and say loudly what that means."""
    from evalkit.gate.acceptance import accept  # noqa: PLC0415 - only where asked for

    click.echo(_told(accept(records[0], ref, report=report, why=why), ref), err=True)
    return 0


def _told(accepted: Accepted, ref: str) -> str:
    verdict, run_id = accepted.line.verdict, accepted.line.run_id
    lines = []
    if verdict == "first":
        lines.append(f"there was no baseline at {ref}")
    elif verdict != "pass":
        lines.append(f"WARNING: the verdict was {verdict.replace('-', ' ').upper()}, and it is accepted")
    lines.append(f"accepted: {run_id} is the baseline now ({accepted.record})")
    if accepted.replaced:
        lines.append(f"the old one is kept: {accepted.replaced}")
    return "\n".join([*lines, f"why, and the old and new values: {accepted.log}"])


def _rendered(report: GateReport, form: _Form) -> str:
    from evalkit.gate.export import to_json, to_markdown  # noqa: PLC0415 - not for --help
    from evalkit.gate.table import gate_table  # noqa: PLC0415
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH, to_terminal  # noqa: PLC0415

    if form == "json":
        return to_json(report)
    if form == "md":
        return to_markdown(report)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    return to_terminal(gate_table(report), style=style_for(sys.stdout), width=width)


def _write(path: Path, text: str) -> None:
    write_atomically(path, text)
    click.echo(f"wrote {path}", err=True)


def _append(path: Path, text: str) -> None:
    """Add to a file that other steps and gates write too."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space or choose another place"
        ) from error
    click.echo(f"added to {path}", err=True)


class _GateGroup(click.Group):
    """The gate itself, unless the first word is one of its commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module("evalkit.cli.gate_calibrate").calibrate
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> click.Context:
        if args and args[0] in _COMMANDS:
            return super().make_context(info_name, args, parent, **extra)
        return _judge.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


gate = _GateGroup("gate", help="Fail where a model became worse than its baseline.")
