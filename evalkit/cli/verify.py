"""``evalkit verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import named_files
from evalkit.errors import NotComparableError, OfflineError

if TYPE_CHECKING:
    from evalkit.verification import Outcome


@click.command(context_settings={"show_default": True})
@click.argument("checks", nargs=-1, metavar="[CHECK…]")
@click.option(
    "--file",
    "files",
    multiple=True,
    callback=named_files,
    metavar="KEY=PATH",
    help="A published file that you downloaded, for example adm-samples=….npz.",
)
@click.option(
    "--weights",
    multiple=True,
    callback=named_files,
    metavar="EXTRACTOR=FILE",
    help="Weights of an extractor; those other than the published ones agree with nothing.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evalkit-runs"),
    help="Folder of records and of the state a killed run resumes from.",
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table")
def verify(
    checks: tuple[str, ...],
    files: dict[str, Path],
    weights: dict[str, Path],
    device: str,
    out: Path,
    output_format: str,
) -> None:
    """Measure published numbers again on this machine; all CHECKs, or those named.

    \b
    cifar10-test-fid   FID 3.15 of the CIFAR-10 test images against the training images
    cifar10-train-is   inception score 11.24 of the CIFAR-10 training images
    adm-imagenet256    FID, sFID, IS, precision, recall of the README of guided-diffusion

    Leaves with 0 where all that ran agree, 3 where one differs, 75 where none could run.
    """
    import json  # noqa: PLC0415

    from evalkit.cli.columns import aligned  # noqa: PLC0415
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.verification import VerifyRequest, select_checks  # noqa: PLC0415
    from evalkit.verification import verify as run_checks  # noqa: PLC0415

    chosen = select_checks(checks)
    request = VerifyRequest(files=files, weights=weights, device=device, out=out)
    with signals() as stop, StderrConsole() as console:
        outcomes = run_checks(chosen, request, console=console, stop=stop)
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if output_format == "json" else aligned(rows))
    for outcome in outcomes:
        if outcome.missing:
            click.echo(f"{outcome.check.name} was not run: {outcome.missing}", err=True)
    _judge(outcomes)


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "check": outcome.check.name,
            "metric": expected.metric,
            "published": expected.value,
            "tolerance": expected.tolerance,
            "measured": outcome.measured.get(expected.metric),
            "verdict": outcome.status,
            "source": outcome.check.source,
        }
        for expected in outcome.check.expected
    ]


def _judge(outcomes: tuple[Outcome, ...]) -> None:
    differing = [outcome.check.name for outcome in outcomes if outcome.status == "DIFFERS"]
    if differing:
        raise NotComparableError(
            f"measured values differ from the published ones: {', '.join(differing)}",
            hint="are the weights and the images the published ones? the records say what was read",
        )
    if all(outcome.status == "not run" for outcome in outcomes):
        raise OfflineError(
            "nothing could be verified on this machine", hint="the lines above say what is missing"
        )
