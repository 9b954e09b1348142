"""Valid files of every kind that evalkit reads from others: the seeds of the fuzzing, small and seeded."""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save as save_tensors

from tests.fuzz.mutations import PICKLE, Seed
from tests.generators.persistent_files import Network, dumps
from tests.sources.conftest import encode, write_tar, write_zip

_RNG = np.random.default_rng(11)
PIXELS = [_RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8) for _ in range(4)]


def rezip(files: Mapping[str, bytes], name: str, packing: int, core: bytes) -> bytes:
    """Return a zip of ``files`` with ``core`` in place of ``name``: every checksum is right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for member, data in files.items():
            archive.writestr(member, core if member == name else data)
    return stream.getvalue()


def inside(
    content: bytes, name: str, *, packing: int = zipfile.ZIP_STORED
) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the bytes of member ``name`` of a zip, and what wraps them again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    return files[name], partial(rezip, files, name, packing)


def _headed(rest: bytes, core: bytes) -> bytes:
    return struct.pack("<Q", len(core)) + core + rest


def headed(name: str, content: bytes) -> Seed:
    """The header of a safetensors file, whose length is always right."""
    end = 8 + int.from_bytes(content[:8], "little")
    return Seed(name, content[8:end], partial(_headed, content[end:]))


def png_with_checksums(core: bytes) -> bytes:
    """Return a PNG whose chunks are as long as they say and have the right checksums."""
    out, at = core[:8], 8
    while at + 8 <= len(core):
        length = min(int.from_bytes(core[at : at + 4], "big"), max(len(core) - at - 12, 0))
        kind, data = core[at + 4 : at + 8], core[at + 8 : at + 8 + length]
        out += core[at : at + 4] + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        at += 12 + length
    return out


def saved(content: object, **options: object) -> bytes:
    """Return the bytes of a torch file."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """Return the bytes of an npz."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def state() -> dict[str, torch.Tensor]:
    """Tensors of several kinds and shapes, one a view."""
    rng = torch.Generator().manual_seed(3)
    wide = torch.randn(4, 6, generator=rng)
    return {
        "conv.weight": torch.randn(2, 3, 3, 3, generator=rng),
        "conv.bias": torch.zeros(2),
        "norm.running_mean": wide[:, 2],
        "norm.num_batches_tracked": torch.tensor(5),
        "half": torch.ones(3, dtype=torch.float16),
        "turned": wide.t(),
    }


def torch_seeds() -> list[Seed]:
    """State dicts and training files in zips: the whole file, its pickle, and a storage."""
    plain = saved({"state_dict": state(), "epoch": 3})
    nested = saved(
        {"model": state(), "ema": {"shadow": state(), "decay": 0.999}, "args": {"lr": 1e-4, "size": [32, 32]}}
    )
    name = next(n for n in zipfile.ZipFile(io.BytesIO(nested)).namelist() if n.endswith("data.pkl"))
    return [Seed("a.pt", plain), *(Seed("a.pt", *inside(nested, name), snippets=PICKLE) for _ in range(2))]


def script_seeds() -> list[Seed]:
    """TorchScript archives: whole, and their pickle."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.manual_seed(0)
        stream = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), stream)
    whole = stream.getvalue()
    name = next(n for n in zipfile.ZipFile(io.BytesIO(whole)).namelist() if n.endswith("data.pkl"))
    return [Seed("a.pt", whole), Seed("a.pt", *inside(whole, name), snippets=PICKLE)]


def weight_seeds() -> list[Seed]:
    """Weights of networks: torch files new and old, and safetensors."""
    flat = {key: value.contiguous() for key, value in state().items()}
    new = saved(flat)
    name = next(n for n in zipfile.ZipFile(io.BytesIO(new)).namelist() if n.endswith("data.pkl"))
    old = saved(flat, _use_new_zipfile_serialization=False)
    return [
        Seed("w.pth", new),
        Seed("w.pth", *inside(new, name), snippets=PICKLE),
        Seed("w.pth", old, snippets=PICKLE),
        headed("w.safetensors", save_tensors(flat)),
    ]


def legacy_seeds() -> list[Seed]:
    """Torch files of the old kind."""
    old = saved({"state_dict": state(), "epoch": 3}, _use_new_zipfile_serialization=False)
    return [Seed("a.pt", old, snippets=PICKLE)]


def pickle_seeds() -> list[Seed]:
    """Pickles of NVIDIA's persistent classes, and one of a plain state dict."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(3, z_dim=4, img_resolution=8)
    seeds = [
        dumps({"G": None, "D": None, "G_ema": network, "x": [1.5, (2, "a")]}, protocol) for protocol in (2, 4)
    ]
    return [Seed("a.pkl", data, snippets=PICKLE) for data in (*seeds, dumps(state(), 4))]


def array_seeds() -> list[Seed]:
    """Image arrays: npz whole, its array alone with right checksums, packed, and npy."""
    images = np.stack(PIXELS)
    whole = npz(arr_0=images, arr_1=np.arange(4))
    stream = io.BytesIO()
    np.save(stream, images)
    packed = io.BytesIO()
    np.savez_compressed(packed, images=images)
    return [
        Seed("a.npz", whole),
        Seed("a.npz", *inside(whole, "arr_0.npy")),
        Seed("a.npz", *inside(whole, "arr_1.npy", packing=zipfile.ZIP_DEFLATED)),
        Seed("a.npz", packed.getvalue()),
        Seed("a.npy", stream.getvalue()),
    ]


