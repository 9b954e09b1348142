"""Accuracy of the condition: scikit-learn's accuracy, linear classifiers, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

from evalkit.core import FeatureSet
from evalkit.errors import CheckpointError, InvalidInputError, NothingMeasuredError, UsageError
from evalkit.extractors.facts import FACTS
from evalkit.metrics.class_accuracy import ClassAccuracy
from evalkit.metrics.linear_classifier import FORMAT, bundled_classifiers, load_classifier, save_classifier
from evalkit.numerics import block_edges
from evalkit.numerics.logistic import LinearModel
from evalkit.record_parts import check_identifier
from evalkit.spec import Score


def predictions(seed: int, n: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def compute(x: np.ndarray, labels: np.ndarray | None, *, blocks: int = 6, **params: object) -> Score:
    spans = list(itertools.pairwise(block_edges(len(x), blocks)))
    kept = None if labels is None else tuple(labels[i:j] for i, j in spans)
    metric = ClassAccuracy(**params)  # type: ignore[arg-type]
    generated = FeatureSet(tuple(x[i:j] for i, j in spans), labels=kept)
    return metric.compute(generated, None, rng=np.random.default_rng(0))


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    rng = np.random.default_rng(9)
    path = tmp_path / "shapes.safetensors"
    model = LinearModel(rng.standard_normal((3, 7)), rng.standard_normal(3))
    facts = {"test_accuracy": 0.5}
    save_classifier(
        path, model, extractor="pixels", head="pixels", classes=("box", "disc", "star"), training=facts
    )
    return path


@pytest.mark.parametrize("k", [1, 2, 4])
def test_agrees_with_scikit_learn(k: int) -> None:
    logits, labels = predictions(0)
    expected = top_k_accuracy_score(labels, logits, k=k, labels=range(5))
    assert compute(logits, labels, k=k).value == pytest.approx(expected)
    if k == 1:
        assert compute(logits, labels).value == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)))


def test_details_are_the_accuracies_by_class() -> None:
    logits, labels = predictions(1)
    expected = recall_score(labels, logits.argmax(axis=1), average=None)
    details = compute(logits, labels).details
    for label, value in enumerate(expected):
        assert details[f"class {label}"] == pytest.approx(value)


def test_error_bar_is_the_standard_error_of_the_mean() -> None:
    logits, labels = predictions(2)
    score = compute(logits, labels)
    right = (logits.argmax(axis=1) == labels).astype(float)
    assert score.stderr == pytest.approx(stats.sem(right))
    for block, value in enumerate(score.blocks):
        assert value == pytest.approx(np.delete(right, np.s_[10 * block : 10 * block + 10]).mean())
    one = compute(logits, labels, blocks=1)
    assert (one.stderr, one.ci, one.blocks, one.block_sizes) == (score.stderr, score.ci, (), ())


@pytest.mark.parametrize(
    ("name", "k", "variant"),
    [
        ("", 1, ""),
        ("", 5, "top5"),
        ("cifar10", 1, "cifar10"),
        ("cifar10", 5, "cifar10-top5"),
        ("/some/folder/my shapes (2).safetensors", 2, "my-shapes-2--top2"),
        (r"C:\models\shapes.safetensors", 1, "shapes"),
        ("日本.safetensors", 1, "classifier"),
        ("a" * 300, 1, "a" * 100),
    ],
)
def test_variant_names_the_classifier_and_its_guesses(name: str, k: int, variant: str) -> None:
    metric = ClassAccuracy(classifier=name, k=k)
    assert metric.variant == variant
    if variant:
        assert check_identifier(variant, what="variant") == variant


def test_order_does_not_matter_but_the_labels_do() -> None:
    logits, labels = predictions(3)
    order = np.random.default_rng(0).permutation(60)
    assert compute(logits[order], labels[order]).value == compute(logits, labels).value
    assert compute(logits, labels[order]).value < compute(logits, labels).value


def test_a_linear_classifier_turns_features_into_logits(classifier: Path) -> None:
    rng = np.random.default_rng(4)
    features, labels = rng.standard_normal((60, 7)).astype(np.float32), rng.integers(3, size=60)
    found = load_classifier(str(classifier))
    logits = features.astype(np.float64) @ found.model.weight.T + found.model.bias
    score = compute(features, labels, classifier=str(classifier))
    assert score.value == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)))
    assert {"class box", "class disc", "class star"} <= set(score.details)
    assert found.training == {"test_accuracy": 0.5}


def test_spec_holds_the_digest_and_no_path(classifier: Path) -> None:
    spec = ClassAccuracy(classifier=str(classifier)).spec
    assert spec.sha256 == load_classifier(str(classifier)).sha256
    assert dict(spec.params) == {"classifier": "shapes.safetensors", "k": 1}
    assert ClassAccuracy().head == "logits"
    assert ClassAccuracy(classifier="cifar10").head == "features"
    for metric in (ClassAccuracy(), ClassAccuracy(classifier="cifar10", k=3)):
        assert ClassAccuracy(**dict(metric.spec.params)) == metric  # type: ignore[arg-type]


def test_what_cannot_be_scored_is_refused(classifier: Path) -> None:
    logits, labels = predictions(5)
    with pytest.raises(NothingMeasuredError, match="class"):
        compute(logits, None)
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(logits[:1], labels[:1], blocks=1)
    with pytest.raises(InvalidInputError, match="5 classes"):
        compute(logits, labels + 1)
    with pytest.raises(InvalidInputError, match="NaN"):
        compute(logits * np.float32(np.nan), labels)
    with pytest.raises(InvalidInputError, match="7 features") as caught:
        compute(logits, labels % 3, classifier=str(classifier))
    assert "accuracy@pixels" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="k=0"):
        ClassAccuracy(k=0)
    with pytest.raises(UsageError) as misspelt:
        compute(logits, labels, classifier="cifar")
    assert "cifar10" in (misspelt.value.hint or "")
    generated = FeatureSet((logits[:30], logits[30:]), labels=(labels[:20], labels[20:]))
    with pytest.raises(InvalidInputError, match="blocks"):
        ClassAccuracy().compute(generated, None, rng=np.random.default_rng(0))


@pytest.mark.parametrize("fault", ["format", "classes", "bias", "nan", "missing", "cut", "json"])
def test_damaged_classifiers_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "bad.safetensors"
    tensors = {"weight": np.ones((3, 4), dtype=np.float32), "bias": np.ones(3, dtype=np.float32)}
    header = {"format": FORMAT, "extractor": "pixels", "head": "pixels", "training": "{}"}
    header["classes"] = '["a", "b", "c"]'
    if fault == "format":
        header["format"] = "other"
    elif fault == "classes":
        header["classes"] = '["a"]'
    elif fault == "bias":
        tensors["bias"] = np.ones(2, dtype=np.float32)
    elif fault == "nan":
        tensors["weight"][1, 1] = np.nan
    elif fault == "missing":
        del tensors["bias"]
    elif fault == "json":
        header["training"] = "{"
    save_file(tensors, path, metadata=header)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="bad"):
        load_classifier(str(path))


@pytest.mark.parametrize("name", bundled_classifiers())
def test_bundled_classifiers_fit_their_extractor(name: str) -> None:
    found = load_classifier(name)
    assert found.model.weight.shape == (len(found.classes), FACTS[found.extractor].dimensions(found.head))
    assert FACTS[found.extractor].head_for("features") == found.head
    assert 0 < found.training["test_accuracy"] < 1
    assert "python -m evalkit.training.linear_classifier" in found.training["command"]


def test_the_cifar10_classifier_is_bundled_and_small() -> None:
    found = load_classifier("cifar10")
    assert found.classes[0] == "airplane"
    assert len(found.classes) == 10
    assert found.training["test_images"] == 10_000
    assert found.training["test_accuracy"] > 0.8
    import evalkit.metrics.linear_classifier as module

    assert (Path(module.__file__).parent / "classifiers" / "cifar10.safetensors").stat().st_size < 100_000
