"""``--executor`` and an ``--out`` that may be a URL: where a run computes, and where its folder is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.errors import UsageError
from evalkit.executors.addresses import RayOptions, parse_executor

if TYPE_CHECKING:
    from evalkit.console import Console
    from evalkit.object_stores import RunFolder
    from evalkit.record import RunRecord
    from evalkit.request import ScoreRequest

Run = Callable[..., "RunRecord"]


class FolderOrUrl(click.ParamType["Path | str"]):
    """A local folder as a path, or the URL of an object store as it was written."""

    name = "dir|url"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """Return a path, or a URL as text: a path of it would lose a slash."""
        del param, ctx
        from evalkit.object_stores import is_url  # noqa: PLC0415 - fsspec is not for --help

        return value if isinstance(value, str) and is_url(value) else Path(value)


def executor_option(purpose: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return ``--executor`` of a command."""
    return click.option(
        "--executor",
        default="local",
        callback=_executor,
        metavar="local|ray[:ADDRESS]",
        help=f"{purpose} ray: a cluster of this machine; ray:auto, ray:HOST:6379, ray://HOST:10001 that; "
        "?num_cpus=4&num_gpus=1 is what one task gets. See docs/distributed.md.",
    )


def _executor(_context: click.Context, _parameter: click.Parameter, value: str) -> RayOptions | None:
    return parse_executor(value)


@contextmanager
def placed(
    requests: list[ScoreRequest], out: Path | str, *, console: Console
) -> Iterator[tuple[list[ScoreRequest], RunFolder]]:
    """Give ``requests`` the folder that ``--out`` names; that of a URL is sent there on leaving.

    Raises:
        UsageError: a URL of a kind that is not known or not installed.
        TemporaryError: on leaving, what the run made could not be sent; it is kept here.
    """
    from evalkit.object_stores import opened  # noqa: PLC0415 - fsspec is for runs alone

    with opened(out, notify=console.note) as folder:
        yield [replace(request, out=folder.path, mirror=folder.mirror) for request in requests], folder


@contextmanager
def executing(options: RayOptions | None, run: Run, *, device: str, console: Console) -> Iterator[Run]:
    """Give what scores a request: ``run`` itself, or the pipeline with the workers of a cluster.

    Raises:
        UsageError: ray is not installed, or no node has room.
        TemporaryError: there is no cluster at the address.
    """
    if options is None:
        yield run
        return
    from evalkit import evaluate  # noqa: PLC0415 - loads torch
    from evalkit.executors.filling import Filling  # noqa: PLC0415
    from evalkit.executors.ray_engine import ray_engine  # noqa: PLC0415

    with ray_engine(options, device=device, notify=console.note) as engine:

        def there(request: ScoreRequest, *, console: Console, stop: Callable[[], int]) -> RunRecord:
            fill = Filling(engine, engine.device, fresh=request.fresh)
            return evaluate.run(replace(request, fresh=False), console=console, stop=stop, fill=fill)

        yield there


def refuse_elsewhere(options: RayOptions | None, *, task: str, deciding: bool) -> None:
    """Refuse what only one process does.

    Raises:
        UsageError: ``--executor ray`` with such a flag.
    """
    if options is None:
        return
    if task == "reconstruct":
        raise UsageError(
            "--executor ray does not go with --task reconstruct",
            hint="leave it out: one process makes and compares the reconstructions",
        )
    if deciding:
        raise UsageError(
            "--executor ray does not go with --until-decided",
            hint="leave one of them out: it looks at every shard as one process draws it",
        )