def statistics_seeds() -> list[Seed]:
    """Files of means and covariances of other tools."""
    x = _RNG.normal(size=(12, 5))
    moments = npz(mu=x.mean(0), sigma=np.cov(x.T))
    spatial = npz(mu=x.mean(0), sigma=np.cov(x.T), mu_s=x.mean(0)[:4], sigma_s=np.cov(x.T[:4]))
    features = npz(feats=x.astype(np.float32))
    return [
        Seed("s.npz", moments),
        Seed("s.npz", *inside(moments, "sigma.npy")),
        Seed("s.npz", *inside(moments, "mu.npy", packing=zipfile.ZIP_DEFLATED)),
        Seed("s.npz", spatial),
        Seed("s.npz", *inside(features, "feats.npy")),
    ]


def torch_statistics_seeds() -> list[Seed]:
    """Statistics of torch-fidelity: arrays and tensors, new and old files."""
    x = _RNG.normal(size=(12, 5))
    arrays = {"mu": x.mean(0), "sigma": np.cov(x.T)}
    new = saved(arrays)
    name = next(n for n in zipfile.ZipFile(io.BytesIO(new)).namelist() if n.endswith("data.pkl"))
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    return [
        Seed("s.pt", new),
        Seed("s.pt", *inside(new, name), snippets=PICKLE),
        Seed("s.pt", saved(tensors, _use_new_zipfile_serialization=False), snippets=PICKLE),
    ]


def image_files() -> dict[str, bytes]:
    """A few PNG and one JPEG in two folders, with labels."""
    files = {
        f"{kind}/{number}.png": encode(pixels) for number, pixels in enumerate(PIXELS) for kind in ("cat",)
    }
    files["dog/x.jpg"] = encode(PIXELS[0], "JPEG")
    return files


def zip_seeds() -> list[Seed]:
    """Zips of images: one image inside, the whole archive, and the list of labels inside."""
    files = image_files()
    files["dataset.json"] = json.dumps({"labels": [[name, 3] for name in files]}).encode()
    with TemporaryDirectory() as folder:
        whole = write_zip(Path(folder) / "a.zip", files).read_bytes()
    return [
        Seed("a.zip", whole),
        Seed("a.zip", *inside(whole, "dog/x.jpg")),
        Seed("a.zip", *inside(whole, "dataset.json", packing=zipfile.ZIP_DEFLATED)),
    ]


def tar_seeds() -> list[Seed]:
    """Tars of images, plain and packed; the headers inside the packing are changed too."""
    with TemporaryDirectory() as folder:
        plain = write_tar(Path(folder) / "a.tar", image_files()).read_bytes()
        long = write_tar(Path(folder) / "b.tar", {"d" * 120 + "/é.png": encode(PIXELS[1])}).read_bytes()
    return [
        Seed("a.tar", plain),
        Seed("a.tar", long),
        Seed("a.tar.gz", plain[:4096] + bytes(1024), partial(gzip.compress, compresslevel=1, mtime=0)),
        Seed("a.tar.gz", gzip.compress(plain, mtime=0)),
    ]


def parquet_seeds() -> list[Seed]:
    """Tables of images: structs and plain bytes, packed and not, with checksums and without."""
    data = [encode(pixels) for pixels in PIXELS]
    rows = pa.table(
        {"image": [{"bytes": item, "path": f"{i}.png"} for i, item in enumerate(data)], "label": [0, 1, 0, 1]}
    )
    made = []
    for table, packing in ((rows, "none"), (rows, "snappy"), (pa.table({"image": data}), "gzip")):
        stream = io.BytesIO()
        pq.write_table(table, stream, compression=packing, row_group_size=2)
        made.append(Seed("a.parquet", stream.getvalue()))
    return made


def picture_seeds() -> list[Seed]:
    """One image of every kind that is read; PNG also with right checksums."""
    image = Image.fromarray(PIXELS[0])
    kinds: dict[str, dict[str, object]] = {
        "PNG": {},
        "JPEG": {"quality": 90},
        "GIF": {},
        "WEBP": {"quality": 80},
        "TIFF": {"compression": "tiff_lzw"},
        "BMP": {},
        "PPM": {},
    }
    seeds = []
    for kind, options in kinds.items():
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        seeds.append(Seed(f"a.{kind.lower()}", stream.getvalue()))
    progressive = io.BytesIO()
    Image.fromarray(np.kron(PIXELS[0], np.ones((4, 4, 1), np.uint8))).save(
        progressive, "JPEG", progressive=True
    )
    deep = io.BytesIO()
    Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000).save(deep, "PNG")
    palette = io.BytesIO()
    image.quantize(16).save(palette, "PNG")
    checked = [
        Seed("a.png", data, png_with_checksums)
        for data in (seeds[0].core, deep.getvalue(), palette.getvalue())
    ]
    return [*seeds, Seed("a.jpeg", progressive.getvalue()), *checked]


def tensor_seeds() -> list[Seed]:
    """Safetensors of somebody else: the whole file, and its header under the right length."""
    plain = save_tensors({key: value.contiguous() for key, value in state().items()}, metadata={"epoch": "3"})
    return [Seed("a.safetensors", plain), headed("a.safetensors", plain)]
