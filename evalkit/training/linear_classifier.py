"""Train a linear classifier of features, for the metric ``accuracy``.

    python -m evalkit.training.linear_classifier --train train.npz --test test.npz \
        --extractor efficientnet-lite0 --head pooled --classes airplane,automobile,... \
        --out cifar10.safetensors

The penalty is chosen on the last tenth of the training images in a fixed random order; the test images are
looked at once, for the accuracy in the header. ``--train`` and ``--test`` are npz files of features (an array
named like the head, and ``labels``), or any image source with labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.extractors import build_extractor
from evalkit.metrics.linear_classifier import save_classifier
from evalkit.numerics.arrays import IndexArray
from evalkit.numerics.logistic import LinearModel, fit_multinomial, true_class_rank
from evalkit.sources import open_source

PENALTIES: Final = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
_BATCH: Final = 256
_SPLIT_SEED: Final = 0

Labelled = tuple[NDArray[np.float32], IndexArray]


def labelled_features(path: Path, *, extractor: str, head: str) -> Labelled:
    """Return float32 ``[n, d]`` features and int64 ``[n]`` labels of an npz of features or of images.

    Raises:
        InvalidInputError: there are no labels.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if head in arrays and "labels" in arrays:
                return arrays[head].astype(np.float32), arrays["labels"].astype(np.int64)
    source, network = open_source(path), build_extractor(extractor, device="auto")
    features, labels = [], []
    for start in range(0, len(source), _BATCH):
        batch = source.read(np.arange(start, min(start + _BATCH, len(source)), dtype=np.int64))
        if batch.labels is None:
            raise InvalidInputError(f"{path} holds images without labels")
        rows = np.empty((len(batch), network.heads[head]), dtype=np.float32)
        for positions, images in batch.same_size_groups():
            rows[positions] = network(images, [head])[head].cpu().numpy()
        features.append(rows)
        labels.append(batch.labels)
    return np.concatenate(features), np.concatenate(labels)


def choose_penalty(train: Labelled, *, classes: int) -> tuple[float, Mapping[float, float]]:
    """Return the penalty that is best on a tenth held out (the larger of a tie), and all accuracies."""
    features, labels = train
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(features))
    cut = len(order) - len(order) // 10
    kept, held = order[:cut], order[cut:]
    found = {
        penalty: accuracy(
            fit_multinomial(features[kept], labels[kept], classes=classes, penalty=penalty, tolerance=1e-5),
            (features[held], labels[held]),
        )
        for penalty in PENALTIES
    }
    return max(found, key=lambda penalty: (found[penalty], penalty)), found


def accuracy(model: LinearModel, data: Labelled) -> float:
    """Share of images whose true class has the largest logit."""
    features, labels = data
    return float((true_class_rank(model.logits(features), labels) == 0).mean())


@click.command()
@click.option("--train", "train_path", type=click.Path(path_type=Path), required=True)
@click.option("--test", "test_path", type=click.Path(path_type=Path), required=True)
@click.option("--extractor", required=True, help="registered name")
@click.option("--head", required=True)
@click.option("--classes", required=True, help="names in the order of the labels, with commas")
@click.option("--data", default="", help="what the images are, for the header")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    train_path: Path, test_path: Path, extractor: str, head: str, classes: str, data: str, out: Path
) -> None:
    """Train a linear classifier and write it with its held-out accuracy."""
    names = tuple(classes.split(","))
    train = labelled_features(train_path, extractor=extractor, head=head)
    test = labelled_features(test_path, extractor=extractor, head=head)
    penalty, validation = choose_penalty(train, classes=len(names))
    model = fit_multinomial(*train, classes=len(names), penalty=penalty, tolerance=1e-5)
    facts = {
        "command": "python -m evalkit.training.linear_classifier --train TRAIN --test TEST"
        f" --extractor {extractor} --head {head} --classes {classes} --out {out.name}",
        "data": data,
        "penalty": penalty,
        "validation_accuracy": {str(key): value for key, value in validation.items()},
        "train_images": len(train[0]),
        "train_accuracy": accuracy(model, train),
        "test_images": len(test[0]),
        "test_accuracy": accuracy(model, test),
    }
    save_classifier(out, model, extractor=extractor, head=head, classes=names, training=facts)
    click.echo(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
