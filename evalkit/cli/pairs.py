"""``evalkit pairs``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import named_files

if TYPE_CHECKING:
    from evalkit.pairs.request import PairsRequest
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format

_POLICY = ("alpha", "cmyk", "animated", "orientation", "max_pixels")
_OUTPUTS = ("per_pair", "worst", "worst_by", "worst_count")


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _batch_size(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter("give 'auto' or a number of at least 1")
    return int(value)


@click.command(context_settings={"show_default": True})
@click.argument("generated", required=False, type=click.Path(path_type=Path))
@click.argument("reference", required=False, type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV, JSON lines or parquet with a pair a row instead: generated (or edited), reference (or "
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
    callback=_names,
    metavar="A,B,…",
    help="whole, inside, outside (of the mask); all that there are by default.",
)
@click.option(
    "--metrics",
    default="",
    callback=_names,
    metavar="A,B,…",
    help="psnr, ssim, ms-ssim, lpips (lpips:vgg, lpips:squeeze), pd, style, …; all that need no download by "
    "default.",
)
@click.option(
    "--weights",
    multiple=True,
    callback=named_files,
    metavar="NAME=FILE",
    help="Weights of a network (alexnet) or measure (lpips-alex); unpublished ones are named in the label.",
)
@click.option(
    "--per-pair", type=click.Path(path_type=Path), metavar="FILE.csv|.parquet", help="Write every value."
)
@click.option(
    "--worst", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the worst pairs side by side."
)
@click.option("--worst-by", metavar="NAME", help="What ranks them: lpips, ssim, ssim/inside, …")
@click.option("-k", "worst_count", type=int, default=16, metavar="K", help="How many of them.")
@click.option("--name", help="Name of the generated side in tables.")
@click.option("--num-samples", type=int, metavar="N", help="A fixed random subset; all pairs by default.")
@click.option("--seed", type=int, default=0, help="Seed of that subset.")
@click.option(
    "--batch-size", default="auto", callback=_batch_size, metavar="N|auto", help="Never moves a score."
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--workers", type=int, metavar="N", help="Image decoding threads.")
@click.option(
    "--alpha",
    type=click.Choice(["refuse", "white", "black", "drop"]),
    default="refuse",
    help="What to do with transparent pixels.",
)
@click.option("--cmyk", type=click.Choice(["refuse", "convert"]), default="refuse", help="CMYK images.")
@click.option("--animated", type=click.Choice(["refuse", "first"]), default="refuse", help="Several frames.")
@click.option(
    "--orientation",
    type=click.Choice(["refuse", "apply", "ignore"]),
    default="refuse",
    help="EXIF orientation other than upright.",
)
@click.option("--max-pixels", type=click.IntRange(min=1), default=64_000_000, help="Largest image.")
@click.option(
    "--on-bad",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    help="Images that cannot be read; skip leaves out their pairs.",
)
@click.option(
    "--max-bad", type=click.IntRange(min=0), default=0, help="Most pairs that --on-bad skip may leave out."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evalkit-runs"),
    help="Folder of records and of the state a killed run resumes from.",
)
@click.option("--fresh", is_flag=True, help="Forget the state of earlier runs of the same pairs.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "csv", "md"]),
    default="table",
    help="What is printed on stdout.",
)
def pairs(output_format: Format, **flags: Any) -> None:  # noqa: ANN401
    """Compare each image of GENERATED with its own image in REFERENCE.

    For restoration, super-resolution, inpainting, editing, reconstruction: PSNR, SSIM, MS-SSIM, LPIPS,
    perceptual and style distance, each with a standard error, for whole images and inside and outside masks.

    \b
    evalkit pairs restored/ originals/
    evalkit pairs out.zip truth.zip --metrics psnr,ssim,lpips --worst worst.png
    evalkit pairs --manifest edits.csv --regions inside,outside --per-pair values.csv

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
    from evalkit.pairs.request import Measuring, Outputs, PairsRequest  # noqa: PLC0415 - loads torch
    from evalkit.sources import DecodePolicy  # noqa: PLC0415
    from evalkit.subjects import ImageOptions  # noqa: PLC0415

    def take(*names: str) -> dict[str, Any]:
        return {name: flags.pop(name) for name in names}

    images = ImageOptions(policy=DecodePolicy(**take(*_POLICY)), **take("workers", "on_bad", "max_bad"))
    measuring = Measuring(
        measures=flags.pop("metrics"),
        outputs=Outputs(**take(*_OUTPUTS)),
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
