"""References by name or path: bundled, built on this machine, evalkit files, and files of other tools.

    reference = load_reference("cifar10-jpeg-train", extractor=extractor.spec)
    distance = frechet(generated, reference.head("block"))

Everything about references is imported from here. No torch until a reference is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.assets import cache_folder
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.references.file import (
    FORMAT,
    SUFFIX,
    HeadFacts,
    ReferenceFacts,
    facts_by_name,
    is_reference_file,
    read_facts,
    read_reference,
    write_reference,
)
from evalkit.references.foreign import holds_sample_images, is_foreign_statistics, read_foreign
from evalkit.references.heads import Bank, HeadStatistics
from evalkit.references.index import read_index, write_index
from evalkit.references.recipes import REGISTERED, ReferenceRecipe
from evalkit.references.statistics import Description, Reference
from evalkit.registry import did_you_mean
from evalkit.spec import Spec

if TYPE_CHECKING:
    from evalkit.references.builder import ReferenceBuilder

__all__ = [
    "FORMAT",
    "REGISTERED",
    "Bank",
    "Description",
    "HeadFacts",
    "HeadStatistics",
    "Reference",
    "ReferenceBuilder",
    "ReferenceFacts",
    "ReferenceRecipe",
    "at_hand",
    "bundled_folder",
    "bundled_references",
    "cached_folder",
    "cached_reference",
    "cached_references",
    "holds_sample_images",
    "list_references",
    "load_reference",
    "looks_like_statistics",
    "read_facts",
    "read_index",
    "read_reference",
    "reference_names",
    "store_reference",
    "write_index",
    "write_reference",
]

_DIGEST_LENGTH = 16


def __getattr__(name: str) -> Callable[..., Any]:
    if name == "ReferenceBuilder":  # the one part that loads torch
        from evalkit.references.builder import ReferenceBuilder  # noqa: PLC0415

        return ReferenceBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def bundled_folder() -> Path | None:
    """Return the folder of bundled references: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    candidates = (package / "reference_stats", package.parent / "reference_stats")
    return next((folder for folder in candidates if folder.is_dir()), None)


def bundled_references() -> dict[str, ReferenceFacts]:
    """Return the references that ship with evalkit, by name; reads headers only."""
    folder = bundled_folder()
    return facts_by_name(folder) if folder else {}


def cached_references() -> list[ReferenceFacts]:
    """Return the references built on this machine; a name may occur once for each extractor."""
    return [
        read_facts(path) for path in sorted(cached_folder().glob(f"*{SUFFIX}")) if is_reference_file(path)
    ]


def reference_names() -> list[str]:
    """Return every name that can be asked for."""
    cached = (facts.about.name for facts in cached_references())
    return sorted({*bundled_references(), *REGISTERED, *cached})


def list_references() -> list[dict[str, Any]]:
    """Return a row of JSON data for each reference: bundled, built here, or registered and not built yet."""
    bundled, cached = list(bundled_references().values()), cached_references()
    rows = [_row(facts, "bundled") for facts in bundled] + [_row(facts, "built here") for facts in cached]
    measured = {row["name"] for row in rows}
    return rows + [_recipe_row(REGISTERED[name]) for name in REGISTERED if name not in measured]


def load_reference(name_or_path: str | Path, *, extractor: Spec | None = None) -> Reference:
    """Return a bundled reference, one built before, a reference file, or statistics of another tool.

    A known name wins over a file of that name (say ``./cifar10`` for the file). A folder or archive of
    images is not a reference yet: build one.

    Raises:
        UsageError: no such name or file, or it holds images.
        NotComparableError: it was made with another extractor than ``extractor``.
        NothingMeasuredError: a registered reference was not built yet for this extractor.
        InvalidInputError: the file is damaged or holds impossible statistics; says which.
    """
    name = str(name_or_path)
    reference = None if isinstance(name_or_path, Path) else _load_known(name, extractor)
    if reference is None:
        reference = _load_path(Path(name_or_path))
    if extractor is not None:
        reference.check_extractor(extractor)
    return reference


def looks_like_statistics(path: Path) -> bool:
    """Whether a file holds statistics, rather than images: told by its content."""
    return path.is_file() and (is_reference_file(path) or is_foreign_statistics(path))


