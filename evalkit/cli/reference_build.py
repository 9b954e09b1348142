"""``evalkit reference build``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from evalkit.cli.options import device_option, precision_option, weights_option
from evalkit.errors import UsageError
from evalkit.protocol import Precision


@click.command(context_settings={"show_default": True})
@click.argument("source", metavar="PATH|RECIPE")
@click.option("--name", help="Name to keep it under; needed for PATH.")
@click.option("--title", help="One line for lists.")
@click.option("--dataset", help="Name of the data set; the reference's name by default.")
@click.option("--split", help="Its split, for example train.")
@click.option("--extractor", default="efficientnet-lite0", help="See `evalkit list extractors`.")
@click.option("--preset", help="How the extractor prepares images.")
@weights_option
@click.option(
    "--heads", default="", metavar="A,B,…", help="Heads to keep; those of the extractor's roles by default."
)
@click.option(
    "--bank-heads", default="", metavar="A,…", help="Heads whose features are kept; all by default."
)
@click.option(
    "--bank-size", type=click.IntRange(min=0), default=10_000, help="Features kept of each such head."
)
@click.option("--bank-dtype", type=click.Choice(["float16", "float32"]), default="float32")
@click.option(
    "--class-heads",
    default="auto",
    metavar="A,…",
    help="Heads with moments of each class, for intra-fd: 'none', or 'auto' for the smallest bank head where "
    "images have labels and the file stays small.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Never moves a number.")
@device_option
@precision_option
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("evalkit-runs/state"),
    help="Folder of the state a killed build resumes from.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File to write; the user's cache by default.",
)
def build(
    source: str,
    name: str | None,
    title: str | None,
    dataset: str | None,
    split: str | None,
    extractor: str,
    preset: str | None,
    weights: dict[str, Path],
    heads: str,
    bank_heads: str,
    bank_size: int,
    bank_dtype: str,
    class_heads: str,
    batch_size: int | None,
    device: str,
    precision: Precision,
    state: Path,
    out: Path | None,
) -> None:
    """Extract all images of PATH (folder, zip, tar, npz, parquet) or of a registered RECIPE, once.

    \b
    evalkit reference build real/ --name my-faces
    evalkit reference build cifar10 --extractor inception-v3
    """
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.extraction import Extracted, Job, extract  # noqa: PLC0415
    from evalkit.extractors import FACTS, build_extractor  # noqa: PLC0415
    from evalkit.reference_resolution import ReferenceOrder, build_reference, open_named_source  # noqa: PLC0415
    from evalkit.references import store_reference, write_reference  # noqa: PLC0415
    from evalkit.runtime import resolve_device  # noqa: PLC0415

    images, about = open_named_source(source, name=name, title=title, dataset=dataset, split=split)
    if about.name is None:
        raise UsageError("a reference of your own needs a name", hint="--name my-images")
    facts = FACTS[extractor]
    wanted = _names(heads) or tuple(dict.fromkeys(head for _, head in facts.roles))
    classes = {"auto": None, "none": ()}.get(class_heads, _names(class_heads))
    for head in (*wanted, *_names(bank_heads), *(classes or ())):
        facts.dimensions(head)
    place = resolve_device(device)
    network = build_extractor(
        extractor, weights=weights.get(extractor), preset=preset, device=str(place), precision=precision
    )
    order = ReferenceOrder(
        about=about, heads=wanted, bank_heads=_names(bank_heads) or wanted, bank_size=bank_size,
        bank_dtype="float16" if bank_dtype == "float16" else "float32", class_heads=classes,
        command=shlex.join(["evalkit", *sys.argv[1:]]),
    )  # fmt: skip
    with signals() as stop, StderrConsole() as console:

        def extract_images(job: Job, heading: str) -> Extracted:
            with console.progress(heading, job.layout.count) as progress:
                (extracted,) = extract(job, progress=progress, stop=stop)
                return extracted

        built = build_reference(
            images, order, extractor=network, state=state, device=place, extract_images=extract_images,
            batch_size=batch_size,
        )  # fmt: skip
        if out is not None:
            write_reference(built, out)
        stored = out or store_reference(built, name=about.name).path
        console.note(f"reference {about.name!r} of {built.count} images: {stored}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
