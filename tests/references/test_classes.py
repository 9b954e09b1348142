"""References that know classes and a held-out part: built, kept in a file, checked, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from evalkit import references
from evalkit.errors import InvalidInputError, NotComparableError, NothingMeasuredError, UsageError
from evalkit.references.builder import LARGEST_CLASSES, ReferenceBuilder, default_class_heads
from evalkit.references.class_arrays import pack_symmetric, packed_size
from evalkit.references.file import (
    _arrays_sha256,
    encode_reference,
    read_facts,
    read_reference,
    write_reference,
)
from evalkit.references.statistics import Reference
from evalkit.spec import Spec

EXTRACTOR = Spec.of("extractor", "pixels", sha256="a" * 64, resizer="area")
HEADS = {"block": 5, "pooled": 8}
LABELS = np.arange(40) % 3 * 2  # classes 0, 2 and 4


def features(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {head: rng.normal(3, 2, (40, width)).astype(np.float32) for head, width in HEADS.items()}


def built(*, class_heads: tuple[str, ...] = ("block",), images: str = "b" * 64, batch: int = 8) -> Reference:
    builder = ReferenceBuilder(HEADS, bank_size=12, bank_heads=("block",), class_heads=class_heads)
    x = features()
    for start in range(0, 40, batch):
        part = np.arange(start, min(start + batch, 40))
        builder.update({head: values[part] for head, values in x.items()}, part, LABELS[part])
    return builder.build(
        name="toy",
        title="Toy images",
        dataset="toys",
        split="train",
        resolution=32,
        images_sha256=images,
        extractor=EXTRACTOR,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "toy.safetensors"
    write_reference(built(), target)
    return target


def test_the_builder_gives_the_moments_of_each_class():
    head, x = built().head("block"), features()["block"].astype(np.float64)
    assert list(head.groups) == [0, 2, 4]
    for label, group in head.groups.items():
        rows = x[label == LABELS]
        assert group.count == len(rows)
        np.testing.assert_allclose(group.mean, rows.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(group.covariance, np.cov(rows.T), rtol=1e-11, atol=1e-13)
        assert (group.covariance == group.covariance.T).all()


def test_classes_of_any_batches_agree():
    one, other = built(batch=40).head("block"), built(batch=7).head("block")
    for label in one.groups:
        np.testing.assert_allclose(one.groups[label].covariance, other.groups[label].covariance, rtol=1e-12)


def test_a_head_without_classes_or_held_out_says_what_to_do():
    head = built().head("pooled")
    with pytest.raises(NothingMeasuredError, match="no moments by class") as caught:
        _ = head.groups
    assert "--class-heads" in (caught.value.hint or "")
    with pytest.raises(NothingMeasuredError, match="no held-out reference") as caught:
        _ = head.held_out
    assert "--held-out NAME" in (caught.value.hint or "")


def test_the_builder_refuses_classes_that_cannot_be():
    with pytest.raises(UsageError, match="classes of head 'nose'"):
        ReferenceBuilder(HEADS, class_heads=("nose",))
    about = {
        "name": "n", "title": "t", "dataset": "d", "split": None, "resolution": None,
        "images_sha256": "", "extractor": EXTRACTOR,
    }  # fmt: skip
    for labels, message in ((None, "40 of 40 images have no label"), (np.arange(40) // 39, "class 1 has 1")):
        builder = ReferenceBuilder(HEADS, class_heads=("block",))
        builder.update(features(), np.arange(40), labels)
        with pytest.raises(InvalidInputError, match=message):
            builder.build(**about)


def test_a_file_gives_the_classes_back_bit_for_bit(path: Path):
    reference, back = built(), read_reference(path)
    for label, group in reference.head("block").groups.items():
        found = back.head("block").groups[label]
        assert found.count == group.count
        np.testing.assert_array_equal(found.mean, group.mean)
        np.testing.assert_array_equal(found.covariance, group.covariance)
    assert not back.head("pooled").classes
    assert encode_reference(back) == encode_reference(reference)
    assert {name: facts.classes for name, facts in read_facts(path).heads.items()} == {
        "block": 3,
        "pooled": 0,
    }


def test_classes_do_not_change_the_identity_nor_the_other_arrays(path: Path):
    plain = built(class_heads=())
    assert plain.sha256 == built().sha256 == read_reference(path).sha256
    with_classes, without = load(path.read_bytes()), load(encode_reference(plain))
    assert set(with_classes) - set(without) == {
        f"block/class_{part}" for part in ("labels", "counts", "mean", "covariance")
    }
    for key, array in without.items():
        np.testing.assert_array_equal(with_classes[key], array)
    # A reader from before classes takes the text before the last slash as the name of a head.
    assert {key.rpartition("/")[0] for key in with_classes} == set(HEADS)


def rewrite(path: Path, arrays: dict[str, np.ndarray | None]) -> None:
    content = path.read_bytes()
    stored = {k: np.ascontiguousarray(v) for k, v in {**load(content), **arrays}.items() if v is not None}
    from evalkit import strict_json

    end = 8 + int.from_bytes(content[:8], "little")
    metadata = strict_json.loads(content[8:end].decode())["__metadata__"]
    path.write_bytes(save(stored, metadata={**metadata, "arrays_sha256": _arrays_sha256(stored)}))


FAULTS = {
    "labels missing": ({"labels": None}, "'block/class_labels' is missing"),
    "counts missing": ({"counts": None}, "'block/class_counts' is missing"),
    "mean missing": ({"mean": None}, "'block/class_mean' is missing"),
    "covariance missing": ({"covariance": None}, "'block/class_covariance' is missing"),
    "labels dtype": ({"labels": np.array([0, 2, 4], np.int32)}, "is int32, not int64"),
    "labels shape": ({"labels": np.array([0, 2])}, r"'class_counts' has shape \[3\], not \[2\]"),
    "labels matrix": ({"labels": np.array([[0, 2, 4]])}, r"'class_labels' has shape \[1, 3\]"),
    "labels negative": ({"labels": np.array([-1, 2, 4])}, "do not ascend"),
    "labels twice": ({"labels": np.array([0, 2, 2])}, "do not ascend"),
    "mean shape": ({"mean": np.zeros((3, 4))}, r"'class_mean' has shape \[3, 4\], not \[3, 5\]"),
    "covariance shape": ({"covariance": np.zeros((3, 14))}, r"not \[3, 15\]"),
    "counts of others": ({"counts": np.array([14, 13, 14])}, "do not make up 40"),
    "a single image": ({"counts": np.array([1, 20, 19])}, "classes of 1 to 20"),
    "mean not finite": ({"mean": np.full((3, 5), np.nan)}, "class 0: the mean holds NaN"),
    "not semidefinite": (
        {"covariance": np.stack([pack_symmetric(-np.eye(5))] * 3)},
        "class 0: the covariance is not positive semidefinite",
    ),
    "other images": ({"mean": np.zeros((3, 5))}, "do not make up the mean"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_classes_are_refused_saying_which(path: Path, fault: str):
    arrays, message = FAULTS[fault]
    rewrite(path, {f"block/class_{part}": array for part, array in arrays.items()})
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_reference(path)
    assert caught.value.exit_code == 6


def test_a_held_out_reference_is_a_copy_with_it():
    reference, other = built(), built(images="c" * 64)
    both = reference.with_held_out(other)
    assert both.head("block").held_out is other.head("block")
    assert both.head("pooled").held_out is other.head("pooled")
    assert both.sha256 == reference.sha256
    assert reference.head("block").held is None
    np.testing.assert_array_equal(both.head("block").bank, reference.head("block").bank)


def test_a_held_out_reference_may_lack_heads():
    other = built(images="c" * 64)
    fewer = replace(other, heads={"block": other.heads["block"]})
    both = built().with_held_out(fewer)
    assert both.head("block").held is not None
    with pytest.raises(NothingMeasuredError):
        _ = both.head("pooled").held_out


def test_a_held_out_reference_that_does_not_fit_is_refused():
    reference, other = built(), built(images="c" * 64)
    with pytest.raises(InvalidInputError, match="same images"):
        reference.with_held_out(built())
    about = replace(other.about, extractor=replace(EXTRACTOR, sha256="d" * 64))
    with pytest.raises(NotComparableError, match="another extractor"):
        reference.with_held_out(replace(other, about=about))
    with pytest.raises(InvalidInputError, match="8 dimensions, the reference 5"):
        reference.head("block").with_held_out(other.head("pooled"))


def test_a_kept_reference_must_have_the_classes_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    references.store_reference(built(), name="toy")
    for heads, found in (((), True), (("block",), True), (("pooled",), False)):
        kept = references.cached_reference("toy", extractor=EXTRACTOR, class_heads=heads)
        assert (kept is not None) == found


def test_classes_are_taken_unasked_only_where_they_make_sense():
    assert default_class_heads(HEADS, LABELS) == ("block",)
    assert default_class_heads({"pooled": 8}, LABELS) == ("pooled",)
    for heads, labels in (
        (HEADS, None),
        ({}, LABELS),
        (HEADS, np.zeros(40, np.int64)),  # one class is all images
        (HEADS, np.arange(40) // 39),  # a class of one image
    ):
        assert default_class_heads(heads, labels) == ()
    many = LARGEST_CLASSES // packed_size(320)
    assert 100 <= many < 200
    for classes, chosen in ((many, ("block",)), (many + 1, ())):
        assert default_class_heads({"block": 320}, np.arange(2 * classes) % classes) == chosen


@pytest.mark.parametrize(
    ("name", "each", "identity"),
    [("cifar10-jpeg-train", [5000] * 10, "0a07c41029938914"), ("cifar10-jpeg-test", [], "e6004ce6184afc22")],
)
def test_classes_are_no_part_of_the_identity_of_bundled_references(name: str, each: list[int], identity: str):
    reference = references.load_reference(name)
    assert [part.count for part in reference.head("block").classes.values()] == each
    assert reference.sha256.startswith(identity)
