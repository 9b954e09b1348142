"""``evalkit score``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.executor import executing, executor_option, placed, refuse_elsewhere
from evalkit.cli.options import (
    backend_option,
    batch_size_option,
    determinism_option,
    device_option,
    dtype_option,
    format_option,
    image_options,
    names,
    out_or_url_option,
    pair_output_options,
    precision_option,
    preset_option,
    sampling_options,
    score_weights_option,
    take_image_options,
    take_pair_outputs,
    take_sampling_options,
    trackers_option,
)
from evalkit.cli.sharing import console_of, shard_option, take_sharing
from evalkit.cli.until_decided import take_until_decided, until_decided_options
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.console import Console
    from evalkit.object_stores import RunFolder
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format
    from evalkit.request import ScoreRequest
    from evalkit.tracking.trackers import Named


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


@click.command(context_settings={"show_default": True})
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|auto|pkg.mod:obj",
    help="Model to sample (auto: the one that reads --ckpt); several give one comparison table.",
)
@click.option(
    "--ckpt",
    "ckpts",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint (or folder of diffusers) of each --model, in order; the bundled one by default.",
)
@preset_option
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Score images instead: a folder, zip, tar, npz or parquet file.",
)
@click.option(
    "--task",
    type=click.Choice(["generate", "reconstruct", "translate"]),
    default="generate",
    help="reconstruct: --model encodes and decodes --images, and each is compared with itself; translate: "
    "--model turns --images into the images that are scored.",
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
    show_default=False,
    callback=names,
    metavar="A,B,…",
    help="Metrics; those of the protocol by default, `all` for every one at hand. `fd@pooled` reads another "
    "head, `fd:dinov2` another extractor. See `evalkit list metrics`; for --task reconstruct "
    "`evalkit list measures`.",
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
    help="Text file, one prompt for each image of --images in order; a text pipeline draws from them.",
)
@click.option(
    "--attributes",
    metavar="pkg.mod:obj|FILE",
    help="Attribute classifiers for separability; pkg.mod:obj runs your own code.",
)
@click.option(
    "--attribute-names",
    default="",
    show_default=False,
    callback=names,
    metavar="A,B,…",
    help="Names of the attributes, in order.",
)
@click.option(
    "--num-samples", type=int, metavar="N", help="Images to score; the protocol's number by default."
)
@click.option("--seed", type=int, default=0, help="Base seed of the samples.")
@batch_size_option
@determinism_option
@sampling_options
@device_option
@dtype_option
@precision_option
@backend_option
@score_weights_option
@image_options()
@out_or_url_option("Folder (or s3://…, gs://…) of records and of the state a killed run resumes from.")
@executor_option("Who computes the shards.")
@shard_option
@click.option("--fresh", is_flag=True, help="Forget the state of earlier runs of the same subject.")
@pair_output_options("Of --task reconstruct. ")
@until_decided_options
@trackers_option
@format_option
def score(models: tuple[str, ...], ckpts: tuple[Path, ...], output_format: Format, **flags: Any) -> int:  # noqa: ANN401
    """Score a model's samples, or a folder of images, against a reference.

    \b
    evalkit score --model ddpm
    evalkit score --model ddpm --ckpt x.pt --steps 10
    evalkit score --model cgan --model vae --model ddpm
    evalkit score --images samples.zip --reference real/
    evalkit score --task reconstruct --model vae --images photos/
    evalkit score --model ddpm --ckpt x.pt --until-decided --baseline runs/old.json --rule "kd rel=5%"
    torchrun --nproc-per-node 4 -m evalkit score --model ddpm

    The same command continues where an earlier one was stopped.
    """
    from evalkit.cli.event_log import take_event_log  # noqa: PLC0415 - loads torch
    from evalkit.cli.record_output import rendered  # noqa: PLC0415
    from evalkit.tracking import parse_trackers  # noqa: PLC0415 - not for --help

    log, texts = take_event_log(flags.pop("trackers"))
    trackers = parse_trackers(texts)
    deciding = take_until_decided(flags, models=len(models))
    if deciding and trackers:
        raise UsageError("--log does not go with --until-decided", hint="evalkit log RECORD --to TRACKER")
    executor = flags.pop("executor")
    refuse_elsewhere(executor, task=flags["task"], deciding=deciding is not None)
    sharing = take_sharing(flags, deciding=bool(deciding), elsewhere=bool(executor), tracking=bool(trackers))
    scoring = scoring_of(flags.pop("task"), flags, models=len(models))
    requests = requests_of(models, ckpts, flags)
    with console_of(sharing, log) as (console, stop):
        for request in requests:
            (deciding or scoring).check(request)
        with placed(requests, flags["out"], console=console) as (requests, folder):
            if deciding:
                return deciding.run(requests[0], console=console, stop=stop, output_format=output_format)
            with executing(executor, scoring.run, device=flags["device"], console=console) as run:
                scored = sharing.records(requests, run, console=console, stop=stop)
                records = [_announced(record, folder, trackers, console=console) for record in scored]
            if records:
                click.echo(rendered(records, output_format), nl=False)
    return 0


def _announced(
    record: RunRecord, folder: RunFolder, trackers: Sequence[Named], *, console: Console
) -> RunRecord:
    """Say where a record is, and hand it to the trackers."""
    from evalkit.tracking import log_record  # noqa: PLC0415 - not for --help

    name = f"{record.run_id}.json"
    console.note(f"record: {folder.place(name)}")
    log_record(record, trackers, path=folder.path / name, notify=console.note)
    return record


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a request of one task is refused early, and how it is run."""

    check: Callable[[ScoreRequest], None]
    run: Callable[..., RunRecord]


