"""``evalkit report``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import device_option, image_options, take_image_options, take_sampling_options
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.record import RunRecord

if TYPE_CHECKING:
    from evalkit.portrait import Run
    from evalkit.request import ScoreRequest

_MOST_RECORDS = 2
_STATE = "state"


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...] | None:
    if value == "auto":
        return None
    parts = [part.strip() for part in value.split(",") if part.strip() and value != "none"]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of numbers of at least 1, such as 5,10,20")
    return tuple(int(part) for part in parts)


@click.command(context_settings={"show_default": True})
@click.argument(
    "records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD [RECORD2]"
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), help="Page."
)
@click.option(
    "--real", type=click.Path(path_type=Path, exists=True), metavar="PATH",
    help="Real images to find those nearest to the samples; the reference, where that is images.",
)  # fmt: skip
@click.option(
    "--ckpt", "ckpts", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Checkpoint that was scored, wherever it lies now; its sha256 tells of which RECORD.",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, metavar="NAME|pkg.mod:obj",
    help="Model of each RECORD, in order, where the record does not say or where it is your own code.",
)  # fmt: skip
@click.option("--grid", type=int, default=64, metavar="N", help="Samples shown.")
@click.option(
    "--curve-n", "sizes", default="auto", callback=_numbers, metavar="A,B,…|auto|none",
    help="Numbers of images of the curve against N; auto halves it down to an eighth.",
)  # fmt: skip
@click.option(
    "--nfe", "steps", default="none", callback=_numbers, metavar="A,B,…",
    help="Sample again with these numbers of sampler steps, and draw quality against network evaluations.",
)  # fmt: skip
@click.option(
    "--nfe-images", "step_images", type=int, default=256, metavar="N", help="Images at each of them."
)
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="State to reuse and to keep features in; the one beside RECORD by default, else none is kept.",
)  # fmt: skip
@device_option
@image_options(bad="Images of --real that cannot be read.")
def report(records: tuple[Path, ...], out: Path, **flags: Any) -> None:  # noqa: ANN401
    """Write one HTML page about a scored model, or two side by side: scores, samples, neighbours, curves.

    \b
    evalkit report evalkit-runs/RUN.json
    evalkit report a.json b.json --out comparison.html --real cifar10/test.parquet
    evalkit report ddpm.json --nfe 5,10,20

    The images are drawn again from the record and checked to be those that were scored. The page is one file,
    needs no network, and works without JavaScript.
    """
    if len(records) > _MOST_RECORDS:
        raise UsageError(
            f"a report shows one record or two, not {len(records)}",
            hint="evalkit compare puts any number of records into one table",
        )
    found = [_read(path) for path in records]
    from evalkit.atomic import write_atomically  # noqa: PLC0415
    from evalkit.cli.console import StderrConsole, signals  # noqa: PLC0415 - loads torch
    from evalkit.portrait import PortraitRequest, portray  # noqa: PLC0415

    ckpts, models, state = flags.pop("ckpts"), flags.pop("models"), flags.pop("state")
    options = take_image_options(flags)
    with ExitStack() as stack:
        states = [state or _state(path, stack) for path, _ in found]
        runs = _runs([record for _, record in found], states, ckpts, models, device=flags["device"])
        stop, console = stack.enter_context(signals()), stack.enter_context(StderrConsole())
        request = PortraitRequest(runs=runs, image_options=options, **flags)
        page = portray(request, console=console, stop=stop)
    write_atomically(out, page)
    click.echo(f"wrote {out} ({len(page.encode()) / 1e6:.1f} MB)", err=True)
    if not all(folder.is_dir() for folder in states):
        click.echo("features were not kept: --state FOLDER makes the next report of them quick", err=True)


def _read(path: Path) -> tuple[Path, RunRecord]:
    """Return a record, and of a folder its only complete one."""
    if path.is_file():
        return path, RunRecord.read(path)
    if not path.is_dir():
        raise NothingMeasuredError(
            f"no record at {path}", hint="evalkit score writes records below --out (default evalkit-runs/)"
        )
    records = []
    for file in sorted(path.glob("*.json")):
        try:
            records.append((file, RunRecord.read(file)))
        except InvalidInputError as error:
            click.echo(f"warning: {error.message}; skipped", err=True)
    complete = [(file, record) for file, record in records if record.status == "complete"]
    if not complete:
        raise NothingMeasuredError(f"no complete record in {path}", hint="name the file of a record")
    if len(complete) > 1:
        files = ", ".join(f"{file.name} ({record.model.id})" for file, record in complete[:6])
        raise UsageError(f"{path} holds {len(complete)} complete records", hint=f"name one: {files}")
    return complete[0]


def _state(path: Path, stack: ExitStack) -> Path:
    """The state beside a record, where there is one that can be written to; else a folder for this report."""
    beside = path.parent / _STATE
    if beside.is_dir() and os.access(beside, os.W_OK):
        return beside
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evalkit-report-")))


def _runs(
    records: Sequence[RunRecord],
    states: Sequence[Path],
    ckpts: Sequence[Path],
    models: Sequence[str],
    *,
    device: str,
) -> tuple[Run, ...]:
    from evalkit.portrait import Run, restored  # noqa: PLC0415 - loads torch

    if len(models) not in {0, len(records)}:
        raise UsageError(
            f"{len(models)} --model for {len(records)} records", hint="give one for each, in order"
        )
    named = models or (None,) * len(records)
    files = _assigned(ckpts, records)
    scores = [
        restored(record, asked_for(record), ckpt=ckpt, model=model, device=device)
        for record, ckpt, model in zip(records, files, named, strict=True)
    ]
    return tuple(
        Run(record=record, score=score, state=state)
        for record, score, state in zip(records, scores, states, strict=True)
    )


def _assigned(ckpts: Sequence[Path], records: Sequence[RunRecord]) -> list[Path | None]:
    """Give each checkpoint to the records of its digest; one that fits none keeps its place."""
    from evalkit.generators.containers import checkpoint_digest  # noqa: PLC0415 - loads torch

    given: list[Path | None] = [None] * len(records)
    left = []
    for place, ckpt in enumerate(ckpts):
        if not ckpt.exists():
            raise UsageError(f"there is no checkpoint {ckpt}")
        digest = checkpoint_digest(ckpt)
        fitting = [i for i, record in enumerate(records) if record.model.sha256 == digest]
        for i in fitting:
            given[i] = ckpt
        left += [] if fitting else [(place, ckpt, digest)]
    for place, ckpt, digest in left:
        if place >= len(records) or given[place] is not None:
            known = ", ".join(
                f"{record.model.id} {(record.model.sha256 or 'none')[:12]}" for record in records
            )
            raise InvalidInputError(
                f"{ckpt} (sha256 {digest[:12]}…) is the checkpoint of none of the records",
                hint=f"they were made by {known}",
            )
        given[place] = ckpt
    return given


def asked_for(record: RunRecord) -> ScoreRequest | None:
    """Return what the command of ``record`` asked for, for its model; None where it cannot be told.

    The command line is read by the very flags that ``evalkit score`` (or ``bench``) reads; nothing is run.
    """
    from evalkit.request import ScoreRequest  # noqa: PLC0415 - loads torch

    flags = _flags(record.command)
    if flags is None:
        return None
    models, ckpts = flags.pop("models"), flags.pop("ckpts")
    chosen = _subject(record, models, ckpts)
    if models and chosen is None:
        return None
    flags["strict"] = flags.pop("determinism", "standard") == "strict"
    flags["translate"] = flags.pop("task", "generate") == "translate"
    weights = flags.pop("weights", ({}, "ema"))
    flags["weights"], flags["checkpoint_weights"] = weights
    flags["sampling"] = take_sampling_options(flags, dtype=flags.pop("dtype"))
    if "alpha" in flags:
        flags["image_options"] = take_image_options(flags)
    # Flags that a score has beside its request (how it prints, when it stops) make no other images.
    known = {field.name for field in fields(ScoreRequest)} & flags.keys()
    model, ckpt = chosen or (None, None)
    return ScoreRequest(model=model, ckpt=ckpt, **{name: flags[name] for name in known})


def _flags(command: Sequence[str]) -> dict[str, Any] | None:
    """The values of a command line's flags; None where it is not one that scores, or does not parse."""
    if len(command) < 2 or PurePath(command[0]).stem != "evalkit":
        return None
    if command[1] == "score":
        from evalkit.cli.score import score as known  # noqa: PLC0415
    elif command[1] == "bench":
        from evalkit.cli.bench import bench as known  # noqa: PLC0415
    else:
        return None
    try:
        with known.make_context(command[1], list(command[2:])) as context:
            return dict(context.params)
    except (click.ClickException, click.exceptions.Exit):
        return None


def _subject(
    record: RunRecord, models: Sequence[str], ckpts: Sequence[Path]
) -> tuple[str, Path | None] | None:
    """The model of a command, and its checkpoint, that ``record`` is about."""
    from evalkit.subjects import plain  # noqa: PLC0415 - loads torch

    pairs = [(model, ckpts[i] if i < len(ckpts) else None) for i, model in enumerate(models)]
    if len(pairs) <= 1:
        return pairs[0] if pairs else None
    names = {f"{model}@{plain(ckpt.stem)}" if ckpt else model: (model, ckpt) for model, ckpt in pairs}
    return names.get(record.model.id) or next(
        (pair for name, pair in names.items() if record.model.id.startswith(f"{name}-")), None
    )
