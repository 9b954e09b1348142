"""EfficientNet-Lite0 features of the bundled GAN: drawn once, since 3 840 of them cost a minute of one core.

    python tests/gan_features.py tests/data/gan_features.npz

Image i is drawn from seed i of base 7; float16 ``[3840, 320]``, head ``block``. The tests that read the file
draw its first images again and compare.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from evalkit.extractors import build_extractor
from evalkit.generators import load_generator
from evalkit.runtime import strict_numerics
from evalkit.seeding import balanced_labels, image_seeds

COUNT, BASE_SEED, BATCH = 3840, 7, 64
FILE = Path(__file__).parent / "data" / "gan_features.npz"


def drawn(count):
    """Return the features of the first ``count`` images, float32 ``[count, 320]``."""
    generator, extractor = load_generator("cgan"), build_extractor("efficientnet-lite0", device="cpu")
    parts = []
    with strict_numerics():
        for first in range(0, count, BATCH):
            index = np.arange(first, min(first + BATCH, count))
            labels = balanced_labels(BASE_SEED, index, generator.num_classes)
            images = generator.generate(image_seeds(BASE_SEED, index), labels=labels)
            parts.append(extractor(images, ["block"])["block"].numpy())
    return np.concatenate(parts)


def kept():
    """Return all of them from the file, float32 ``[3840, 320]``."""
    with np.load(FILE) as file:
        return file["features"].astype(np.float32)


if __name__ == "__main__":
    np.savez_compressed(Path(sys.argv[1]), features=drawn(COUNT).astype(np.float16))
