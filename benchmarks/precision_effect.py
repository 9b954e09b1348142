"""How far does `--precision fast` move a score? Emulated on a CPU, where it cannot run.

    python benchmarks/precision_effect.py /work/shared/data/cifar10-jpeg/train.parquet \
        --images 2048 --out benchmarks/precision_effect.csv

Real images of a parquet file (or folder) and samples of the bundled conditional GAN go through
EfficientNet-Lite0 three times: exactly; with the weights, the inputs and the outputs of every layer rounded
to bfloat16, sums in float32, as autocast on CUDA does; and with weights and inputs of convolutions and
products rounded to the 10 bits of mantissa of TF32. The CSV holds the kernel and the Fréchet distance
between the two sets at two heads: with both sides in one precision, which is what the protocol variant
compares, and with the real side exact, which it refuses to compare. Errors are jackknife errors over 16
blocks of the samples; that of the change is of the paired difference, on the same images.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from evalkit.core import ImageSource
from evalkit.extractors import build_extractor
from evalkit.generators import SamplingOptions, load_generator
from evalkit.numerics.frechet import frechet_distance_from_features
from evalkit.numerics.mmd import kernel_distance
from evalkit.seeding import balanced_labels, image_seeds
from evalkit.sources import open_source

MODEL = "cgan"
HEADS = ("block", "pooled")
BLOCKS = 16
BATCH = 64
Features = Mapping[str, NDArray[np.float32]]
METRICS: Mapping[str, Callable[[NDArray[np.float32], NDArray[np.float32]], float]] = {
    "kd": kernel_distance,
    "fd": frechet_distance_from_features,
}
# Precision of the samples and of the real images.
PAIRS = (("exact", "exact"), ("bf16", "bf16"), ("tf32", "tf32"), ("bf16", "exact"), ("tf32", "exact"))
FIELDS = (
    "metric", "head", "generated", "reference", "images", "value", "stderr", "change", "change_stderr",
    "change_percent",
)  # fmt: skip


def to_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def to_tf32(x: Tensor) -> Tensor:
    """Round to 10 bits of mantissa, halves away from zero (``cvt.rna.tf32.f32``)."""
    return x.view(torch.int32).add(0x1000).bitwise_and_(~0x1FFF).view(torch.float32)


class Rounded(TorchFunctionMode):
    """Within it, the layers of a network see and give rounded numbers."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self._inside = {"bf16": to_bfloat16, "tf32": to_tf32}[precision]
        self._outside = to_bfloat16 if precision == "bf16" else None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        if function not in (F.conv2d, F.linear, Tensor.add_):
            return function(*args, **(kwargs or {}))
        if function is not Tensor.add_:
            # A bias is added to the sum in float32 by TF32 kernels, and is cast by autocast.
            weights = 3 if self._outside else 2
            args = [self._inside(x) if isinstance(x, Tensor) else x for x in args[:weights]] + [
                *args[weights:]
            ]
        result = function(*args, **(kwargs or {}))
        return self._outside(result) if self._outside else result


def real_images(source: ImageSource, count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` images, uint8 ``[n, 3, h, w]``."""
    batch = source.read(np.arange(count))
    return np.stack([np.asarray(image) for image in batch.images])


def samples(count: int) -> NDArray[np.uint8]:
    """Return ``count`` images of the bundled generator by seeds 0, 1, …, labels in turn."""
    generator = load_generator(MODEL, options=SamplingOptions(device="cpu"))
    parts = []
    for start in range(0, count, BATCH):
        index = np.arange(start, min(start + BATCH, count))
        labels = balanced_labels(0, index, generator.num_classes)
        parts.append(generator.generate(image_seeds(0, index), labels=labels).numpy())
    return np.concatenate(parts)


def features(images: NDArray[np.uint8], precision: str) -> Features:
    """Return float32 ``[n, d]`` by head, through torch."""
    extractor = build_extractor("efficientnet-lite0", backend="torch")
    parts: dict[str, list[NDArray[np.float32]]] = {head: [] for head in HEADS}
    start = time.monotonic()
    for at in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[at : at + BATCH])
        if precision == "exact":
            made = extractor(batch, HEADS)
        else:
            with Rounded(precision):
                made = extractor(batch, HEADS)
        for head in HEADS:
            parts[head].append(made[head].numpy())
    print(f"{precision}: {len(images)} images in {time.monotonic() - start:.0f} s", flush=True)
    return {head: np.concatenate(rows) for head, rows in parts.items()}


def left_out(blocks: int, count: int) -> list[NDArray[np.int64]]:
    """Return the indices without each block in turn."""
    parts = np.array_split(np.arange(count), blocks)
    return [np.concatenate([*parts[:block], *parts[block + 1 :]]) for block in range(blocks)]


def jackknife(values: NDArray[np.float64]) -> float:
    """Return the delete-one-block standard error."""
    return float(np.sqrt((len(values) - 1) * values.var()))


def rows(generated: Mapping[str, Features], reference: Mapping[str, Features]) -> list[dict[str, object]]:
    """Return the rows of the CSV."""
    out: list[dict[str, object]] = []
    for name, metric in METRICS.items():
        for head in HEADS:
            exact: NDArray[np.float64] | None = None
            for pair in PAIRS:
                ours, theirs = generated[pair[0]][head], reference[pair[1]][head]
                parts = [metric(ours[kept], theirs) for kept in left_out(BLOCKS, len(ours))]
                values = np.array([metric(ours, theirs), *parts])
                exact = values if exact is None else exact
                change = values - exact
                numbers = (values[0], jackknife(values[1:]), change[0], jackknife(change[1:]))
                percent = 100 * change[0] / exact[0]
                written = [f"{number:.4g}" for number in (*numbers, percent)]
                out.append(dict(zip(FIELDS, (name, head, *pair, len(ours), *written), strict=True)))
                print(*out[-1].values(), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a mode of torch functions holds in its own thread alone
    sets = {
        "generated": samples(options.images),
        "real": real_images(open_source(options.real), options.images),
    }
    found = {
        side: {precision: features(images, precision) for precision in ("exact", "bf16", "tf32")}
        for side, images in sets.items()
    }
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(found["generated"], found["real"]))


if __name__ == "__main__":
    main()
