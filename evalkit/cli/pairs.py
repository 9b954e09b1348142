"""``evalkit pairs``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import (
    batch_size_option,
    device_option,
    format_option,
    image_options,
    named_files,
    names,
    out_option,
    pair_output_options,
    take_image_options,
    take_pair_outputs,
)

if TYPE_CHECKING:
    from evalkit.pairs.request import PairsRequest
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format


@click.command(context_settings={"show_default": True})
@click.argument("generated", required=False, type=click.Path(path_type=Path))
@click.argument("reference", required=False, type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV, JSON lines or parquet with a pair a row instead: columns generated (or edited), reference (or "
    "target), and optionally source, mask, prompt, source_prompt; paths relative to it.",
)
@click.option("--allow-outside", is_flag=True, help="Let paths of the manifest leave its folder.")
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Masks named like the generated images; white is inside.",
)
@click.option(
    "--match",
    type=click.Choice(["auto", "name", "index"]),
    default="auto",
    help="What makes a pair: the path without extension, or the order. auto: names where both have them.",
)
@click.option(
    "--allow-unmatched",
    is_flag=True,
    help="Leave out images without a counterpart; the record says how many.",
)
@click.option(
    "--regions",
    default="",
    show_default=False,
    callback=names,
    metavar="A,B,…",
    help="whole, inside, outside (of the mask); all that there are by default.",
)
@click.option(
    "--metrics",
    default="",
    show_default=False,
    callback=names,
    metavar="A,B,…",
    help="psnr, ssim, ms-ssim, lpips (lpips:vgg, lpips:squeeze), pd, style, …: see `evalkit list measures`; "
    "all that need no download by default. clip-directional[:NETWORK] reads the captions of --manifest.",
)
@click.option(
    "--weights",
    multiple=True,
    callback=named_files,
    metavar="NAME=FILE",
    help="Weights of a network (alexnet, clip-vit-b-32) or measure (lpips-alex); unpublished ones are named "
    "in the label.",
)
@pair_output_options()
@click.option("--name", help="Name of the generated side in tables.")
@click.option("--num-samples", type=int, metavar="N", help="A fixed random subset; all pairs by default.")
@click.option("--seed", type=int, default=0, help="Seed of that subset.")
@batch_size_option
@device_option
@image_options(bad="Images that cannot be read; skip leaves out their pairs.")
@out_option("Folder of records and of the state a killed run resumes from.")
@click.option("--fresh", is_flag=True, help="Forget the state of earlier runs of the same pairs.")
@format_option
def pairs(output_format: Format, **flags: Any) -> None:  # noqa: ANN401
    """Compare each image of GENERATED with its own image in REFERENCE.

    For restoration, super-resolution, inpainting, editing, reconstruction: PSNR, SSIM, MS-SSIM, LPIPS,
    perceptual and style distance, each with a standard error, for whole images and inside and outside masks.

    \b
    evalkit pairs restored/ originals/
    evalkit pairs out.zip truth.zip --metrics psnr,ssim,lpips --worst worst.png
    evalkit pairs --manifest edits.csv --regions inside,outside --per-pair values.csv
    evalkit pairs --manifest edits.csv --metrics clip-directional

    The same command continues where an earlier one was stopped.
    """
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.pairs.evaluate import evaluate_pairs  # noqa: PLC0415

    request = _request(flags)
    with signals() as stop, StderrConsole() as console:
        record = evaluate_pairs(request, console=console, stop=stop)
        console.note(f"record: {request.measuring.out / record.run_id}.json")
    click.echo(_render(record, output_format), nl=False)


def _request(flags: dict[str, Any]) -> PairsRequest:
    from evalkit.pairs.request import Measuring, PairsRequest  # noqa: PLC0415 - loads torch

    def take(*names: str) -> dict[str, Any]:
        return {name: flags.pop(name) for name in names}

    images = take_image_options(flags)
    measuring = Measuring(
        measures=flags.pop("metrics"),
        outputs=take_pair_outputs(flags),
        command=("evalkit", *sys.argv[1:]),
        **take("regions", "weights", "num_samples", "seed", "batch_size", "device", "out", "fresh"),
    )
    return PairsRequest(image_options=images, measuring=measuring, **flags)


def _render(record: RunRecord, output_format: Format) -> str:
    """The record itself as JSON, else its table."""
    from evalkit import strict_json  # noqa: PLC0415
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH  # noqa: PLC0415
    from evalkit.reporting.table import render, score_table  # noqa: PLC0415

    if output_format == "json":
        return strict_json.dumps(record.to_json())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    return render(score_table(record), output_format, style=style_for(sys.stdout), width=width)
