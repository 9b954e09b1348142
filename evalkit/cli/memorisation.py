"""``evalkit memorisation``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import (
    device_option,
    image_options,
    out_option,
    sampling_options,
    take_image_options,
    take_sampling_options,
)

if TYPE_CHECKING:
    from evalkit.memorisation import MemorisationRequest


@click.command(context_settings={"show_default": True})
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Samples: a folder, zip, tar, npz or parquet file.",
)
@click.option("--model", metavar="NAME|pkg.mod:obj", help="Or a model that makes the samples.")
@click.option(
    "--ckpt",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint of --model; the bundled one by default.",
)
@click.option(
    "--training",
    required=True,
    metavar="PATH|NAME",
    help="What the model was trained on: images, a registered data set, or a reference that keeps features.",
)
@click.option(
    "--num-samples",
    type=int,
    metavar="N",
    help="Samples to search; all images, or 1024 of a model, by default.",
)
@click.option("--seed", type=int, default=0, help="Base seed of the samples.")
@sampling_options
@click.option(
    "--extractor",
    default="efficientnet-lite0",
    metavar="NAME",
    help="Network whose features tell what is alike; see `evalkit list extractors`.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="Head of the network; by default the one for features, or one that a reference keeps.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="Weights of the network from a file."
)
@click.option(
    "--near-quantile",
    type=float,
    default=0.01,
    metavar="Q",
    help="A near duplicate is nearer than this share of training images are to their neighbours.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a row for each sample to a .csv or .parquet file.",
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the closest pairs as a PNG file; needs the training images.",
)
@click.option("--count", type=click.IntRange(min=1), default=16, help="Closest pairs to show.")
@device_option
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Never moves a result.")
@image_options()
@out_option("Folder of the state a killed search resumes from.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="What is printed on stdout.",
)
def memorisation(
    table: Path | None,
    pairs: Path | None,
    count: int,
    output_format: str,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Find samples that are copies of training images.

    \b
    evalkit memorisation --images samples/ --training train/
    evalkit memorisation --model ddpm --training train.parquet --pairs closest.png
    evalkit memorisation --images samples.zip --training train/ --table nearest.csv

    For every sample: its nearest training image, exact and near duplicates, and the counts with 95 %
    intervals. Copies are found in the whole training set only: give all of it.
    """
    from evalkit import strict_json  # noqa: PLC0415
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.memorisation import search  # noqa: PLC0415
    from evalkit.reporting.memorisation import check_table_path, summary_text, write_table  # noqa: PLC0415

    if table is not None:
        check_table_path(table)
    request = _request(flags)
    with signals() as stop, StderrConsole() as console:
        found = search(request, console=console, stop=stop)
        if table is not None:
            write_table(table, found.report)
            console.note(f"table: {table}")
        if pairs is not None:
            console.note(f"{found.write_pairs(pairs, count=count)} closest pairs: {pairs}")
    if output_format == "json":
        click.echo(strict_json.dumps(found.report.to_json(count=count)), nl=False)
        return
    click.echo(summary_text(found.report, count=count), nl=False)


def _request(flags: dict[str, Any]) -> MemorisationRequest:
    from evalkit.memorisation import MemorisationRequest  # noqa: PLC0415 - loads torch

    images, sampling = take_image_options(flags), take_sampling_options(flags)
    return MemorisationRequest(**flags, image_options=images, sampling=sampling)
