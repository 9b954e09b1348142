"""``evalkit gate``: judge a candidate's record against its baseline. Reads JSON only, without torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.gate_options import BURDENS, read_gate_spec
from evalkit.cli.gate_output import Form, Outputs, rendered, say
from evalkit.errors import EvalkitError, NothingMeasuredError, UsageError

if TYPE_CHECKING:
    from evalkit.gate.acceptance import Accepted
    from evalkit.gate.facts import GateReport, GateSpec
    from evalkit.record import RunRecord

_COMMANDS = ("calibrate",)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="--baseline REF [OPTIONS]",
    epilog="One more command: `evalkit gate calibrate --help` measures the false-alarm rate of the gate. A "
    "candidate of that name is ./calibrate.",
)
@click.argument("candidate", type=click.Path())
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
    type=click.Choice(list(BURDENS)),
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
    candidate: str,
    baseline: str,
    rules: Sequence[str],
    spec: Path | None,
    purpose: str | None,
    alpha: float | None,
    form: Form,
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
    outputs = Outputs(junit, summary, json_file)
    try:
        return _run(candidate, baseline, read_gate_spec(rules, spec, purpose, alpha), form, outputs, why)
    except EvalkitError as error:
        outputs.write_refusal(error, Path(candidate).name)
        raise


def _run(candidate: str, ref: str, spec: GateSpec, form: Form, outputs: Outputs, why: str | None) -> int:
    from evalkit.gate.baselines import find_baseline, find_candidate  # noqa: PLC0415 - not for --help
    from evalkit.gate.decision import gate as decide  # noqa: PLC0415

    records = find_candidate(candidate)
    try:
        found = find_baseline(ref, records)
    except NothingMeasuredError as error:
        if why is not None:
            return _accept(records, ref, None, why)
        hints = [*([error.hint] if error.hint else []), *_how_to_start(ref)]
        raise NothingMeasuredError(error.message, hint="; ".join(hints)) from error
    report = decide(records, found, spec, source=candidate)
    say(rendered(report, form), newline=False)
    outputs.write(report)
    return report.exit_code if why is None else _accept(records, ref, report, why)


def _check_acceptance(ref: str, *, accepting: bool, why: str | None) -> None:
    from evalkit.gate.acceptance import check_acceptable  # noqa: PLC0415 - only where asked for

    if not accepting:
        raise UsageError("--why goes with --accept", hint="nothing is accepted without --accept")
    check_acceptable(ref, why or "")


def _how_to_start(ref: str) -> list[str]:
    """Say how a baseline begins, where --accept could write one."""
    from evalkit.gate.acceptance import check_acceptable  # noqa: PLC0415 - only where there is none

    try:
        check_acceptable(ref, "the first")
    except UsageError:
        return []
    return [] if Path(ref).is_file() else ['to start a baseline: --accept --why "the first"']


def _accept(records: Sequence[RunRecord], ref: str, report: GateReport | None, why: str) -> int:
    """Make the candidate the baseline, and say loudly what that means."""
    from evalkit.gate.acceptance import accept  # noqa: PLC0415 - only where asked for

    say(_told(accept(records[0], ref, report=report, why=why), ref), aside=True)
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
