"""``evalkit reference distance``: the Fréchet distance of two statistics files. No images and no torch."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.references import HeadStatistics, Reference, load_reference
from evalkit.spec import Spec

_INCEPTION, _POOL = "inception-v3", "2048"
_UNNAMED = "not named by the files: FID only if both were made by the same InceptionV3 and resizer"


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--head", default=None, help="Head to compare (default: 2048, or the only one of both).")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print.")
def distance(a: str, b: str, head: str | None, form: str) -> None:
    """Measure the Fréchet distance between the statistics A and B.

    Each is a reference by name, a reference file, or a statistics file of pytorch-fid, clean-fid, ADM, EDM,
    StudioGAN or torch-fidelity. Statistics know nothing of single images, so there is no error bar; `evalkit
    score` has one.

    \b
    evalkit reference distance mine.npz cifar10.npz
    evalkit reference distance cifar10-jpeg-train cifar10-jpeg-test --head pooled
    """
    with ThreadPoolExecutor(2) as pool:  # reading, digests and Cholesky leave the interpreter free
        one, other = pool.map(load_reference, (a, b))
    facts = _measured(one, other, head)
    if form == "json":
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    made_by = facts["extractor"]
    lines = {
        facts["name"]: f"{facts['value']:.6g}",
        "head": f"{facts['head']}, {facts['dimensions']} dimensions",
        "extractor": f"{made_by['name']} ({_params(made_by)})" if made_by else _UNNAMED,
        "A": _side(facts["a"]),
        "B": _side(facts["b"]),
    }
    width = max(map(len, lines))
    for key, text in lines.items():
        click.echo(f"{key:<{width}}  {text}")


def _measured(a: Reference, b: Reference, head: str | None) -> dict[str, Any]:
    if a.extractor is not None:
        b.check_extractor(a.extractor)
    name, one, other = _heads(a, b, head)
    from evalkit.numerics import frechet_distance  # noqa: PLC0415 - what is wrong is told before it loads

    extractor = a.extractor or b.extractor
    both_known = a.extractor is not None and b.extractor is not None
    published = both_known and extractor is not None and (extractor.name, name) == (_INCEPTION, _POOL)
    return {
        "metric": "fd",
        "name": "Fréchet distance (FID)" if published else "Fréchet distance",
        "value": frechet_distance(one.mean, one.covariance, other.mean, other.covariance),
        "head": name,
        "dimensions": one.dimension,
        "extractor": _spec(extractor) if both_known else None,
        "a": _facts(a, one),
        "b": _facts(b, other),
    }


def _heads(a: Reference, b: Reference, head: str | None) -> tuple[str, HeadStatistics, HeadStatistics]:
    """Return the name of the head, and its statistics on both sides.

    Raises:
        UsageError: several heads could be meant.
        NothingMeasuredError: there is no such head, or none in common.
        InvalidInputError: the head has other dimensions on the other side.
    """
    name = head or _common(a, b)
    # A file of another tool names its heads by their dimensions, so the other side decides which is meant.
    if a.extractor is None and b.extractor is not None:
        other = b.head(name)
        return name, a.head(name, dimension=other.dimension), other
    one = a.head(name)
    return name, one, b.head(name, dimension=one.dimension)


def _common(a: Reference, b: Reference) -> str:
    shared = [name for name in a.heads if name in b.heads]
    if _POOL in shared:
        return _POOL
    if len(shared) > 1:
        raise UsageError(
            f"both hold the heads {', '.join(shared)}", hint=f"choose one, for example --head {shared[0]}"
        )
    if shared:
        return shared[0]
    named, other = (a, b) if a.extractor is not None else (b, a)
    if other.extractor is None:
        fitting = [
            name
            for name, head in named.heads.items()
            if any(head.dimension == theirs.dimension for theirs in other.heads.values())
        ]
        if len(fitting) == 1:
            return fitting[0]
    raise NothingMeasuredError(
        f"{a.name!r} and {b.name!r} have no head in common: {_listed(a)}; {_listed(b)}",
        hint="statistics compare only where the same network made them",
    )


def _listed(reference: Reference) -> str:
    return ", ".join(f"{name} ({head.dimension})" for name, head in reference.heads.items())


def _facts(reference: Reference, head: HeadStatistics) -> dict[str, Any]:
    return {
        "name": reference.name,
        "title": reference.title,
        "images": head.count or reference.count or None,
        "identity": reference.sha256,
    }


def _spec(extractor: Spec | None) -> dict[str, Any] | None:
    return extractor.to_json() if extractor else None


def _params(extractor: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in extractor["params"].items())


def _side(facts: dict[str, Any]) -> str:
    images = f"{facts['images']} images" if facts["images"] else "number of images unknown"
    return f"{facts['name']}: {images}"
