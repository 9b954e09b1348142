"""The file of a reference, ``evalkit.reference/1``: one self-describing safetensors file. No torch.

    write_reference(reference, Path("cifar10.safetensors"))
    reference = read_reference(Path("cifar10.safetensors"))

Arrays of each head: ``<head>/mean`` float64 ``[d]``; ``<head>/covariance`` float64, the lower triangle row
by row, ``[d (d + 1) / 2]``; where features are kept, ``<head>/bank`` float16 or float32 ``[m, d]`` and
``<head>/bank_index`` int64 ``[m]``; moments by class are described in :mod:`evalkit.references.class_arrays`,
factors of covariances in :mod:`evalkit.references.factor_arrays`.
The header says what the statistics were made from, and holds the digest of the arrays. Equal references give
equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import InvalidInputError, UsageError
from evalkit.references.class_arrays import (
    LABELS,
    array_of,
    decode_classes,
    encode_classes,
    pack_symmetric,
    unpack_symmetric,
)
from evalkit.references.factor_arrays import decode_factor, encode_factor
from evalkit.references.heads import Bank, HeadStatistics
from evalkit.references.statistics import Description, Reference, checked_moments
from evalkit.spec import Spec, canonical_json

FORMAT = "evalkit.reference/1"
SUFFIX = ".safetensors"
_FAMILY = "evalkit.reference/"
_LARGEST_HEADER = 16 << 20
_TEXT = frozenset({"name", "title", "dataset", "created_by", "command"})
_TYPES: Mapping[str, tuple[type, ...]] = {
    "split": (str, type(None)),
    "resolution": (int, type(None)),
    "count": (int,),
    "images_sha256": (str, type(None)),
    "extractor": (dict, type(None)),
    "class_names": (list,),
}
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """Shape of one head: feature dimensions, features kept and classes with moments (0: none)."""

    dimension: int
    bank: int
    classes: int = 0


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What the header of a reference file tells; its arrays were not read."""

    about: Description
    heads: Mapping[str, HeadFacts]
    path: Path
    size: int


def write_reference(reference: Reference, path: Path) -> None:
    """Write ``reference`` to ``path`` atomically.

    Raises:
        TemporaryError: the file could not be written; what was there is untouched.
    """
    write_atomically(path, encode_reference(reference))


