"""``evalkit bench``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import (
    device_option,
    dtype_option,
    format_option,
    names,
    out_option,
    sampling_options,
    take_sampling_options,
)
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.reporting.rendering import Format, Table
    from evalkit.request import ScoreRequest


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of numbers of at least 1, such as 1,8,32")
    return tuple(int(part) for part in parts)


@click.command(context_settings={"show_default": True})
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--ckpt", "ckpts", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Checkpoint of each MODEL, in the same order; the bundled one by default.",
)  # fmt: skip
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice(["both", "offline", "single-stream"]),
    default="both",
    help="offline: batches, images/s; single-stream: one image at a time, milliseconds.",
)
@click.option(
    "--batch-sizes", default="", show_default=False, callback=_numbers, metavar="A,B,…",
    help="Sizes of the offline sweep; unless given, doubled from 1 as long as that pays.",
)  # fmt: skip
@click.option("--min-seconds", type=float, default=2.0, help="Shortest trial; energy needs 10 or more.")
@click.option(
    "--curve", default="", show_default=False, callback=_numbers, metavar="A,B,…",
    help="Score at these numbers of sampler steps instead: quality against NFE and seconds.",
)  # fmt: skip
@click.option(
    "--metrics", default="", show_default=False, callback=names, metavar="A,B,…",
    help="Metrics of the curve; those of the protocol by default.",
)  # fmt: skip
@click.option("--protocol", default="auto", metavar="NAME", help="Protocol of the curve.")
@click.option("--reference", metavar="NAME|PATH", help="Real images of the curve.")
@click.option("--num-samples", type=int, metavar="N", help="Images at each point of the curve.")
@click.option("--seed", type=int, default=0, help="Base seed of the samples.")
@click.option(
    "--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png|.svg",
    help="Draw the curve of the first metric (needs matplotlib).",
)  # fmt: skip
@sampling_options
@device_option
@dtype_option
@out_option("Folder of the records.")
@format_option
def bench(models: tuple[str, ...], ckpts: tuple[Path, ...], output_format: Format, **flags: Any) -> None:  # noqa: ANN401
    """Measure how fast MODELs sample, or how quality falls with fewer steps.

    \b
    evalkit bench ddpm cgan vae
    evalkit bench ddpm --scenario offline --batch-sizes 16,64 --min-seconds 10
    evalkit bench ddpm --curve 5,10,20,50 --metrics kd,fd --figure curve.png
    """
    from evalkit.benchmark import SpeedRequest, curve, measure_speed  # noqa: PLC0415 - loads torch
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415
    from evalkit.reporting.curve import curve_table, draw_curve  # noqa: PLC0415
    from evalkit.reporting.speed_table import speed_table  # noqa: PLC0415
    from evalkit.speed_trials import TrialRules  # noqa: PLC0415

    rules = TrialRules(flags.pop("min_seconds"))
    scenarios, sizes = flags.pop("scenarios"), flags.pop("batch_sizes")
    steps, figure = flags.pop("curve"), flags.pop("figure")
    if figure is not None and (not steps or len(models) > 1):
        raise UsageError("--figure goes with --curve and one MODEL")
    requests = _requests(models, ckpts, flags)
    with signals() as stop, StderrConsole() as console:
        if steps:
            points = [p for request in requests for p in curve(request, steps, console=console, stop=stop)]
            table = curve_table(points)
            if figure is not None:
                draw_curve(points, figure)
                console.note(f"wrote {figure}")
        else:
            for request in requests:
                SpeedRequest(score=request, scenarios=scenarios, batch_sizes=sizes, rules=rules).check()
            table = speed_table(
                [
                    measure_speed(
                        SpeedRequest(score=request, scenarios=scenarios, batch_sizes=sizes, rules=rules),
                        console=console,
                    )
                    for request in requests
                ]
            )
    _print(table, output_format)


def _requests(models: tuple[str, ...], ckpts: tuple[Path, ...], flags: dict[str, Any]) -> list[ScoreRequest]:
    from evalkit.request import ScoreRequest  # noqa: PLC0415 - loads torch

    if ckpts and len(ckpts) != len(models):
        raise UsageError(f"{len(ckpts)} --ckpt for {len(models)} models", hint="give one for each, in order")
    sampling = take_sampling_options(flags, dtype=flags.pop("dtype"))
    shared = {**flags, "sampling": sampling, "command": ("evalkit", *sys.argv[1:])}
    pairs = zip(models, ckpts or (None,) * len(models), strict=True)
    return [ScoreRequest(model=model, ckpt=ckpt, **shared) for model, ckpt in pairs]


def _print(table: Table, output_format: Format) -> None:
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH, render  # noqa: PLC0415

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    click.echo(render(table, output_format, style=style_for(sys.stdout), width=width), nl=False)
