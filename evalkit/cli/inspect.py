"""``evalkit inspect``: what a checkpoint is and which model reads it, without running anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from evalkit.generators.inspection import Inspection

_REFUSED = 6
_LISTED = 20


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--preset", metavar="NAME", help="Preset that says what the tensors do not.")
@click.option(
    "--weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    help="Averaged weights where there are any, or the weights as trained.",
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table")
def inspect(checkpoint: Path, preset: str | None, weights: Literal["ema", "raw"], output_format: str) -> int:
    """Say what a checkpoint FILE (or diffusers folder) is and which model reads it.

    \b
    evalkit inspect network-snapshot.pkl
    evalkit inspect ckpt.pt --preset NAME

    Nothing in the file is ever run. The exit code is 0 where a model reads it (even if a preset must still
    say what the tensors do not), 6 where none does.
    """
    from evalkit import strict_json  # noqa: PLC0415
    from evalkit.generators.inspection import inspect_checkpoint  # noqa: PLC0415 - loads torch

    report = inspect_checkpoint(checkpoint, preset=preset, weights=weights)
    if output_format == "json":
        click.echo(strict_json.dumps(strict_json.encode(report)), nl=False)
    else:
        click.echo(_text(report))
    return _REFUSED if report.problem else 0


def _text(report: Inspection) -> str:
    rows = [
        ("file", report.path),
        ("sha256", report.sha256),
        ("container", report.container),
        ("layout", _named(report)),
        ("model", ", ".join(report.models) or "none"),
        ("class", report.class_name),
        ("tensors", f"{report.tensors}, {report.parameters:,} numbers" if report.tensors else None),
        ("types", ", ".join(f"{name} x {count}" for name, count in report.dtypes.items())),
        ("preset", report.preset),
        ("sidecar", report.sidecar),
        ("missing", ", ".join(report.missing)),
        ("presets", ", ".join(report.presets) if report.missing else None),
        ("not finite", ", ".join(report.not_finite)),
        ("problem", report.problem),
        ("hint", report.hint),
    ]
    lines = [f"{name:<11}{_line(value)}" for name, value in rows if value]
    lines += [f"{'nearest':<11}{_line(near)}" for near in report.nearest]
    return "\n".join([*lines, *_parts(report)])


def _parts(report: Inspection) -> list[str]:
    lines = ["", "in the file:"] if report.parts or report.holds else []
    for part in report.parts:
        used = "  <- used" if part.used else ""
        kind = f"  {part.class_name}" if part.class_name else ""
        name = _line(part.name or "(the whole)")
        lines.append(f"  {name:<20} {part.tensors:>6} tensors {part.parameters:>13,} numbers{kind}{used}")
    lines += [f"  {_line(name):<20} {_line(kind)}" for name, kind in list(report.holds.items())[:_LISTED]]
    if len(report.holds) > _LISTED:
        lines.append(f"  and {len(report.holds) - _LISTED} more")
    return lines


def _named(report: Inspection) -> str:
    if report.layout and report.layout_title:
        return f"{report.layout} ({report.layout_title})"
    if report.layout:
        return report.layout
    return f"state dict of evalkit's own {report.models[0]}" if report.models else "unknown"


def _line(text: str) -> str:
    """Keep names from a file on one line and free of what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