def encode_reference(reference: Reference) -> bytes:
    """Return the bytes of a reference's file; equal references give equal bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, head in reference.heads.items():
        arrays[f"{name}/mean"] = np.ascontiguousarray(head.mean, dtype=np.float64)
        arrays[f"{name}/covariance"] = pack_symmetric(head.covariance)
        if head.kept is not None:
            arrays[f"{name}/bank"] = np.ascontiguousarray(head.kept.features, dtype=head.kept.dtype)
            arrays[f"{name}/bank_index"] = np.ascontiguousarray(head.kept.index, dtype=np.int64)
        arrays |= encode_classes(name, head) | encode_factor(name, head)
    metadata = {"format": FORMAT, "arrays_sha256": _arrays_sha256(arrays)}
    for field in fields(Description):
        value = getattr(reference.about, field.name)
        if isinstance(value, Spec):
            value = value.to_json()
        metadata[field.name] = value if field.name in _TEXT else canonical_json(value)
    return _with_sorted_header(save(arrays, metadata=metadata))


def read_reference(path: Path) -> Reference:
    """Read a reference file and check all of it.

    Raises:
        UsageError: there is no such file.
        InvalidInputError: it is damaged, of another format, or holds impossible statistics; says which.
    """
    header = _read_header(path)
    about = _description(header, path)
    try:
        arrays: dict[str, NDArray[Any]] = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise InvalidInputError(f"{path.name} is not a whole safetensors file: {error}") from error
    if _arrays_sha256(arrays) != header["__metadata__"].get("arrays_sha256"):
        raise InvalidInputError(f"{path.name} is damaged: its arrays do not have the digest in its header")
    names = sorted(
        {key.rpartition("/")[0] for key in arrays}
    )  # safetensors gives its keys in no stable order
    heads = {name: _head(name, arrays, count=about.count, label=path.name) for name in names}
    if not heads:
        raise InvalidInputError(f"{path.name} holds no head")
    return Reference.of(about, heads, path=path)


def read_facts(path: Path) -> ReferenceFacts:
    """Read the header of a reference file, not its arrays.

    Raises:
        UsageError: there is no such file.
        InvalidInputError: the header is damaged, or of another format.
    """
    header = _read_header(path)
    about = _description(header, path)
    shapes = {key: entry.get("shape") for key, entry in header.items() if key != "__metadata__"}
    heads: dict[str, HeadFacts] = {}
    for key in sorted(shapes):
        name, _, part = key.rpartition("/")
        if part == "mean":
            kept = shapes.get(f"{name}/bank")
            classes = shapes.get(f"{name}/{LABELS}")
            heads[name] = HeadFacts(
                dimension=shapes[key][0], bank=kept[0] if kept else 0, classes=classes[0] if classes else 0
            )
    return ReferenceFacts(about, heads, path, path.stat().st_size)


def facts_by_name(folder: Path) -> dict[str, ReferenceFacts]:
    """Read the headers of all references in ``folder``, sorted by file name.

    Raises:
        InvalidInputError: a header is damaged, or two references have one name.
    """
    found: dict[str, ReferenceFacts] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        facts = read_facts(path)
        name = facts.about.name
        if name in found:
            raise InvalidInputError(f"{path.name} and {found[name].path.name} are both named {name!r}")
        found[name] = facts
    return found


def is_reference_file(path: Path) -> bool:
    """Whether ``path`` says that it is a reference file of evalkit, of any version."""
    try:
        header = _read_header(path)
    except (InvalidInputError, UsageError):
        return False
    return str(header["__metadata__"].get("format", "")).startswith(_FAMILY)


def _head(name: str, arrays: Arrays, *, count: int, label: str) -> HeadStatistics:
    label = f"{label}, head {name!r}"
    mean = array_of(arrays, f"{name}/mean", dtypes=("float64",), label=label)
    if mean.ndim != 1:
        raise InvalidInputError(f"{label}: the mean has shape {list(mean.shape)}, not [d]")
    packed = array_of(arrays, f"{name}/covariance", dtypes=("float64",), label=label)
    expected = len(mean) * (len(mean) + 1) // 2
    if packed.shape != (expected,):
        raise InvalidInputError(f"{label}: the covariance has shape {list(packed.shape)}, not [{expected}]")
    mean, covariance = checked_moments(mean, unpack_symmetric(packed, len(mean)), label=label)
    kept = _bank(name, arrays, dimension=len(mean), label=label) if f"{name}/bank" in arrays else None
    factor = decode_factor(name, arrays, covariance=covariance, label=label)
    whole = HeadStatistics(count, mean, covariance, kept, factor=factor)
    return replace(whole, classes=decode_classes(name, arrays, whole=whole, label=label))


def _bank(name: str, arrays: Arrays, *, dimension: int, label: str) -> Bank:
    features = array_of(arrays, f"{name}/bank", dtypes=("float16", "float32"), label=label)
    index = array_of(arrays, f"{name}/bank_index", dtypes=("int64",), label=label)
    if features.ndim != 2 or features.shape[1] != dimension or index.shape != features.shape[:1]:
        raise InvalidInputError(
            f"{label}: the bank has shape {list(features.shape)} and its index {list(index.shape)}, "
            f"not [m, {dimension}] and [m]"
        )
    if not np.isfinite(features).all():
        raise InvalidInputError(f"{label}: the bank holds NaN or infinity")
    return Bank(features.astype(np.float32), index, "float16" if features.dtype == np.float16 else "float32")


def _arrays_sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(canonical_json([key, arrays[key].dtype.name, list(arrays[key].shape)]).encode())
        digest.update(arrays[key].tobytes())
    return digest.hexdigest()


def _with_sorted_header(content: bytes) -> bytes:
    # safetensors writes metadata in random order; a bundled file must have one digest.
    end = 8 + int.from_bytes(content[:8], "little")
    header = canonical_json(json.loads(content[8:end])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, path.stat().st_size - 8):
                raise InvalidInputError(f"{path.name} is no whole safetensors file: header of {length} bytes")
            header = strict_json.loads(file.read(length).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(header, dict) or not _is_text(header.setdefault("__metadata__", {})):
        raise InvalidInputError(f"{path.name} has a damaged header")
    for key, entry in header.items():
        if key != "__metadata__":
            _check_entry(entry, f"{path.name}: {key!r}")
    return header


def _is_text(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())


def _check_entry(entry: object, label: str) -> None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    sides = shape if isinstance(shape, list) else []
    if not sides or not all(isinstance(side, int) and side >= 0 for side in sides):
        raise InvalidInputError(f"{label} has a damaged header entry")
    if math.prod(sides) == 0:
        raise InvalidInputError(f"{label} is empty")


def _description(header: Mapping[str, Any], path: Path) -> Description:
    metadata: Mapping[str, str] = header["__metadata__"]
    if metadata.get("format") != FORMAT:
        raise InvalidInputError(
            f"{path.name} has the format {metadata.get('format')!r}, not {FORMAT!r}",
            hint="is it a reference, and of this version of evalkit?",
        )
    values: dict[str, Any] = {}
    for field in fields(Description):
        if field.name not in metadata:
            raise InvalidInputError(f"{path.name}: {field.name!r} is missing from the header")
        text = metadata[field.name]
        values[field.name] = text if field.name in _TEXT else strict_json.loads(text)
        if not isinstance(values[field.name], _TYPES.get(field.name, (str,))):
            raise InvalidInputError(f"{path.name}: {field.name!r} in the header is {text!r}")
    values["class_names"] = tuple(str(name) for name in values["class_names"])
    values["extractor"] = _spec(values["extractor"], path.name)
    return Description(**values)


def _spec(data: Mapping[str, Any] | None, label: str) -> Spec | None:
    if data is None:
        return None
    if data.keys() != {"kind", "name", "params", "sha256"} or not isinstance(data["params"], dict):
        raise InvalidInputError(f"{label}: the extractor in the header is {data!r}")
    return Spec(data["kind"], data["name"], tuple(sorted(data["params"].items())), data["sha256"])
