"""``evalkit plan``: what a run of ``evalkit score`` will cost, tried on a few images."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.score import requests_of, score
from evalkit.errors import UsageError

if TYPE_CHECKING:
    from evalkit.costing import Estimate
    from evalkit.request import ScoreRequest

_IMPORTED = time.monotonic()
# Flags of `evalkit score` that can move its cost.
_SHARED = frozenset(
    {"models", "ckpts", "preset", "images", "task", "name", "reference", "protocol", "metrics", "params"}
    | {"report_at", "held_out", "prompts", "num_samples", "seed", "batch_size", "determinism", "sampler"}
    | {"steps", "guidance", "eta", "truncation", "reference_factor", "device", "dtype", "precision"}
    | {"backend", "weights", "workers", "alpha", "cmyk", "animated", "orientation", "max_pixels"}
    | {"on_bad", "max_bad", "attributes", "attribute_names", "out", "fresh"}
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command(context_settings={"show_default": True})
@click.option(
    "--parts", type=click.IntRange(min=1), default=1, metavar="K", help="Processes that divide the images."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=6.0, metavar="S",
    help="How long the images are tried.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def plan(models: tuple[str, ...], ckpts: tuple[Path, ...], **flags: Any) -> None:  # noqa: ANN401
    """Say what a run of `evalkit score` will cost: time, memory, disk and shards.

    \b
    evalkit plan --model ddpm --num-samples 50000
    evalkit plan --model ddpm --num-samples 50000 --parts 8
    evalkit plan --images samples.zip --reference real/ --protocol standard

    Every other flag is one of `evalkit score`. The model and the networks are opened and a few batches are
    tried; the metrics are computed on a smaller problem. No record is written and no score printed.
    """
    from evalkit.cli.console import StderrConsole  # noqa: PLC0415 - loads torch
    from evalkit.costing import estimate_run  # noqa: PLC0415

    parts, seconds, as_json = flags.pop("parts"), flags.pop("seconds"), flags.pop("as_json")
    request = _request(models, ckpts, flags)
    with StderrConsole() as console:
        estimate = estimate_run(request, console=console, workers=parts, budget=seconds, age=_age)
    click.echo(_as_json(estimate) if as_json else as_text(estimate), nl=False)


plan.params += [parameter for parameter in score.params if parameter.name in _SHARED]


def _request(models: tuple[str, ...], ckpts: tuple[Path, ...], flags: dict[str, Any]) -> ScoreRequest:
    if len(models) > 1:
        raise UsageError("one --model at a time", hint="plan each by itself, and add them up")
    if not isinstance(flags["out"], Path):
        raise UsageError("a plan looks at a local --out only", hint="leave --out out: nothing is written")
    task = flags.pop("task")
    if task == "reconstruct":
        raise UsageError("--task reconstruct is not planned", hint="score a few images and look at the time")
    flags["translate"] = task == "translate"
    (request,) = requests_of(models, ckpts, flags)
    return request


def _age() -> float:
    """Seconds since this process began, by the operating system where it tells, else since this import."""
    with suppress(OSError, ValueError, IndexError):
        # Field 22, counted behind the name of the program, which may hold anything.
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return max(up - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
    return time.monotonic() - _IMPORTED


def _as_json(estimate: Estimate) -> str:
    from evalkit import strict_json  # noqa: PLC0415

    return strict_json.dumps(strict_json.encode_object(estimate))


def as_text(estimate: Estimate) -> str:
    """Return an estimate as people read it."""
    from evalkit.cli.columns import aligned  # noqa: PLC0415
    from evalkit.cli.status import duration  # noqa: PLC0415

    whole = sum(line.seconds for line in estimate.lines) or 1.0
    rows = [
        {
            "step": line.step,
            "time": duration(line.seconds) if line.seconds >= 10 else f"{line.seconds:.2f} s",
            "share": f"{line.seconds / whole:.0%}",
            "divided": "yes" if line.shared else "-",
            "detail": line.detail,
        }
        for line in estimate.lines
    ]
    workers = f" by each of {estimate.workers} processes" if estimate.workers > 1 else ""
    together = f" ({duration(estimate.worker_seconds)} of all together)" if estimate.workers > 1 else ""
    there = f", {estimate.reused:,} of them there already" if estimate.reused else ""
    lines = [
        f"{estimate.subject} · protocol {estimate.protocol} · {estimate.device}",
        "",
        aligned(rows),
        "",
        f"time    {duration(estimate.seconds)}{workers}{together}",
        f"memory  {size(estimate.memory_bytes)} about, in the process that scores",
        f"disk    {size(estimate.disk_bytes)} in {estimate.shards:,} shards of {estimate.shard_size} images",
        f"images  {estimate.images:,}{there}",
        *(f"note: {note}" for note in estimate.notes),
    ]
    return "\n".join(lines) + "\n"


def size(count: int) -> str:
    """Return bytes as people say them."""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit in _UNITS[:2] else f"{value:.1f} {unit}"
