"""``evalkit score``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import named_files
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format

_FORMATS = click.Choice(["table", "json", "csv", "md"])


def _batch_size(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter("give 'auto' or a number of at least 1")
    return int(value)


def _params(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    params: dict[str, dict[str, Any]] = {}
    for value in values:
        key, equals, text = value.partition("=")
        metric, dot, name = key.partition(".")
        if not (equals and dot and metric and name):
            raise click.BadParameter(f"{value!r} is not of the form METRIC.NAME=VALUE")
        params.setdefault(metric, {})[name] = _scalar(text)
    return params


def _scalar(text: str) -> str | int | float | bool | None:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict | list) or value in (float("inf"), float("-inf")) or value != value:  # noqa: PLR0124
        raise click.BadParameter(f"{text!r} is not a number, a word, true, false or null")
    return value  # type: ignore[no-any-return]


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


weights_option = click.option(
    "--weights",
    multiple=True,
    callback=named_files,
    metavar="EXTRACTOR=FILE",
    help="Weights of an extractor from a file; other than published ones are named in the label.",
)


@click.command(context_settings={"show_default": True})
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|pkg.mod:obj",
    help="Model to sample; several give one comparison table.",
)
@click.option(
    "--ckpt",
    "ckpts",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint of each --model, in the same order; the bundled one by default.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Score images instead: a folder, zip, tar, npz or parquet file.",
)
@click.option("--name", help="Name of the subject in tables.")
@click.option(
    "--reference",
    metavar="NAME|PATH",
    help="Real images: a listed reference, a statistics file, or a folder or archive of images.",
)
@click.option("--protocol", default="auto", metavar="NAME", help="See `evalkit list protocols`.")
@click.option(
    "--metrics",
    default="",
    callback=_names,
    metavar="A,B,…",
    help="Metrics; those of the protocol by default, `all` for every one at hand. `fd@pooled` reads another "
    "head, `fd:dinov2` another extractor. See `evalkit list metrics`.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=_params,
    metavar="METRIC.NAME=VALUE",
    help="Parameter of a metric, for example kd.subsets=10; it is part of the fingerprint.",
)
@click.option(
    "--report-at",
    type=int,
    metavar="N",
    help="Also predict the Fréchet distance at N images, with an interval.",
)
@click.option(
    "--held-out",
    metavar="NAME|PATH",
    help="Real images no model was trained on (ct and fld compare with them).",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file, one prompt for each image of --images, in order.",
)
@click.option(
    "--attributes",
    metavar="pkg.mod:obj|FILE",
    help="Attribute classifiers for separability; pkg.mod:obj runs your own code.",
)
@click.option(
    "--attribute-names",
    default="",
    callback=_names,
    metavar="A,B,…",
    help="Names of the attributes, in order.",
)
@click.option(
    "--num-samples", type=int, metavar="N", help="Images to score; the protocol's number by default."
)
@click.option("--seed", type=int, default=0, help="Base seed of the samples.")
@click.option(
    "--batch-size", default="auto", callback=_batch_size, metavar="N|auto", help="Never moves a score."
)
@click.option("--sampler", metavar="NAME", help="See `evalkit list samplers`.")
@click.option("--steps", type=int, metavar="N", help="Sampler steps.")
@click.option("--guidance", type=float, metavar="W", help="Classifier-free guidance scale; 1 is none.")
@click.option("--eta", type=float, metavar="ETA", help="Stochasticity of DDIM, 0 to 1.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    help="Type the model samples in; features are always float32.",
)
@weights_option
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
    "--on-bad", type=click.Choice(["fail", "skip"]), default="fail", help="Images that cannot be read."
)
@click.option("--max-bad", type=int, default=0, help="Most images that --on-bad skip may leave out.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("evalkit-runs"),
    help="Folder of records and of the state a killed run resumes from.",
)
@click.option("--fresh", is_flag=True, help="Forget the state of earlier runs of the same subject.")
@click.option("--format", "output_format", type=_FORMATS, default="table", help="What is printed on stdout.")
def score(models: tuple[str, ...], ckpts: tuple[Path, ...], output_format: Format, **flags: Any) -> None:  # noqa: ANN401
    """Score a model's samples, or a folder of images, against a reference.

    \b
    evalkit score --model ddpm
    evalkit score --model ddpm --ckpt x.pt --steps 10
    evalkit score --model cgan --model vae --model ddpm
    evalkit score --images samples.zip --reference real/

    The same command continues where an earlier one was stopped.
    """
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.evaluate import run  # noqa: PLC0415

    requests = _requests(models, ckpts, flags)
    records: list[RunRecord] = []
    with signals() as stop, StderrConsole() as console:
        for request in requests:
            request.check()
        for request in requests:
            records.append(run(request, console=console, stop=stop))
            console.note(f"record: {request.out / records[-1].run_id}.json")
    click.echo(_render(records, output_format), nl=False)


def _requests(models: tuple[str, ...], ckpts: tuple[Path, ...], flags: dict[str, Any]) -> list[Any]:
    import sys  # noqa: PLC0415

    from evalkit.generators import SamplingOptions  # noqa: PLC0415
    from evalkit.request import ScoreRequest  # noqa: PLC0415 - loads torch
    from evalkit.sources import DecodePolicy  # noqa: PLC0415
    from evalkit.subjects import ImageOptions  # noqa: PLC0415

    if ckpts and len(ckpts) != len(models):
        raise UsageError(
            f"{len(ckpts)} --ckpt for {len(models)} --model",
            hint="give one --ckpt for each --model, in order",
        )
    if flags["name"] and len(models) > 1:
        raise UsageError("--name goes with one subject", hint="leave it out; models are named by themselves")
    sampling = SamplingOptions(
        **{key: flags.pop(key) for key in ("sampler", "steps", "guidance", "eta", "dtype")}
    )
    images = ImageOptions(
        policy=DecodePolicy(
            **{key: flags.pop(key) for key in ("alpha", "cmyk", "animated", "orientation", "max_pixels")}
        ),
        **{key: flags.pop(key) for key in ("workers", "on_bad", "max_bad")},
    )
    shared = {**flags, "sampling": sampling, "image_options": images, "command": ("evalkit", *sys.argv[1:])}
    if not models:
        return [ScoreRequest(**shared)]
    pairs = zip(models, ckpts or (None,) * len(models), strict=True)
    return [ScoreRequest(model=model, ckpt=ckpt, **shared) for model, ckpt in pairs]


def _render(records: list[RunRecord], output_format: Format) -> str:
    """One record as its own table, several as a comparison; JSON is the record itself."""
    from evalkit import strict_json  # noqa: PLC0415
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH  # noqa: PLC0415
    from evalkit.reporting.table import comparison_table, render, score_table  # noqa: PLC0415

    if output_format == "json" and len(records) == 1:
        return strict_json.dumps(records[0].to_json())
    table = score_table(records[0]) if len(records) == 1 else comparison_table(records)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    return render(table, output_format, style=style_for(sys.stdout), width=width)
