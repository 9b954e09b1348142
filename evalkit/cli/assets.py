"""``evalkit assets``: published weights: what they are for, whether they are here, and how to get them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from evalkit.asset_catalogue import ASSETS, Published, present
from evalkit.assets import cache_folder, cached, fetch, import_file
from evalkit.cli.columns import aligned
from evalkit.errors import InvalidInputError

_FORMAT = click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table")


@click.group()
def assets() -> None:
    """List, fetch, verify and import published weights; each is checked by its SHA-256.

    \b
    evalkit assets list
    evalkit assets fetch clip-vit-b-32
    evalkit assets import clip-vit-b-32 ~/Downloads/ViT-B-32.pt
    evalkit assets verify
    """


@assets.command(name="list")
@_FORMAT
def list_(output_format: str) -> None:
    """List published files, and which of them are at hand (their hash is checked when they are used)."""
    _show([_row(name, ASSETS[name]) for name in ASSETS], output_format)


@assets.command(name="fetch")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_FORMAT
def fetch_(names: tuple[str, ...], output_format: str) -> None:
    """Download published files into the cache; those that are there are verified and kept."""
    wanted = {name: ASSETS[name] for name in names}
    _show(
        [{"name": name, "path": str(fetch(published.asset))} for name, published in wanted.items()],
        output_format,
    )


@assets.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_FORMAT
def verify(names: tuple[str, ...], output_format: str) -> None:
    """Hash the files in the cache again; leave with 6 where one is damaged.

    Without NAME, every published file that is at hand is verified.
    """
    chosen = names or tuple(name for name in ASSETS if present((name,)))
    rows = [_verified(name) for name in chosen]
    _show(rows, output_format)
    damaged = [row["name"] for row in rows if row["state"] == "damaged"]
    if damaged:
        raise InvalidInputError(
            f"{len(damaged)} of {len(rows)} files are damaged: {', '.join(damaged)}",
            hint=f"delete them and `evalkit assets fetch {' '.join(damaged)}`",
        )


@assets.command(name="import")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@_FORMAT
def import_(name: str, file: Path, output_format: str) -> None:
    """Copy FILE into the cache as the published file NAME, after its hash was checked."""
    _show([{"name": name, "path": str(import_file(ASSETS[name].asset, file))}], output_format)


def _verified(name: str) -> dict[str, Any]:
    path = _path(ASSETS[name])
    try:
        state = "whole" if cached(ASSETS[name].asset) else "not here"
    except InvalidInputError:
        state = "damaged"
    return {"name": name, "state": state, "path": str(path)}


def _row(name: str, published: Published) -> dict[str, Any]:
    asset = published.asset
    return {
        "name": name,
        "at_hand": present((name,)),
        "size": asset.size,
        "sha256": asset.sha256,
        "licence": published.licence,
        "purpose": published.purpose,
        "url": asset.url,
        "path": str(_path(published)),
    }


def _path(published: Published) -> Path:
    return cache_folder() / published.asset.filename


def _show(rows: list[dict[str, Any]], output_format: str) -> None:
    if output_format == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    click.echo(aligned([_brief(row) for row in rows]))


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: megabytes, the beginning of the digest, no paths."""
    if "purpose" not in row:
        return row
    size = f"{row['size'] / 1e6:.0f} MB" if row["size"] else None
    return {
        "name": row["name"],
        "at_hand": row["at_hand"],
        "size": size,
        "sha256": f"{row['sha256'][:8]}…",
        "licence": row["licence"],
        "for": row["purpose"],
    }
