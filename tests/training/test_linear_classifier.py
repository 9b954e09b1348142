"""Training a linear classifier: from features and from images, written with its held-out accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evalkit.errors import InvalidInputError
from evalkit.extractors import build_extractor
from evalkit.metrics.linear_classifier import load_classifier
from evalkit.training import linear_classifier
from evalkit.training.linear_classifier import accuracy, choose_penalty, labelled_features, main


def features(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    centres = np.random.default_rng(0).standard_normal((3, 5)) * 1.5
    return (centres[labels] + rng.standard_normal((n, 5))).astype(np.float32), labels


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "train.npz", tmp_path / "test.npz"
    for seed, path in enumerate(paths):
        x, y = features(seed + 1)
        np.savez(path, pooled=x, labels=y)
    return paths


def test_the_command_writes_a_classifier_with_its_accuracy(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "blobs.safetensors"
    done = CliRunner().invoke(
        main,
        ["--train", str(files[0]), "--test", str(files[1]), "--extractor", "pixels", "--head", "pooled",
         "--classes", "a,b,c", "--data", "blobs", "--out", str(out)],
    )  # fmt: skip
    assert done.exception is None
    found = load_classifier(str(out))
    assert (found.extractor, found.head, found.classes) == ("pixels", "pooled", ("a", "b", "c"))
    x, y = features(2)
    measured = accuracy(found.model, (x, y))
    assert found.training["test_accuracy"] == measured
    assert measured > 0.7
    assert found.training["data"] == "blobs"
    assert str(tmp_path) not in done.stdout


def test_the_penalty_is_chosen_without_the_test_images() -> None:
    train = features(3, 60)
    penalty, found = choose_penalty(train, classes=3)
    assert found[penalty] == max(found.values())
    assert set(found) == set(linear_classifier.PENALTIES)
    assert choose_penalty(train, classes=3)[0] == penalty


def test_images_with_labels_are_extracted(tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    labels = rng.integers(3, size=7)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    x, y = labelled_features(tmp_path / "images.npz", extractor="pixels", head="thumbnail")
    expected = build_extractor("pixels")(torch.from_numpy(images).permute(0, 3, 1, 2), ["thumbnail"])
    assert np.array_equal(x, expected["thumbnail"].cpu().numpy())
    assert np.array_equal(y, labels)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    with pytest.raises(InvalidInputError, match="labels"):
        labelled_features(tmp_path / "unlabelled.npz", extractor="pixels", head="thumbnail")