def scoring_of(task: str, flags: dict[str, Any], *, models: int) -> Scoring:
    """Take the flags that belong to one task out of ``flags``.

    Raises:
        UsageError: they do not go with the task, or with so many models.
    """
    from evalkit.evaluate import run  # noqa: PLC0415 - loads torch
    from evalkit.pairs.request import Outputs  # noqa: PLC0415
    from evalkit.request import ScoreRequest  # noqa: PLC0415

    outputs = take_pair_outputs(flags)
    flags["translate"] = task == "translate"
    if task != "reconstruct":
        if outputs != Outputs():
            raise UsageError("--per-pair, --worst, --worst-by and -k belong to --task reconstruct")
        return Scoring(ScoreRequest.check, run)
    from evalkit.pairs.reconstruction import check_request, score_reconstruction  # noqa: PLC0415 - pandas

    outputs.check()
    if models > 1 and (outputs.per_pair or outputs.worst):
        raise UsageError("--per-pair and --worst go with one --model", hint="each would overwrite the last")
    return Scoring(check_request, partial(score_reconstruction, outputs=outputs))


def requests_of(models: Sequence[str], ckpts: Sequence[Path], flags: dict[str, Any]) -> list[ScoreRequest]:
    """Return what is to be scored: one request a model, or that of images.

    Raises:
        UsageError: flags that do not go together.
    """
    from evalkit.request import ScoreRequest  # noqa: PLC0415 - loads torch

    if ckpts and len(ckpts) != len(models):
        raise UsageError(
            f"{len(ckpts)} --ckpt for {len(models)} --model",
            hint="give one --ckpt for each --model, in order",
        )
    if flags["name"] and len(models) > 1:
        raise UsageError("--name goes with one subject", hint="leave it out; models are named by themselves")
    flags["strict"] = flags.pop("determinism") == "strict"
    _take_checkpoint_choice(flags, models=len(models))
    sampling = take_sampling_options(flags, dtype=flags.pop("dtype"))
    images = take_image_options(flags)
    shared = {**flags, "sampling": sampling, "image_options": images, "command": ("evalkit", *sys.argv[1:])}
    if not models:
        return [ScoreRequest(**shared)]
    pairs = zip(models, ckpts or (None,) * len(models), strict=True)
    return [ScoreRequest(model=model, ckpt=ckpt, **shared) for model, ckpt in pairs]


def _take_checkpoint_choice(flags: dict[str, Any], *, models: int) -> None:
    """Turn ``--preset`` and ``--weights`` into fields of the request, those that were not used into none."""
    flags["weights"], chosen = flags["weights"]
    if flags["preset"] is None:
        del flags["preset"]
    elif models > 1:
        raise UsageError("--preset goes with one --model", hint="score them one by one")
    if chosen != "ema":
        flags["checkpoint_weights"] = chosen
