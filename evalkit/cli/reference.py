"""``evalkit reference``: list, show, verify, compare and export statistics. Only ``.pt`` loads torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from evalkit.cli.columns import aligned
from evalkit.cli.reference_build import build
from evalkit.cli.reference_distance import distance
from evalkit.digests import file_sha256
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError
from evalkit.references import (
    Reference,
    bundled_folder,
    cached_folder,
    list_references,
    load_reference,
    read_index,
    write_index,
)
from evalkit.references.file import SUFFIX
from evalkit.references.foreign import write_adm_npz, write_pytorch_fid_npz

_FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print."
)


@click.group()
def reference() -> None:
    """Statistics of real images that samples are compared with."""


@reference.command("list")
@_FORMAT
def list_(form: str) -> None:
    """List the references that can be asked for by name."""
    rows = list_references()
    if form == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        click.echo(aligned([{**row, "bytes": _size(row["bytes"])} for row in rows]))


@reference.command()
@click.argument("name", metavar="NAME|FILE")
@_FORMAT
def show(name: str, form: str) -> None:
    """Show what a reference was made from and what it holds."""
    facts = _describe(load_reference(name))
    if form == "json":
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    heads = facts.pop("heads")
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        if value not in (None, "", [], {}):
            click.echo(f"{key.replace('_', ' '):<{width}}  {_text(value)}")
    click.echo("\n" + aligned([{"head": head, **numbers} for head, numbers in heads.items()]))


@reference.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
def verify(names: Sequence[str]) -> None:
    """Check every number of references (by default all that are bundled or built here).

    Format, shapes, digests, finite, symmetric and positive semidefinite; bundled files against INDEX.md.
    """
    checked = list(names) or [str(path) for path in _all_files()]
    if not checked:
        raise NothingMeasuredError("there are no references to verify", hint="evalkit reference verify FILE")
    broken = [name for name in checked if not _verify_one(name)]
    if broken:
        raise InvalidInputError(
            f"{len(broken)} of {len(checked)} references cannot be used: {', '.join(map(_short, broken))}",
            hint="build them again, or install evalkit again where they are bundled",
        )


@reference.command()
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--format", "form", type=click.Choice(["pytorch-fid", "adm"]), required=True, help="Whose file to write."
)
@click.option("--head", default=None, help="Head behind mu and sigma (default: 2048, or the only one).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .npz to write."
)
def export(name: str, form: str, head: str | None, out: Path) -> None:
    """Write the statistics of a reference as a file that another tool reads."""
    loaded = load_reference(name)
    chosen = head or (next(iter(loaded.heads)) if len(loaded.heads) == 1 else "2048")
    if form == "adm":
        write_adm_npz(loaded, head=chosen, path=out)
    else:
        write_pytorch_fid_npz(loaded, head=chosen, path=out)
    click.echo(f"wrote {out}", err=True)


@reference.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def index(folder: Path) -> None:
    """Write INDEX.md of a folder of references."""
    click.echo(f"wrote {write_index(folder)}", err=True)


reference.add_command(build)
reference.add_command(distance)


def _describe(loaded: Reference) -> dict[str, Any]:
    about = loaded.about
    return {
        "name": about.name,
        "title": about.title,
        "dataset": about.dataset,
        "split": about.split,
        "resolution": about.resolution,
        "images": about.count or None,
        "classes": list(about.class_names),
        "extractor": about.extractor.to_json() if about.extractor else None,
        "images_sha256": about.images_sha256,
        "identity": loaded.sha256,
        "file": str(loaded.path) if loaded.path else None,
        "file_sha256": file_sha256(loaded.path) if loaded.path else None,
        "created_by": about.created_by,
        "command": about.command,
        "heads": {
            name: {
                "dimensions": head.dimension,
                "features_kept": len(head.bank) if head.has_bank else 0,
                "classes": len(head.classes),
                "mean_norm": float(f"{(head.mean @ head.mean) ** 0.5:.6g}"),
                "total_variance": float(f"{head.covariance.trace():.6g}"),
            }
            for name, head in loaded.heads.items()
        },
    }


def _all_files() -> list[Path]:
    # By name and not by header: a file whose header is damaged must be reported, not stop the check.
    folders = [folder for folder in (bundled_folder(), cached_folder()) if folder is not None]
    return [path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]


def _verify_one(name: str) -> bool:
    """Print the verdict on one reference; True where it is whole."""
    try:
        loaded = load_reference(name)
        if loaded.path is not None:
            _check_index(loaded.path)
    except EvalkitError as error:
        click.echo(f"BROKEN  {_short(name)}: {error.message}")
        return False
    heads = ", ".join(f"{head} {statistics.dimension}" for head, statistics in loaded.heads.items())
    click.echo(f"ok      {_short(name)}: {loaded.count or 'unknown number of'} images; {heads}")
    return True


def _check_index(path: Path) -> None:
    folder = bundled_folder()
    if folder is None or path.parent.resolve() != folder.resolve():
        return
    expected, found = read_index(folder).get(path.name), file_sha256(path)
    if expected != found:
        wanted = f"INDEX.md says {expected[:12]}…" if expected else "it is not in INDEX.md"
        raise InvalidInputError(f"its SHA-256 is {found[:12]}…, but {wanted}")


def _short(name: str) -> str:
    return Path(name).name


def _text(value: object) -> str:
    if isinstance(value, dict):
        params = ", ".join(f"{key} {item}" for key, item in value["params"].items())
        return f"{value['name']} ({params}) weights {value['sha256']}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
