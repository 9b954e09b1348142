"""The command line: each command is imported when it is called, and every error has its exit code."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import click

from evalkit.errors import EvalkitError

# Name -> (module with an attribute of that name, one line for --help).
_COMMANDS = {
    "score": ("evalkit.cli.score", "Score a model's samples, or images, against a reference."),
    "plan": ("evalkit.cli.plan", "Say what a score will cost before it is begun: time, memory, disk."),
    "merge": ("evalkit.cli.merge", "Score a run from the parts that `score --shard` computed."),
    "sample": ("evalkit.cli.sample", "Write samples of a model as PNG files or an npz."),
    "compare": ("evalkit.cli.compare", "Compare records in one table: quality, error bars, images/s."),
    "gate": ("evalkit.cli.gate", "Fail where a model became worse than its baseline: for CI."),
    "leaderboard": ("evalkit.cli.leaderboard", "Add records to a published board; build, check, export it."),
    "report": ("evalkit.cli.report", "One HTML page about a model or two: scores, samples, curves."),
    "suite": ("evalkit.cli.suite", "Score many models under many protocols and seeds, resumably."),
    "status": ("evalkit.cli.status", "Say how far the runs below a folder are, and what is missing."),
    "log": ("evalkit.cli.log", "Send records to MLflow, W&B, TensorBoard or DVC."),
    "reference": ("evalkit.cli.reference", "Build, list, show, verify and export references."),
    "pairs": ("evalkit.cli.pairs", "Compare each generated image with its own reference image."),
    "memorisation": ("evalkit.cli.memorisation", "Find samples that are copies of training images."),
    "verify": ("evalkit.cli.verify", "Measure published numbers again on this machine."),
    "assets": ("evalkit.cli.assets", "List, fetch, verify and import published weights."),
    "bench": ("evalkit.cli.bench", "Measure sampling speed, and quality against steps and seconds."),
    "inspect": ("evalkit.cli.inspect", "Say what a checkpoint is and which model reads it."),
    "train": ("evalkit.cli.train", "Train a bundled model again from images."),
    "card": ("evalkit.cli.card", "Write the model card of a checkpoint from its records."),
    "list": ("evalkit.cli.listing", "List models, metrics, extractors, references, samplers …"),
    "doctor": ("evalkit.cli.doctor", "Check this machine: versions, device, weights, references."),
}
_INTERNAL, _INTERRUPTED = 70, 130
_LONGEST_TEXT = 6000  # twenty offenders with long names fit
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called; ``--help`` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name if cmd_name != "list" else "list_")
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__} has no command {cmd_name!r}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from evalkit.registry import did_you_mean  # noqa: PLC0415 - on a miss only

            raise click.UsageError(f"no command {args[0]!r}; {did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="evalkit", prog_name="evalkit")
def cli() -> None:
    """Comparable, resumable evaluation of generative image models, with error bars.

    \b
    evalkit score --model ddpm                       the bundled diffusion model, offline
    evalkit score --model ddpm --ckpt x.pt           your own weights
    evalkit score --images samples/ --reference real/
    evalkit compare evalkit-runs/                    one table of everything scored
    evalkit gate new.json --baseline old.json        exit 1 where a model became worse
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with the exit code of :mod:`evalkit.errors`."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command; return its exit code, having told the user what went wrong on stderr."""
    try:
        result = cli.main(args=argv, prog_name="evalkit", standalone_mode=False)
    except EvalkitError as error:
        _tell(error.message, error.hint)
        return error.exit_code
    except click.exceptions.Exit as leave:
        result = leave.exit_code
    except click.ClickException as error:
        try:
            error.show()
        except BrokenPipeError:
            _silence(sys.__stderr__)
        return 2
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted", "run the same command to continue")
        return _INTERRUPTED
    except SystemExit as leave:
        # The reader of our output has left, which click answers with code 1.
        if leave.code != 1:
            raise
        _silence(sys.__stdout__, sys.__stderr__)
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: code 1 is the gate's alone
        with suppress(BrokenPipeError):
            traceback.print_exc()
        _tell(f"internal error: {error}", "this is a bug in evalkit; the lines above say where")
        return _INTERNAL
    return result if isinstance(result, int) else 0


def _tell(message: str, hint: str | None) -> None:
    """Print what went wrong; a name of a file in it cannot move the cursor, colour or flood the terminal."""
    try:
        click.echo(f"evalkit: {_shown(message)}", err=True)
        if hint:
            click.echo(f"   hint: {_shown(hint)}", err=True)
    except BrokenPipeError:
        _silence(sys.__stderr__)


def _shown(text: str) -> str:
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"
    return _CONTROL.sub("?", cut)


def _silence(*streams: TextIO | None) -> None:
    """Point streams whose reader has left at nothing, so that the exit flushes quietly."""
    for stream in filter(None, streams):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
