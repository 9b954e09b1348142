"""What kind of file a checkpoint is, told by its first bytes, and the parts that it holds.

A zip is a torch file or an npz, ``80 02 8a 0a 6c fc …`` an old torch file, any other ``80 02`` to ``80 05`` a
plain pickle, eight bytes and ``{`` a safetensors file, a folder one of diffusers. Nothing is ever executed.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.diffusers_folder import DiffusersFolder, open_folder
from evalkit.generators.parts import Part, find_parts, held
from evalkit.generators.persistent_pickle import read_persistent_pickle
from evalkit.generators.torch_files import code_archive, load_torch
from evalkit.pickle_bounds import LEGACY_MAGIC

_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OTHERS = (
    (b"\x89PNG", "it is an image: `evalkit score --images` takes those"),
    (b"\xff\xd8\xff", "it is an image: `evalkit score --images` takes those"),
    (b"version https://", "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"<", "it is a web page: was the download refused?"),
    (b"\x1f\x8b", "it is packed with gzip: unpack it first"),
    (b"\x89HDF", "HDF5 files of Keras are not read"),
)
_UNKNOWN = "its first bytes fit no known format; `evalkit list models` names what is read"
_EMPTY = "it is empty: was the download cut short?"
_CUT = "was it cut short, or its download refused?"
_BOMB_FLOOR, _BOMB_RATIO = 2**26, 100
_MAX_HEADER = 100 * 2**20
_ENDS = 56 + 20 + 22
"""Bytes of the three records that may end a zip."""


@dataclass(frozen=True, eq=False, slots=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
        container: kind of file in words, for ``evalkit inspect``.
        format: as in :class:`evalkit.generators.checkpoint.Checkpoint`.
        parts: state dicts by name; the whole file is called ``""``.
        held: everything in the file by name and kind.
        header: texts in a safetensors header.
        sha256: digest of the file, or of the files of a folder.
        size: bytes of the weights.
    """

    container: str
    format: str
    parts: Mapping[str, Part]
    sha256: str
    size: int
    held: Mapping[str, str] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)


def read_contents(path: Path) -> Contents:
    """Read a checkpoint file or folder.

    Raises:
        UsageError: there is no such file, or it may not be read.
        CheckpointError: it is truncated, of an unknown kind, or not what its first bytes promise.
        UnsafeCheckpointError: its pickle asks for more than tensors and plain containers.
    """
    try:
        return _read(path)
    except OSError as error:
        raise UsageError(f"{str(path)[:200]} cannot be read: {error.strerror}") from error


def _read(path: Path) -> Contents:
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        hub = str(path).startswith("hub:")
        hint = (
            "only --model diffusers takes hub:…"
            if hub
            else "it is a .safetensors, .pt or .pkl file, or a folder"
        )
        raise UsageError(f"no checkpoint at {path}", hint=hint)
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return _safetensors(path)
    if head.startswith(b"PK"):
        return _zip(path)
    if head.startswith(LEGACY_MAGIC):
        return _from_content(path, "torch file of the old kind", "torch", load_torch(path, path.name))
    if head.startswith(_PICKLES):
        return _from_content(path, "pickle", "pickle", read_persistent_pickle(path))
    raise CheckpointError(
        f"{path} is neither a safetensors file nor a torch file nor a pickle that evalkit reads",
        hint=next((hint for start, hint in _OTHERS if head.startswith(start)), _UNKNOWN) if head else _EMPTY,
    )


def checkpoint_digest(path: Path) -> str:
    """Return the digest of a checkpoint: the file's own, or one of the names and bytes of all in a folder."""
    if not path.is_dir():
        return file_sha256(path)
    return _digest(sorted(file for file in path.rglob("*") if file.is_file()), path)


def _digest(files: list[Path], folder: Path) -> str:
    lines = (f"{file.relative_to(folder).as_posix()} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def _from_content(path: Path, container: str, form: str, content: object) -> Contents:
    return Contents(
        container=container,
        format=form,
        parts=find_parts(content),
        sha256=file_sha256(path),
        size=path.stat().st_size,
        held=held(content),
    )


def _zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        _check_directory(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is not a whole zip archive: {error}", hint="was it cut short, or packed again?"
        ) from error
    names = [entry.filename for entry in entries]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(_BOMB_FLOOR, _BOMB_RATIO * path.stat().st_size):
        raise CheckpointError(
            f"{path} would unpack to {unpacked} bytes, far more than it has", hint="do not trust it"
        )
    if names and all(name.endswith(".npy") for name in names):
        return _npz(path)
    inner = {name.partition("/")[2] for name in names}
    if inner & {"constants.pkl", "archive_format", "models/model.json", "serialized_exported_program.json"}:
        raise code_archive(path.name)
    if any(name.startswith("code/") for name in inner):
        raise code_archive(path.name)
    return _from_content(path, "torch file", "torch", load_torch(path, path.name))


def _check_directory(path: Path) -> None:
    """Refuse archives whose list of members is not the one right before their end.

    Python's reader and torch's look for it at different places; a crafted file would show each another one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _ENDS, 0))
        tail = file.read().rjust(_ENDS, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    if locator.startswith(b"PK\x06\x07"):  # sizes of 64 bits
        length, offset = struct.unpack_from("<QQ", record, 40)
        fits = struct.unpack_from("<Q", locator, 8)[0] == size - _ENDS == offset + length
    else:
        length, offset = struct.unpack_from("<II", end, 12)
        fits = offset + length == size - len(end)
    if not (fits and end.startswith(b"PK\x05\x06")):
        raise zipfile.BadZipFile("its list of members is not at its end")


def _npz(path: Path) -> Contents:
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                tensors[name] = torch.from_numpy(np.array(stored[name]))
    except Exception as error:  # object arrays, broken members, types that torch does not have
        raise CheckpointError(
            f"{path} holds more than plain arrays, or is damaged: {_brief(error)}"
        ) from error
    part = {"": Part(tensors)} if tensors else {}
    return Contents("npz", "npz", part, file_sha256(path), path.stat().st_size, held(tensors))


def _safetensors(path: Path) -> Contents:
    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > min(_MAX_HEADER, path.stat().st_size - 8):
        raise CheckpointError(
            f"{path} is not a whole safetensors file: its header claims {length} bytes", hint=_CUT
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # the library raises several kinds for a crafted header
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {_brief(error)}", hint=_CUT
        ) from error
    parts = find_parts(tensors)
    return Contents(
        "safetensors", "safetensors", parts, file_sha256(path), path.stat().st_size, held(tensors), header
    )


def _brief(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _folder(path: Path) -> Contents:
    folder = open_folder(path)
    weights = read_contents(folder.weights)
    whole = weights.parts.get("")
    if whole is None:
        raise CheckpointError(f"{folder.weights} does not hold the tensors of one network")
    part = Part(whole.tensors, class_name=folder.class_name, described=folder.config)
    return Contents(
        container=f"folder of diffusers ({weights.container})",
        format="folder",
        parts={"": part},
        sha256=_folder_digest(folder, path),
        size=weights.size,
        held=weights.held,
    )


def _folder_digest(folder: DiffusersFolder, path: Path) -> str:
    return _digest(sorted(folder.files), path)
