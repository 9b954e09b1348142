"""Reading images: each container against what Pillow alone does with the same files on the same cores.

    python benchmarks/reading.py                    # five minutes on two cores
    python benchmarks/reading.py --curve            # over the image size, into reading_curve.csv

Pillow decodes in a ``multiprocessing.pool.ThreadPool`` of as many threads, in chunks as large as it likes:
from the files of the folder, or, for the other containers, from bytes that are in memory already. "decode
only" ends when Pillow holds the image; "to arrays" is what one needs to go on, uint8 [h, w, 3]. evalkit reads
in batches of 64 from the container, checks each file for damage, refuses what would change pixels, and ends
with uint8 [64, 3, h, w]. The pixels of all three are compared first.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from curves import points, write_curve
from interleaved import OURS, Comparison, interleaved, save
from pictures import encoded, write_folder
from PIL import Image

from evalkit.core import ImageBatch, ImageSource, IndexArray
from evalkit.extraction import Job, extract
from evalkit.extractors import build_extractor
from evalkit.lanes import Lane
from evalkit.shards import ShardLayout, ShardStore
from evalkit.sources import OpenedSource, open_source
from evalkit.sources.encoded import default_workers
from evalkit.spec import Spec

BATCH = 64
ROW_GROUP = 256
PROMISED = 0.9
CONTAINERS = ("folder", "tar", "zip", "parquet")
PIXELS = 256 * 256 * 384  # of all images of a row together, within the bounds below
FEWEST, MOST = 128, 2048
AHEAD = 512  # images that go through the network


def stored(path: Path, files: Sequence[bytes], *, kind: str, container: str) -> Path:
    """Put the files into a container below ``path``."""
    names = [f"{number:06d}.{kind}" for number in range(len(files))]
    target = path / f"{kind}.{container}"
    if container == "folder":
        return write_folder(target, list(files), kind=kind)
    if container == "parquet":
        rows = [{"bytes": data, "path": name} for name, data in zip(names, files, strict=True)]
        table = pa.table({"image": rows})
        pq.write_table(table, target, row_group_size=ROW_GROUP)
    elif container == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, data in zip(names, files, strict=True):
                archive.writestr(name, data)
    else:
        with tarfile.open(target, "w") as tar:
            for name, data in zip(names, files, strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return target


def batches(source: OpenedSource) -> Iterator[np.ndarray]:
    """Yield the images in batches of 64, as the pipeline reads them."""
    for start in range(0, len(source), BATCH):
        images = source.read(np.arange(start, min(start + BATCH, len(source)))).images
        yield images.numpy()  # type: ignore[union-attr]


def decoded(where: str | io.BytesIO) -> Image.Image:
    """Decode with Pillow and stop there."""
    with Image.open(where) as image:
        image.load()
        return image


def as_array(where: str | io.BytesIO) -> np.ndarray:
    """Decode with Pillow to uint8 [h, w, 3]."""
    with Image.open(where) as image:
        return np.asarray(image)


def compare(size: int, kind: str, container: str, *, rounds: int, workers: int) -> Comparison:
    """Compare one container of images of one size."""
    count = min(max(PIXELS // size**2, FEWEST), MOST)
    files = encoded(count, size=size, kind=kind)
    with tempfile.TemporaryDirectory() as folder, ThreadPool(workers) as pool:
        path = stored(Path(folder), files, kind=kind, container=container)
        source = open_source(path, workers=workers)
        _ = source.spec  # the digest is measured apart
        on_disk = [str(file) for file in sorted(path.iterdir())] if container == "folder" else None

        def pillow(decode: Callable[[str | io.BytesIO], object]) -> list[object]:
            if on_disk:
                return pool.map(decode, on_disk)
            return pool.map(lambda data: decode(io.BytesIO(data)), files)

        ours = np.concatenate(list(batches(source)))
        theirs = np.stack([as_array(io.BytesIO(data)) for data in files]).transpose(0, 3, 1, 2)
        if not np.array_equal(ours, theirs):
            raise AssertionError(f"{container} of {kind}: pixels differ")
        return interleaved(
            f"reading {count} {kind} of {size} x {size} from a {container}, {workers} threads",
            {
                OURS: lambda: sum(len(batch) for batch in batches(source)),
                "Pillow, decode only": lambda: pillow(decoded),
                "Pillow, to arrays": lambda: pillow(as_array),
            },
            rounds=rounds,
            amount=count,
            unit="images",
            target={"Pillow, decode only": PROMISED},
            notes=("all pixels equal",),
        )


def digest(size: int, kind: str, *, rounds: int, workers: int) -> Comparison:
    """Compare the pass that identifies the images of a folder with the reading of them."""
    files = encoded(min(max(PIXELS // size**2, FEWEST), MOST), size=size, kind=kind)
    with tempfile.TemporaryDirectory() as folder:
        path = stored(Path(folder), files, kind=kind, container="folder")
        return interleaved(
            f"SHA-256 of a folder of {len(files)} {kind} of {size} x {size} beside reading it",
            {
                OURS: lambda: open_source(path).spec,
                "reading": lambda: sum(len(batch) for batch in batches(open_source(path, workers=workers))),
            },
            rounds=rounds,
            amount=len(files),
            unit="images",
        )


@dataclass(frozen=True, eq=False)
class InTurn:
    """The images of a source, which evalkit does not know to lie in files: nothing is read ahead."""

    source: OpenedSource

    @property
    def spec(self) -> Spec:
        """The source's own."""
        return self.source.spec

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: IndexArray) -> ImageBatch:
        """Read from the source."""
        return self.source.read(index)


