"""Statistics files of other tools, read strictly, and the two formats that others can read, written.

    reference = read_foreign(Path("VIRTUAL_imagenet256_labeled.npz"))
    write_pytorch_fid_npz(reference, head="2048", path=Path("mine.npz"))

* pytorch-fid, EDM, clean-fid: ``mu``, ``sigma``
* clean-fid ``*_kid.npz``: ``feats``; moments are computed from them
* ADM: ``mu``, ``sigma``; ``mu_s``, ``sigma_s`` for sFID; ``arr_0`` images, whose features can be its bank
* StudioGAN: ``mu``, ``sigma``; ``real_feats`` in a file of their own
* torch-fidelity ``.pt``: ``mu``, ``sigma``

Heads are named after InceptionV3 (64, 192, 768, 2048; 2023 is ``spatial``), any other by its dimension.

Accepted trade-offs: these files say neither how many images they were made from (``count`` is 0: unknown)
nor by which network and resizer; only their dimension can be checked. Nothing of a pickle is executed:
numpy arrays in a ``.pt`` are rebuilt here from their bytes.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evalkit.atomic import write_atomically
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, UsageError
from evalkit.references.heads import Bank, HeadStatistics
from evalkit.references.statistics import Description, Reference, checked_moments

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_FEATURE_KEYS = ("feats", "real_feats")
_MOMENT_KEYS = (("mu", "sigma"), ("mu_s", "sigma_s"))
_KEYS = frozenset({*_FEATURE_KEYS, *(key for pair in _MOMENT_KEYS for key in pair)})
_INCEPTION_HEADS = {64: "64", 192: "192", 768: "768", 2048: "2048", 2023: "spatial"}
_SPATIAL = "spatial"
_LARGEST_ARRAY = 4 << 30  # float64 features of 50 000 images in 10 000 dimensions; more is a bomb
_LISTING_ERRORS = (OSError, ValueError, zipfile.BadZipFile, struct.error, RuntimeError)
_READING_ERRORS = (*_LISTING_ERRORS, EOFError, KeyError, MemoryError, zlib.error, lzma.LZMAError)
Arrays = dict[str, NDArray[Any]]


def is_foreign_statistics(path: Path) -> bool:
    """Whether a file is statistics of another tool (``.npz`` with moments or features, ``.pt``, ``.pkl``)."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head != _ZIP_MAGIC:
            return head.startswith(_PICKLE_MAGIC)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _LISTING_ERRORS:
        return False
    return _is_torch_archive(names) or bool({name.removesuffix(".npy") for name in names} & _KEYS)


def holds_sample_images(path: Path) -> bool:
    """Whether a statistics file also holds sample images, as those of the ADM evaluator do (``arr_0``)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "arr_0.npy" in archive.namelist()
    except _LISTING_ERRORS:
        return False


def read_foreign(path: Path) -> Reference:
    """Read a statistics file of another tool and check all of it.

    Raises:
        UsageError: there is no such file.
        InvalidInputError: a key is missing, or an array is an object, non-finite, not symmetric, not positive
            semidefinite or of the wrong dimension; says which.
        UnsafeCheckpointError: a pickle asks for more than arrays and plain containers.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    arrays, format_name = _read_arrays(path)
    heads = {**_from_moments(arrays, path.name), **_from_features(arrays, path.name)}
    if not heads:
        raise InvalidInputError(
            f"{path.name} holds neither 'mu' and 'sigma' nor 'feats', but: {', '.join(arrays) or 'nothing'}"
        )
    count = max(head.count for head in heads.values())
    about = Description(
        name=path.stem,
        title=f"{path.name} ({format_name})",
        dataset=path.stem,
        count=count,
        created_by=format_name,
    )
    return Reference(about, heads, file_sha256(path), path)


def write_pytorch_fid_npz(reference: Reference, *, head: str, path: Path) -> None:
    """Write ``mu`` float64 ``[d]`` and ``sigma`` float64 ``[d, d]``, as pytorch-fid, EDM and clean-fid read.

    Raises:
        NothingMeasuredError: there is no such head.
        TemporaryError: the file could not be written.
    """
    statistics = reference.head(head)
    _write_npz(path, {"mu": statistics.mean, "sigma": statistics.covariance})


def write_adm_npz(
    reference: Reference, *, path: Path, head: str = "2048", images: NDArray[np.uint8] | None = None
) -> None:
    """Write the file of the ADM evaluator: ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` and, if given, ``arr_0``.

    Args:
        reference: has ``head`` and ``spatial``.
        path: where to write.
        head: head behind ``mu`` and ``sigma``.
        images: uint8 ``[n, h, w, 3]`` sample images, from which ADM computes precision and recall.

    Raises:
        NothingMeasuredError: a head is missing.
        InvalidInputError: ``images`` is not uint8 ``[n, h, w, 3]``.
        TemporaryError: the file could not be written.
    """
    pooled, spatial = reference.head(head), reference.head(_SPATIAL)
    arrays: Arrays = {
        "mu": pooled.mean,
        "sigma": pooled.covariance,
        "mu_s": spatial.mean,
        "sigma_s": spatial.covariance,
    }
    if images is not None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InvalidInputError(
                f"arr_0 must be uint8 [n, h, w, 3], not {images.dtype} {list(images.shape)}"
            )
        arrays["arr_0"] = images
    _write_npz(path, arrays)


