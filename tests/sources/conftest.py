"""Small synthetic images and the writers that put the same files into every kind of container."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Files = Mapping[str, bytes]


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def write_folder(path: Path, files: Files) -> Path:
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Files) -> Path:
    packing = {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")
    with tarfile.open(path, f"w:{packing}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_parquet(path: Path, files: Files, *, group: int = 2, **metadata: str) -> Path:
    """One row a file, in name order; a label for each first-level folder."""
    names = sorted(files)
    classes = sorted({name.split("/")[0] for name in names})
    table = pa.table(
        {
            "image": [{"bytes": files[name], "path": name} for name in names],
            "label": [classes.index(name.split("/")[0]) for name in names],
        }
    )
    pq.write_table(table.replace_schema_metadata(metadata or None), path, row_group_size=group)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def pixels(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Nine 6 x 5 RGB images in three classes, named so that archive order and byte order differ."""
    names = [f"{kind}/{number}.png" for kind in ("dog", "Zebra", "cat") for number in (10, 9, 1)]
    return {name: rng.integers(0, 256, (6, 5, 3), dtype=np.uint8) for name in names}


@pytest.fixture
def files(pixels: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: encode(image) for name, image in pixels.items()}


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write("set.zip", files)`` -> path; the suffix chooses the container, none means a folder."""
    writers = {".zip": write_zip, ".parquet": write_parquet, "": write_folder}

    def choose(name: str, files: Files, **options: object) -> Path:
        path = tmp_path / name
        return writers.get(path.suffix, write_tar)(path, files, **options)

    return choose
