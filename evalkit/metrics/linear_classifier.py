"""Linear classifiers of features: one safetensors file each, some of them bundled.

    classifier = load_classifier("cifar10")
    logits = classifier.model.logits(features)  # float64 [n, 10]

The file holds ``weight`` float32 ``[C, d]`` and ``bias`` float32 ``[C]``; its header the extractor and head
that the features come from, the names of the classes, and how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evalkit.atomic import write_atomically
from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, UsageError
from evalkit.numerics.logistic import LinearModel
from evalkit.registry import did_you_mean

FORMAT: Final = "evalkit.linear-classifier/1"
_FOLDER: Final = Path(__file__).parent / "classifiers"
_SUFFIX: Final = ".safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class LinearClassifier:
    """A linear classifier and what is known of it.

    Attributes:
        model: its weights.
        extractor: registered name of the network whose features it reads; ``head`` which of them.
        classes: names, in the order of the logits.
        training: facts for a reader: data, command, accuracy on held-out images.
        sha256: digest of the file.
    """

    model: LinearModel
    extractor: str
    head: str
    classes: tuple[str, ...]
    training: Mapping[str, Any]
    sha256: str


def bundled_classifiers() -> tuple[str, ...]:
    """Return the names of the classifiers that ship with evalkit."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}")))


def load_classifier(name: str) -> LinearClassifier:
    """Read a bundled classifier by its name, or any by its path.

    Raises:
        UsageError: there is neither.
        CheckpointError: the file is not a whole and finite classifier.
    """
    path = _FOLDER / f"{name}{_SUFFIX}" if name in bundled_classifiers() else Path(name)
    if not path.is_file():
        raise UsageError(f"no classifier {name!r}", hint=did_you_mean(name, bundled_classifiers()))
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            weight, bias = (np.asarray(file.get_tensor(key)) for key in ("weight", "bias"))
        if header.get("format") != FORMAT:
            raise CheckpointError(f"{path.name} is not a linear classifier of evalkit")
        classes = tuple(str(label) for label in json.loads(header["classes"]))
        training = dict(json.loads(header["training"]))
        extractor, head = header["extractor"], header["head"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is not a whole linear classifier: {error}") from error
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or len(classes) != len(bias):
        raise CheckpointError(
            f"{path.name}: weight {weight.shape}, bias {bias.shape} and {len(classes)} classes do not fit"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise CheckpointError(f"{path.name} holds NaN or infinity")
    model = LinearModel(weight.astype(np.float64), bias.astype(np.float64))
    return LinearClassifier(model, extractor, head, classes, training, file_sha256(path))


def save_classifier(
    path: Path,
    model: LinearModel,
    *,
    extractor: str,
    head: str,
    classes: tuple[str, ...],
    training: Mapping[str, object],
) -> None:
    """Write a classifier as float32."""
    tensors = {"weight": model.weight.astype(np.float32), "bias": model.bias.astype(np.float32)}
    header = {
        "format": FORMAT,
        "extractor": extractor,
        "head": head,
        "classes": json.dumps(classes),
        "training": json.dumps(training, sort_keys=True),
    }
    write_atomically(path, save(tensors, metadata=header))
