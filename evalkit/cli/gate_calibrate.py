"""``evalkit gate calibrate``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import (
    device_option,
    dtype_option,
    names,
    preset_option,
    sampling_options,
    take_sampling_options,
)
from evalkit.errors import InconclusiveError

if TYPE_CHECKING:
    from evalkit.calibration import Calibration, CalibrationRequest


@click.command(context_settings={"show_default": True})
@click.option("--model", default="cgan", metavar="NAME|pkg.mod:obj", help="Model to draw from.")
@click.option(
    "--ckpt",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its checkpoint; the bundled one by default.",
)
@preset_option
@click.option("--reference", metavar="NAME|PATH", help="Real images; needed for a model of your own.")
@click.option("--protocol", default="auto", metavar="NAME", help="See `evalkit list protocols`.")
@click.option(
    "--metrics", default="", show_default=False, callback=names, metavar="A,B,…",
    help="Metrics; those of the protocol by default.",
)  # fmt: skip
@click.option("--num-samples", type=int, default=256, metavar="N", help="Images of a run.")
@click.option("--trials", type=int, default=30, metavar="T", help="Pairs of real runs; 0: none.")
@click.option(
    "--synthetic", type=int, default=200, metavar="T", help="Synthetic trials of each kind; 0: none."
)
@click.option(
    "--rule", "rules", multiple=True, metavar="RULE",
    help="Judge the real pairs by this, as in `evalkit gate --rule`; every score at margin 0 by default.",
)  # fmt: skip
@click.option("--alpha", type=float, default=0.05, help="Level of the gate, one-sided.")
@click.option("--seed", type=int, default=0, help="First base seed; the runs take the ones after it.")
@sampling_options
@device_option
@dtype_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evalkit-calibration"),
    help="Folder of the runs, from which a second call goes on; apart from runs that are to be compared.",
)
@click.option("--format", "form", type=click.Choice(["table", "md", "json"]), default="table")
def calibrate(form: str, **flags: Any) -> None:  # noqa: ANN401
    """Measure how often the gate cries wolf, and how far rounding moves a score.

    \b
    evalkit gate calibrate                          the bundled GAN: a few minutes on two cores
    evalkit gate calibrate --trials 0               synthetic trials only: seconds
    evalkit gate calibrate --model ddpm --steps 10 --rule 'kd rel=5%'

    Runs of one model on disjoint seeds differ by chance alone: what the gate finds there is a false alarm.
    The same command goes on where an earlier one was stopped.

    Leaves with 0 where all rates are what the level promises, 4 where one is not.
    """
    from evalkit.calibration import calibrate as run  # noqa: PLC0415 - loads torch
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415

    request = _request(flags)
    request.check()
    with signals() as stop, StderrConsole() as console:
        found = run(request, console=console, stop=stop)
    click.echo(_shown(found, form), nl=False)
    if not found.calibrated:
        raise InconclusiveError(
            f"not calibrated: {'; '.join(found.faults)}",
            hint="3 in 1000 honest rules come out so by chance: more trials tell; a margin quiets a rule",
        )


def _request(flags: dict[str, Any]) -> CalibrationRequest:
    from evalkit.calibration import CalibrationRequest  # noqa: PLC0415 - loads torch
    from evalkit.gate.rules import parse_rule  # noqa: PLC0415
    from evalkit.request import ScoreRequest  # noqa: PLC0415

    rules = tuple(parse_rule(text) for text in flags.pop("rules"))
    trials, synthetic, alpha = flags.pop("trials"), flags.pop("synthetic"), flags.pop("alpha")
    sampling = take_sampling_options(flags, dtype=flags.pop("dtype"))
    score = ScoreRequest(**flags, sampling=sampling, command=("evalkit", *sys.argv[1:]))
    return CalibrationRequest(score=score, trials=trials, synthetic=synthetic, rules=rules, alpha=alpha)


def _shown(found: Calibration, form: str) -> str:
    from evalkit.calibration.tables import tables, to_data, verdict  # noqa: PLC0415 - loads torch
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH, to_markdown, to_terminal  # noqa: PLC0415

    if form == "json":
        return json.dumps(to_data(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "md":
        return "\n".join([*map(to_markdown, tables(found)), verdict(found) + "\n"])
    style = style_for(sys.stdout)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    parts = [to_terminal(table, style=style, width=width) for table in tables(found)]
    ending = style.toned(style.plain(verdict(found)), "good" if found.calibrated else "bad")
    return "\n".join([*parts, ending + "\n"])