def ahead(size: int, kind: str, *, count: int, rounds: int) -> Comparison:
    """Compare the pass that reads the next batch while the network works with one that does not."""
    network = build_extractor("efficientnet-lite0")
    features: dict[str, np.ndarray] = {}

    def run(name: str, source: ImageSource) -> None:
        with tempfile.TemporaryDirectory() as state:
            lane = Lane.of_extractor(network, ("pooled",), ShardStore(Path(state)))
            job = Job(
                lanes=(lane,), layout=ShardLayout(count), batch_size=BATCH, device=torch.device("cpu"),
                source=source,
            )  # fmt: skip
            (done,) = extract(job, progress=lambda _images: None, stop=lambda: 0)
            features[name] = done.features("pooled")

    with tempfile.TemporaryDirectory() as folder:
        files = encoded(count, size=size, kind=kind)
        source = open_source(stored(Path(folder), files, kind=kind, container="folder"))
        comparison = interleaved(
            f"{count} {kind} of {size} x {size} from a folder through EfficientNet-Lite0, reading ahead",
            {OURS: lambda: run(OURS, source), "in turn": lambda: run("in turn", InTurn(source))},
            rounds=rounds,
            amount=count,
            unit="images",
            notes=("features equal to the last bit",),
        )
    np.testing.assert_array_equal(features[OURS], features["in turn"])
    return comparison


def main() -> None:
    """Print and save the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--curve", action="store_true", help="JPEG and PNG folders over the image size")
    options = parser.parse_args()
    settings = {"rounds": options.rounds, "workers": options.workers}
    if options.curve:
        found = []
        for kind in ("jpg", "png"):
            for size in (32, 64, 128, 256, 512, 1024):
                comparison = compare(size, kind, "folder", **settings)
                print(comparison.text(), flush=True)
                work = f"a {kind} folder, seconds of an image"
                found += points(comparison, work, "image size", size, of=comparison.amount)
        write_curve("reading", found)
        return
    rows = [(256, kind, container) for kind in ("jpg", "png") for container in CONTAINERS]
    rows += [(32, kind, container) for kind in ("jpg", "png") for container in ("folder", "parquet")]
    comparisons = []
    for size, kind, container in rows:
        comparisons.append(compare(size, kind, container, **settings))
        print(comparisons[-1].text(), flush=True)
    for size, kind in ((256, "jpg"), (32, "png")):
        comparisons.append(digest(size, kind, **settings))
        print(comparisons[-1].text(), flush=True)
    for size, kind in ((32, "jpg"), (256, "png")):
        comparisons.append(ahead(size, kind, count=AHEAD, rounds=options.rounds))
        print(comparisons[-1].text(), flush=True)
    save("reading", comparisons)


if __name__ == "__main__":
    main()