def at_hand(name: str, *, extractor: str, resizer: str | None = None) -> bool:
    """Whether reference ``name`` can be used with the extractor called ``extractor`` without a download.

    Images can always be measured, and statistics of other tools fit the InceptionV3 that they were made with.
    """

    def fits(spec: Spec | None) -> bool:
        if spec is None or spec.name != extractor:
            return False
        return resizer in {None, dict(spec.params).get("resizer")}

    known = [
        facts for facts in (*bundled_references().values(), *cached_references()) if facts.about.name == name
    ]
    if known or name in REGISTERED:
        return any(fits(facts.about.extractor) for facts in known)
    path = Path(name)
    if is_reference_file(path):
        return fits(read_facts(path).about.extractor)
    return path.exists() and (extractor == "inception-v3" or not looks_like_statistics(path))


def cached_reference(
    name: str, *, extractor: Spec, heads: Sequence[str] = (), class_heads: Sequence[str] = ()
) -> Reference | None:
    """Return the reference ``name`` built before with ``extractor``, or None.

    None also where it lacks some of ``heads``, or moments by class of some of ``class_heads``.

    Raises:
        InvalidInputError: the file is damaged.
    """
    path = cached_path(name, extractor=extractor)
    if not path.is_file():
        return None
    reference = read_reference(path)
    grouped = {head for head, statistics in reference.heads.items() if statistics.classes}
    return reference if set(heads) <= set(reference.heads) and set(class_heads) <= grouped else None


def cached_path(name: str, *, extractor: Spec) -> Path:
    """Return where a reference built on this machine is kept: one file for each name and extractor."""
    return cached_folder() / f"{name}-{extractor.digest()[:_DIGEST_LENGTH]}{SUFFIX}"


def store_reference(reference: Reference, *, name: str) -> Reference:
    """Keep a reference that was built here under ``name``, with factors, and return it as it will be read.

    Raises:
        UsageError: it has no extractor, or the name is no plain file name.
        TemporaryError: the file could not be written.
    """
    if reference.extractor is None or Path(name).name != name or name.startswith("."):
        raise UsageError(f"a reference cannot be kept under the name {name!r}")
    path = cached_path(name, extractor=reference.extractor)
    named = replace(reference, about=replace(reference.about, name=name), path=path).with_factors()
    write_reference(named, path)
    return named


def _row(facts: ReferenceFacts, state: str) -> dict[str, Any]:
    about = facts.about
    return {
        "name": about.name,
        "state": state,
        "extractor": about.extractor.name if about.extractor else None,
        "heads": {name: head.dimension for name, head in facts.heads.items()},
        "features_kept": max((head.bank for head in facts.heads.values()), default=0),
        "images": about.count,
        "dataset": about.dataset,
        "split": about.split,
        "bytes": facts.size,
        "title": about.title,
    }


def _recipe_row(recipe: ReferenceRecipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "state": "not built",
        "extractor": None,
        "heads": {},
        "features_kept": None,
        "images": None,
        "dataset": recipe.dataset,
        "split": recipe.split,
        "bytes": None,
        "title": recipe.title,
    }


def cached_folder() -> Path:
    """Return the folder of the references that were built on this machine."""
    return cache_folder() / "references"


def _load_known(name: str, extractor: Spec | None) -> Reference | None:
    bundled = bundled_references().get(name)
    known = [*([bundled] if bundled else []), *(f for f in cached_references() if f.about.name == name)]
    fitting = [facts for facts in known if extractor is None or facts.about.extractor == extractor]
    if fitting:
        return read_reference(fitting[0].path)
    if name in REGISTERED:
        made_with = f" with {extractor.name}" if extractor else ""
        raise NothingMeasuredError(
            f"reference {name!r} has not been built on this machine{made_with}",
            hint=f"evalkit reference build {name}",
        )
    return read_reference(known[0].path) if known else None  # the caller explains how the extractor differs


def _load_path(path: Path) -> Reference:
    if not path.exists():
        raise UsageError(
            f"no reference or file called {str(path)!r}", hint=did_you_mean(str(path), reference_names())
        )
    if is_reference_file(path):
        return read_reference(path)
    if path.is_file() and is_foreign_statistics(path):
        return read_foreign(path)
    raise UsageError(
        f"{str(path)!r} holds no statistics that evalkit knows",
        hint="images become a reference by `evalkit reference build PATH --name NAME`",
    )
