"""The flags of ``evalkit score --until-decided``: a gate while the model is still sampled."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.gate_options import BURDENS, read_gate_spec
from evalkit.cli.gate_output import say
from evalkit.cli.options import F
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.anytime import Decision
    from evalkit.console import Console
    from evalkit.gate.facts import GateSpec
    from evalkit.reporting.rendering import Format
    from evalkit.request import ScoreRequest

_FLAGS = {
    "baseline": "--baseline",
    "rules": "--rule",
    "spec": "--spec",
    "purpose": "--for",
}


def until_decided_options(command: F) -> F:
    """Add the flags."""
    options = (
        click.option(
            "--until-decided",
            is_flag=True,
            help="Stop sampling as soon as the gate against --baseline is certain, and exit with its code.",
        ),
        click.option(
            "--baseline",
            metavar="REF",
            help="Of --until-decided: a record, or a folder of records, drawn from the same seeds.",
        ),
        click.option(
            "--rule",
            "rules",
            multiple=True,
            metavar="RULE",
            help="Of --until-decided, as of `evalkit gate`: 'kd rel=5%'; repeatable.",
        ),
        click.option(
            "--spec",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Of --until-decided: TOML file with the rules, alpha and burden, instead of --rule.",
        ),
        click.option(
            "--for",
            "purpose",
            type=click.Choice(list(BURDENS)),
            help="Of --until-decided: who must prove; what is undecided at the end passes a pull-request and "
            "exits 4 for a release.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilDecided:
    """What the flags ask for."""

    baseline: str
    spec: GateSpec

    def check(self, request: ScoreRequest) -> None:
        """Refuse what cannot be decided before anything is loaded."""
        from evalkit.anytime import check_request  # noqa: PLC0415 - loads torch

        check_request(request, self.spec)

    def run(
        self, request: ScoreRequest, *, console: Console, stop: Callable[[], int], output_format: Format
    ) -> int:
        """Sample, print the report, and return the gate's exit code."""
        from evalkit.anytime import score_until_decided  # noqa: PLC0415 - loads torch

        decision = score_until_decided(
            request, baseline=self.baseline, spec=self.spec, console=console, stop=stop
        )
        say(_rendered(decision, output_format), newline=False)
        console.note(f"record: {request.out / decision.record.run_id}.json ({decision.record.status})")
        if decision.record.status == "partial":
            console.note(
                "what was drawn is kept: the same command without --until-decided and its flags draws the "
                f"other {decision.planned - decision.drawn:,} images and scores all"
            )
        return decision.report.exit_code


def take_until_decided(flags: dict[str, Any], *, models: int) -> UntilDecided | None:
    """Take the flags out of ``flags``; None where the run is to go to its end.

    Raises:
        UsageError: flags without each other, or not one model; or as the rules are read.
    """
    asked = flags.pop("until_decided")
    given = {name: flags.pop(name) for name in _FLAGS}
    if not asked:
        for name, value in given.items():
            if value not in (None, ()):
                raise UsageError(
                    f"{_FLAGS[name]} belongs to --until-decided", hint="evalkit gate judges finished records"
                )
        return None
    if given["baseline"] is None:
        raise UsageError("--until-decided needs --baseline", hint="--baseline RECORD.json")
    if flags["task"] != "generate" or flags["images"] is not None or models != 1:
        raise UsageError(
            "--until-decided samples one --model: it saves drawing images",
            hint="score to the end, then evalkit gate",
        )
    return UntilDecided(
        baseline=given["baseline"], spec=read_gate_spec(given["rules"], given["spec"], given["purpose"])
    )


def _rendered(decision: Decision, output_format: Format) -> str:
    from evalkit.anytime import decision_table  # noqa: PLC0415 - loads torch
    from evalkit.gate.export import to_json, to_markdown  # noqa: PLC0415
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH, render  # noqa: PLC0415

    if output_format == "json":
        return to_json(decision.report)
    if output_format == "md":
        return f"{to_markdown(decision.report)}\n{decision.summary}\n"
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    return render(decision_table(decision), output_format, style=style_for(sys.stdout), width=width)
