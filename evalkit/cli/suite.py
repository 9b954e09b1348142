"""``evalkit suite``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.executor import FolderOrUrl, executor_option
from evalkit.cli.options import format_option, names
from evalkit.errors import EvalkitError, UsageError

if TYPE_CHECKING:
    from evalkit.executors import RayOptions
    from evalkit.reporting.rendering import Format
    from evalkit.suites import Cell, Flag, Orders, Suite
    from evalkit.suites.facts import Kind, Place
    from evalkit.suites.processes import Launcher
    from evalkit.suites.scheduler import Launch

# What a row, the suite or one run of it says instead; and files that each cell would overwrite.
_NOT_IN_FILES = frozenset(
    {"model", "name", "protocol", "seed", "device", "out", "fresh", "format", "log", "executor", "shard"}
    | {"per_pair", "worst", "worst_by", "k", "until_decided", "baseline", "rule", "spec", "for"}
)
_NAME_OR_PATH = frozenset({"reference", "held_out", "attributes"})
_PAIRS = frozenset({"weights"})


@click.command(context_settings={"show_default": True})
@click.argument("suite", required=False, metavar="FILE.toml|NAME")
@click.option("--list", "list_", is_flag=True, help="List the suites that ship with evalkit.")
@click.option(
    "--out",
    type=FolderOrUrl(),
    metavar="DIR",
    help="Folder of records, logs, tables and suite.json.  [default: evalkit-runs/NAME]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at once.  [default: one for each device; as many as the cluster has room for]",
)
@click.option(
    "--device", "devices", default="auto", callback=names, metavar="A,B,…",
    help="Given to the runs in turn: cpu, or cuda:0,cuda:1.",
)  # fmt: skip
@executor_option("Where the runs run.")
@click.option("--only", multiple=True, callback=lambda c, p, v: names(c, p, ",".join(v)), metavar="MODEL",
              help="Run only these rows; repeat it, or write A,B.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Run everything again, what is done too.")
@click.option("--fail-fast", is_flag=True, help="Start nothing more after a run that failed.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the commands, run nothing.")
@format_option
def suite(suite: str | None, list_: bool, out: Path | str | None, output_format: Format, **flags: Any) -> int:  # noqa: ANN401
    """Score many models under many protocols with many seeds, then make tables.

    \b
    evalkit suite cifar10-jpeg                       the bundled models
    evalkit suite mine.toml --jobs 2 --device cuda:0,cuda:1
    evalkit suite mine.toml --executor ray:auto      each run a task of the cluster
    evalkit suite mine.toml --dry-run                what would run

    The same command continues where an earlier one was stopped, and runs only what is missing or failed.
    Exit code: 0 where every run has its record, else that of the first run (in the order of the file) that
    failed: 75 if it was killed, 70 if it crashed. 130 or 143 where a signal stopped the suite.
    """
    if list_:
        return _list()
    if suite is None:
        raise UsageError(
            "which suite?", hint="evalkit suite FILE.toml, or a bundled one: evalkit suite --list"
        )
    if isinstance(out, str):
        raise UsageError(
            "the folder of a suite is one of this machine", hint="--out DIR; evalkit score takes a URL"
        )
    if out is not None and out.is_file():
        raise UsageError(f"{out} is a file", hint="--out DIR")
    return _run(suite, out, output_format, flags)


def _list() -> int:
    from evalkit.suites import bundled_suites, cells_of, read_suite  # noqa: PLC0415

    for file in bundled_suites().values():
        found = read_suite(file, score_flags())
        click.echo(f"{found.name}  {found.title} ({len(found.rows)} rows, {len(cells_of(found))} runs)")
    return 0


def _run(text: str, out: Path | None, output_format: Format, flags: dict[str, Any]) -> int:
    from evalkit.cli.console import signals  # noqa: PLC0415 - loads torch
    from evalkit.cli.suite_output import progress, report  # noqa: PLC0415
    from evalkit.suites import (  # noqa: PLC0415
        Orders,
        cells_of,
        find_suite,
        missing_cells,
        read_suite,
        run_suite,
    )

    found = read_suite(find_suite(text), score_flags())
    cells = cells_of(found)
    devices, elsewhere = _devices(flags), flags["executor"] is not None
    orders = Orders(
        folder=out or Path("evalkit-runs") / found.name,
        jobs=flags["jobs"] or len(devices),
        devices=devices,
        fresh=flags["fresh"],
        fail_fast=flags["fail_fast"],
        only=_known_rows(found, flags["only"]),
    )
    chosen = orders.chosen(cells)
    with _quiet():
        for cell in chosen:
            _check(cell)
    todo = missing_cells(cells, orders, suite=found.name)
    if flags["dry_run"]:
        return _dry_run(chosen, todo, orders)
    with ExitStack() as stack:
        if flags["executor"] is not None and todo:
            orders, launch = stack.enter_context(_on_cluster(flags["executor"], orders, jobs=flags["jobs"]))
        else:
            launch = _here
        _tell_plan(found, chosen, todo, orders, elsewhere=elsewhere)
        stop, tell = stack.enter_context(signals()), stack.enter_context(progress(len(todo)))
        outcome = run_suite(cells, orders, suite=found.name, stop=stop, tell=tell, launch_with=launch)
    return report(found, outcome, orders, output_format)


def _devices(flags: dict[str, Any]) -> tuple[str, ...]:
    devices: tuple[str, ...] = flags["devices"] or ("auto",)
    if flags["executor"] is not None and len(devices) > 1:
        raise UsageError("--executor ray gives out devices itself", hint="leave --device out, or name one")
    return devices


def _here(launcher: Launcher) -> Launch:
    return launcher


@contextmanager
def _on_cluster(
    options: RayOptions, orders: Orders, *, jobs: int | None
) -> Iterator[tuple[Orders, Callable[[Launcher], Launch]]]:
    """Give orders for a cluster, and what starts a run there."""
    from evalkit.cli import main  # noqa: PLC0415 - it imports commands when they are called
    from evalkit.executors.ray_engine import ray_engine  # noqa: PLC0415
    from evalkit.suites.elsewhere import Elsewhere  # noqa: PLC0415 - loads torch

    (device,) = orders.devices
    with ray_engine(options, device=device, once=True, notify=_note) as engine:
        devices = (engine.device if device == "auto" else device.partition(":")[0],)
        ordered = replace(orders, devices=devices, jobs=jobs or max(engine.slots(), 1))
        yield ordered, lambda launcher: Elsewhere(engine, launcher, main.run)


def _note(text: str) -> None:
    click.echo(f"evalkit: {text}", err=True)


def score_flags() -> dict[str, Flag]:
    """Return the flags of ``evalkit score`` that a suite may set, by key; read off the command itself."""
    from evalkit.cli.score import score  # noqa: PLC0415
    from evalkit.suites import Flag  # noqa: PLC0415

    flags = {}
    for parameter in score.params:
        option = next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
        key = option.lstrip("-").replace("-", "_")
        if key in _NOT_IN_FILES or not isinstance(parameter, click.Option):
            continue
        flags[key] = Flag(key=key, option=option, kind=_kind(parameter, key), place=_place(parameter, key))
    return flags


def _kind(option: click.Option, key: str) -> Kind:
    if option.is_flag:
        return "switch"
    if option.multiple and key != "ckpt":  # one for each --model, of which a row has one
        return "repeated"
    return "list" if option.callback is names else "one"


def _place(option: click.Option, key: str) -> Place:
    if isinstance(option.type, click.Path):
        return "path"
    if key in _PAIRS:
        return "pair"
    return "name-or-path" if key in _NAME_OR_PATH else "none"


def _known_rows(found: Suite, only: Sequence[str]) -> tuple[str, ...]:
    from evalkit.registry import did_you_mean  # noqa: PLC0415

    rows = [row.name for row in found.rows]
    for name in only:
        if name not in rows:
            raise UsageError(f"the suite {found.name} has no row {name!r}", hint=did_you_mean(name, rows))
    return tuple(only)


def _check(cell: Cell) -> None:
    """Refuse what ``evalkit score`` would refuse before it samples; the message says where it stands."""
    from evalkit.cli.score_check import check_arguments  # noqa: PLC0415 - loads torch

    try:
        check_arguments(cell.arguments)
    except click.ClickException as error:
        raise UsageError(f"{cell.place}: {error.format_message()}") from error
    except EvalkitError as error:
        raise type(error)(f"{cell.place}: {error.message}", hint=error.hint) from error


def _dry_run(cells: Sequence[Cell], todo: Sequence[Cell], orders: Orders) -> int:
    from evalkit.suites import command_of  # noqa: PLC0415

    missing = {cell.key for cell in todo}
    for number, cell in enumerate(cells):
        device = orders.devices[number % len(orders.devices)]
        words = command_of(cell, orders.folder, device=device, fresh=orders.fresh)
        command = shlex.join(("evalkit", *words))
        click.echo(command if cell.key in missing else f"{command}  # done")
    return 0


def _tell_plan(
    found: Suite, chosen: Sequence[Cell], todo: Sequence[Cell], orders: Orders, *, elsewhere: bool
) -> None:
    done = f", {len(chosen) - len(todo)} done before" if len(todo) < len(chosen) else ""
    where = f"; {orders.jobs} at once on the cluster" if elsewhere and todo else ""
    click.echo(f"evalkit: {found.title}: {len(todo)} runs to do{done}{where}; in {orders.folder}", err=True)
    if orders.jobs > len(orders.devices) and len(todo) > 1 and not elsewhere:
        click.echo(
            f"evalkit: {orders.jobs} runs at once on {len(orders.devices)} device"
            f"{'s' if len(orders.devices) > 1 else ''}: their images/s are lower than alone",
            err=True,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings of libraries that a check loads do not belong on the screen."""
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