def _write_npz(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def _read_arrays(path: Path) -> tuple[Arrays, str]:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_PICKLE_MAGIC) and path.suffix.lower() == ".pkl":
        raise InvalidInputError(
            f"{path.name} is a pickle, which could run code, and was not read",
            hint="convert it to an .npz with mu and sigma where you trust it: np.savez(out, **stats['fid'])",
        )
    if head.startswith(_PICKLE_MAGIC):
        return _read_torch(path), "torch-fidelity"
    try:
        with zipfile.ZipFile(path) as archive:
            if _is_torch_archive(archive.namelist()):
                return _read_torch(path), "torch-fidelity"
            _check_sizes(archive, path)
        with np.load(path, allow_pickle=False) as stored:
            arrays: Arrays = {key: stored[key] for key in stored.files if key in _KEYS}
            has_images = "arr_0" in stored.files
    except _READING_ERRORS as error:
        raise InvalidInputError(f"{path.name} is no readable statistics file: {error}") from error
    if "mu_s" in arrays:
        return arrays, "ADM, with sample images" if has_images else "ADM"
    if "feats" in arrays:
        return arrays, "clean-fid"
    return arrays, "StudioGAN" if "real_feats" in arrays else "mu and sigma"


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse arrays of objects, and arrays whose header asks for more memory than the file has data for."""
    for info in archive.infolist():
        if info.filename.removesuffix(".npy") not in _KEYS:
            continue
        with archive.open(info) as member:
            shape, dtype = _read_header(member)
        if dtype.hasobject:
            raise InvalidInputError(
                f"{path.name}: {info.filename!r} holds pickled objects, which could run code"
            )
        size = math.prod(shape) * dtype.itemsize
        if size > min(info.file_size, _LARGEST_ARRAY):
            raise InvalidInputError(f"{path.name}: {info.filename!r} asks for {size} bytes of memory")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(member)
    try:
        if version == (1, 0):
            shape, _, dtype = npy_format.read_array_header_1_0(member)
        else:
            shape, _, dtype = npy_format.read_array_header_2_0(member)
    except Exception as error:  # numpy reads it as Python text, and lets the tokenizer's own errors out
        raise ValueError(f"a header cannot be read: {error}") from error
    return shape, dtype


def _from_moments(arrays: Arrays, label: str) -> dict[str, HeadStatistics]:
    heads: dict[str, HeadStatistics] = {}
    for mean_key, covariance_key in _MOMENT_KEYS:
        present = [key for key in (mean_key, covariance_key) if key in arrays]
        if len(present) == 1:
            missing = covariance_key if present[0] == mean_key else mean_key
            raise InvalidInputError(f"{label} holds {present[0]!r} but not {missing!r}")
        if not present:
            continue
        mean, covariance = checked_moments(
            arrays[mean_key], arrays[covariance_key], label=f"{label} ({mean_key}, {covariance_key})"
        )
        name = _SPATIAL if mean_key == "mu_s" else _head_name(len(mean))
        if name in heads:
            raise InvalidInputError(f"{label}: 'mu' and 'mu_s' both have {len(mean)} dimensions")
        heads[name] = HeadStatistics(0, mean, covariance)
    return heads


def _from_features(arrays: Arrays, label: str) -> dict[str, HeadStatistics]:
    heads: dict[str, HeadStatistics] = {}
    for key in _FEATURE_KEYS:
        if key not in arrays:
            continue
        features = arrays[key]
        if features.dtype.kind != "f" or features.ndim != 2 or len(features) < 2:
            raise InvalidInputError(
                f"{label}: {key!r} is {features.dtype} {list(features.shape)}, not float [n, d] with n >= 2"
            )
        if not np.isfinite(features).all():
            raise InvalidInputError(f"{label}: {key!r} holds NaN or infinity")
        wide = features.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        bank = Bank.of(features, np.arange(len(features), dtype=np.int64))
        covariance = wide.T @ wide / (len(wide) - 1)
        name = _head_name(features.shape[1])
        heads[name] = HeadStatistics(len(features), mean, (covariance + covariance.T) / 2, bank)
    return heads


def _head_name(dimension: int) -> str:
    return _INCEPTION_HEADS.get(dimension, str(dimension))


def _is_torch_archive(names: list[str]) -> bool:
    return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names)


def _read_torch(path: Path) -> Arrays:
    from evalkit.references.torch_files import read_torch_arrays  # noqa: PLC0415 - loads torch

    return read_torch_arrays(path)
