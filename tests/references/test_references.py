"""References: built in one pass, kept in one file, refused when damaged or made with another network."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from evalkit import references
from evalkit.digests import file_sha256
from evalkit.errors import (
    InvalidInputError,
    NotComparableError,
    NothingMeasuredError,
    OfflineError,
    UsageError,
)
from evalkit.references.builder import ReferenceBuilder
from evalkit.references.class_arrays import pack_symmetric, unpack_symmetric
from evalkit.references.file import (
    _arrays_sha256,
    encode_reference,
    read_facts,
    read_reference,
    write_reference,
)
from evalkit.references.heads import Bank, HeadStatistics
from evalkit.references.recipes import REGISTERED, open_cifar10
from evalkit.references.statistics import Reference, checked_moments
from evalkit.spec import Spec

EXTRACTOR = Spec.of("extractor", "pixels", sha256="a" * 64, resizer="area", preset="default")
HEADS = {"block": 5, "logits": 3}
ROOT = Path(references.__file__).parents[1]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundled").mkdir()
    monkeypatch.setattr(references, "bundled_folder", lambda: tmp_path / "bundled")


def features(count: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {head: rng.normal(3, 2, (count, width)).astype(np.float32) for head, width in HEADS.items()}


def built(name: str = "toy", *, extractor: Spec = EXTRACTOR, batch: int = 8, **options: object) -> Reference:
    options = {"bank_size": 12, "bank_heads": ("block",)} | options
    builder = ReferenceBuilder(HEADS, **options)
    x = features()
    for start in range(0, 40, batch):
        part = np.arange(start, min(start + batch, 40))
        builder.update({head: values[part] for head, values in x.items()}, part)
    return builder.build(
        name=name,
        title="Toy images",
        dataset="toys",
        split="train",
        resolution=32,
        images_sha256="b" * 64,
        extractor=extractor,
        class_names=("cat", "dog"),
        command="evalkit reference build toys",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "toy.safetensors"
    write_reference(built(), target)
    return target


def rewrite(
    path: Path, *, arrays: dict[str, object] | None = None, header: dict[str, object] | None = None
) -> None:
    """Change arrays and header of a file (None removes), keeping the digest of the arrays right."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:end])["__metadata__"]
    stored = {k: v for k, v in {**load(content), **(arrays or {})}.items() if v is not None}
    stored = {key: np.ascontiguousarray(value) for key, value in stored.items()}
    metadata = {**metadata, "arrays_sha256": _arrays_sha256(stored), **(header or {})}
    path.write_bytes(save(stored, metadata={k: v for k, v in metadata.items() if v is not None}))


def test_the_builder_gives_the_moments_of_all_features():
    reference, x = built(), features()["block"].astype(np.float64)
    head = reference.head("block")
    np.testing.assert_allclose(head.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(head.covariance, np.cov(x.T), rtol=1e-12, atol=1e-13)
    assert (head.covariance == head.covariance.T).all()
    assert (reference.count, head.count, head.dimension) == (40, 40, 5)
    assert head.mean.dtype == head.covariance.dtype == np.float64


def test_the_bank_does_not_depend_on_batches():
    one, other = built(batch=40).head("block").kept, built(batch=7).head("block").kept
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_array_equal(one.features, features()["block"][one.index])
    np.testing.assert_array_equal(one.features, other.features)
    assert len(one.index) == 12


def test_a_head_without_features_says_what_to_do():
    head = built().head("logits")
    assert not head.has_bank
    with pytest.raises(NothingMeasuredError, match="no individual features") as caught:
        _ = head.bank
    assert caught.value.exit_code == 5
    assert "evalkit reference build" in (caught.value.hint or "")


def test_an_unknown_head_lists_those_there_are():
    with pytest.raises(NothingMeasuredError, match="block, logits") as caught:
        built().head("blok")
    assert caught.value.hint == "did you mean 'block'?"
    with pytest.raises(InvalidInputError, match="5 dimensions, not 7"):
        built().head("block", dimension=7)


@pytest.mark.parametrize(
    ("features_in", "message"),
    [
        ({"block": np.zeros((2, 5), np.float32)}, "'logits' are missing"),
        ({"block": np.zeros((2, 4), np.float32), "logits": np.zeros((2, 3), np.float32)}, r"not \[2, 5\]"),
        (
            {"block": np.full((2, 5), np.nan, np.float32), "logits": np.zeros((2, 3), np.float32)},
            "NaN|finite",
        ),
    ],
)
def test_the_builder_refuses_features_that_do_not_fit(features_in: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        ReferenceBuilder(HEADS).update(features_in, np.arange(2))


def test_the_builder_refuses_what_cannot_work():
    with pytest.raises(UsageError, match="'nose'"):
        ReferenceBuilder(HEADS, bank_size=1, bank_heads=("nose",))
    with pytest.raises(UsageError, match="-1"):
        ReferenceBuilder(HEADS, bank_size=-1)
    with pytest.raises(NothingMeasuredError, match="none"):
        ReferenceBuilder(HEADS).build(
            name="n",
            title="t",
            dataset="d",
            split=None,
            resolution=None,
            images_sha256="",
            extractor=EXTRACTOR,
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_file_gives_the_reference_back_bit_for_bit(tmp_path: Path, dtype: str):
    reference = built(bank_dtype=dtype)
    write_reference(reference, tmp_path / "r.safetensors")
    back = read_reference(tmp_path / "r.safetensors")
    assert back.about == reference.about
    assert back.sha256 == reference.sha256
    assert back.extractor == EXTRACTOR
    for name, head in reference.heads.items():
        np.testing.assert_array_equal(back.head(name).mean, head.mean)
        np.testing.assert_array_equal(back.head(name).covariance, head.covariance)
    np.testing.assert_array_equal(back.head("block").bank, reference.head("block").bank)
    assert back.head("block").bank.dtype == np.float32
    assert encode_reference(back) == encode_reference(reference)


def test_equal_references_give_equal_bytes_in_any_process(path: Path):
    code = (
        "import sys; from pathlib import Path; from evalkit.references.file import *; import hashlib;"
        "print(hashlib.sha256(encode_reference(read_reference(Path(sys.argv[1])))).hexdigest())"
    )
    digest = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()
    assert digest == file_sha256(path)


def test_the_packed_triangle_is_exact():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(6, 6))
    matrix = matrix + matrix.T
    packed = pack_symmetric(matrix)
    assert packed.shape == (21,)
    np.testing.assert_array_equal(packed[:3], [matrix[0, 0], matrix[1, 0], matrix[1, 1]])
    np.testing.assert_array_equal(unpack_symmetric(packed, 6), matrix)


def test_float16_refuses_features_that_overflow():
    with pytest.raises(InvalidInputError, match="float16"):
        Bank.of(np.full((1, 2), 1e5, np.float32), np.zeros(1, np.int64), dtype="float16")


def test_identity_follows_what_was_measured_and_not_rounding():
    reference = built()
    moved = {
        name: HeadStatistics(head.count, head.mean + 1e-15, head.covariance, head.kept)
        for name, head in reference.heads.items()
    }
    assert Reference.of(reference.about, moved).sha256 == reference.sha256
    assert built("other name").sha256 == reference.sha256
    fewer = {"block": reference.heads["block"]}
    assert Reference.of(reference.about, fewer).sha256 == reference.sha256
    assert built(bank_size=11).sha256 != reference.sha256
    assert built(bank_dtype="float16").sha256 != reference.sha256
    assert built(extractor=replace(EXTRACTOR, sha256="c" * 64)).sha256 != reference.sha256
    assert (
        Reference.of(replace(reference.about, images_sha256="d"), reference.heads).sha256 != reference.sha256
    )


def test_another_extractor_is_refused_by_what_differs():
    reference = built()
    reference.check_extractor(EXTRACTOR)
    other = Spec.of("extractor", "pixels", sha256="c" * 64, resizer="none", preset="default")
    with pytest.raises(NotComparableError, match="resizer 'area', in use 'none'") as caught:
        reference.check_extractor(other)
    assert caught.value.exit_code == 3
    assert "sha256" in caught.value.message
    assert "preset" not in caught.value.message
    assert "evalkit reference build" in (caught.value.hint or "")


NAN_BANK = np.full((12, 5), np.nan, np.float32)
FAULTS = {
    "missing mean": ({"block/mean": None}, {}, "'block/mean' is missing"),
    "missing covariance": ({"block/covariance": None}, {}, "'block/covariance' is missing"),
    "missing bank index": ({"block/bank_index": None}, {}, "'block/bank_index' is missing"),
    "mean dtype": ({"block/mean": np.zeros(5, np.float32)}, {}, "is float32, not float64"),
    "mean shape": ({"block/mean": np.zeros((1, 5))}, {}, r"shape \[1, 5\]"),
    "covariance shape": ({"block/covariance": np.zeros(14)}, {}, r"shape \[14\], not \[15\]"),
    "mean not finite": ({"block/mean": np.full(5, np.nan)}, {}, "mean holds NaN"),
    "covariance not finite": ({"block/covariance": np.full(15, np.inf)}, {}, "covariance holds NaN"),
    "not semidefinite": ({"block/covariance": pack_symmetric(-np.eye(5))}, {}, "not positive semidefinite"),
    "bank not finite": ({"block/bank": NAN_BANK}, {}, "bank holds NaN"),
    "bank dtype": ({"block/bank": np.zeros((12, 5))}, {}, "is float64, not float16 or float32"),
    "bank shape": ({"block/bank": np.zeros((12, 4), np.float32)}, {}, r"not \[m, 5\]"),
    "bank index": ({"block/bank_index": np.zeros(3, np.int64)}, {}, r"index \[3\]"),
    "format": ({}, {"format": "evalkit.reference/9"}, "evalkit.reference/9"),
    "no format": ({}, {"format": None}, "has the format None"),
    "no count": ({}, {"count": None}, "'count' is missing"),
    "bad count": ({}, {"count": '"many"'}, "'count' in the header"),
    "bad extractor": ({}, {"extractor": '{"name": "x"}'}, "extractor in the header"),
    "bad JSON": ({}, {"extractor": "{"}, "not valid JSON"),
    "digest": ({}, {"arrays_sha256": "0"}, "digest in its header"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_refused_saying_which(path: Path, fault: str):
    arrays, header, message = FAULTS[fault]
    rewrite(path, arrays=arrays, header=header)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_reference(path)
    assert caught.value.exit_code == 6


def test_any_flipped_byte_of_the_arrays_is_found(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged"):
        read_reference(path)


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_a_truncated_file_is_refused(path: Path, cut: int):
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidInputError):
        read_reference(path)


def test_an_absurd_header_length_is_refused(path: Path):
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(InvalidInputError, match="header of"):
        read_facts(path)


def test_facts_come_from_the_header_alone(path: Path):
    whole = path.read_bytes()
    facts = read_facts(path)
    assert (facts.about.name, facts.about.count, facts.about.class_names) == ("toy", 40, ("cat", "dog"))
    assert {name: (h.dimension, h.bank) for name, h in facts.heads.items()} == {
        "block": (5, 12),
        "logits": (3, 0),
    }
    assert facts.size == len(whole)


def test_rounding_of_float32_is_no_fault():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 64)) + 5 * rng.normal(size=(8, 1))  # of rank 7, strongly correlated
    covariance = np.cov(x.T).astype(np.float32)
    covariance[0, 1] = np.nextafter(covariance[0, 1], np.float32(9))
    _, checked = checked_moments(np.zeros(64), covariance, label="x")
    assert (checked == checked.T).all()
    checked_moments(np.zeros(2), np.zeros((2, 2)), label="constant images")


def test_bundled_names_win_and_unknown_ones_are_explained(tmp_path: Path):
    write_reference(built("toy"), tmp_path / "bundled" / "toy.safetensors")
    assert list(references.bundled_references()) == ["toy"]
    assert references.load_reference("toy").name == "toy"
    assert set(references.reference_names()) == {"toy", *REGISTERED}
    with pytest.raises(UsageError, match="'toi'") as caught:
        references.load_reference("toi")
    assert caught.value.hint == "did you mean 'toy'?"


def test_two_bundled_files_of_one_name_are_refused(tmp_path: Path):
    for file in ("a", "b"):
        write_reference(built("toy"), tmp_path / "bundled" / f"{file}.safetensors")
    with pytest.raises(InvalidInputError, match="both named 'toy'"):
        references.bundled_references()


def test_load_reference_checks_the_extractor(path: Path):
    assert references.load_reference(path, extractor=EXTRACTOR).count == 40
    with pytest.raises(NotComparableError):
        references.load_reference(str(path), extractor=replace(EXTRACTOR, name="other"))


def test_images_are_not_statistics(tmp_path: Path, path: Path):
    np.savez(tmp_path / "images.npz", np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "weights.safetensors").write_bytes(save({"w": np.zeros(2)}))
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("images.npz", "weights.safetensors", "notes.txt", "bundled", "absent"):
        assert not references.looks_like_statistics(tmp_path / name), name
    assert references.looks_like_statistics(path)
    with pytest.raises(UsageError, match="no statistics"):
        references.load_reference(tmp_path / "images.npz")


def test_built_references_are_kept_by_name_and_extractor():
    other = replace(EXTRACTOR, sha256="c" * 64)
    assert references.cached_reference("cifar10", extractor=EXTRACTOR) is None
    stored = references.store_reference(built("whatever"), name="cifar10")
    assert stored.name == "cifar10"
    found = references.cached_reference("cifar10", extractor=EXTRACTOR)
    assert found is not None
    assert (found.name, found.sha256) == ("cifar10", stored.sha256)
    assert references.cached_reference("cifar10", extractor=other) is None
    assert references.cached_reference("cifar10", extractor=EXTRACTOR, heads=("spatial",)) is None
    assert references.load_reference("cifar10", extractor=EXTRACTOR).count == 40
    with pytest.raises(NothingMeasuredError, match="has not been built") as caught:
        references.load_reference("cifar10", extractor=other)
    assert caught.value.hint == "evalkit reference build cifar10"
    with pytest.raises(UsageError, match="kept under the name"):
        references.store_reference(built(), name="../cifar10")


def test_at_hand_asks_for_no_download(tmp_path: Path, path: Path):
    assert not references.at_hand("cifar10", extractor="pixels")
    references.store_reference(built(), name="cifar10")
    assert references.at_hand("cifar10", extractor="pixels")
    assert not references.at_hand("cifar10", extractor="inception-v3")
    assert references.at_hand(str(path), extractor="pixels")
    assert not references.at_hand(str(path), extractor="inception-v3")
    assert references.at_hand(str(tmp_path), extractor="pixels"), "a folder of images can be measured"
    assert not references.at_hand(str(tmp_path / "absent"), extractor="pixels")


def test_every_reference_is_listed_once(tmp_path: Path):
    write_reference(built("toy"), tmp_path / "bundled" / "toy.safetensors")
    references.store_reference(built(), name="cifar10")
    rows = {row["name"]: row for row in references.list_references()}
    assert {name: row["state"] for name, row in rows.items()} == {
        "toy": "bundled",
        "cifar10": "built here",
        "cifar10-test": "not built",
    }
    assert rows["toy"]["heads"] == HEADS
    assert len({tuple(row) for row in rows.values()}) == 1, "all rows have the same keys"


def test_the_index_holds_the_digest_of_every_file(tmp_path: Path):
    folder = tmp_path / "bundled"
    assert references.read_index(folder) == {}
    write_reference(built("toy"), folder / "toy.safetensors")
    write_reference(
        replace(built("b"), about=replace(built("b").about, command="a | b")), folder / "b.safetensors"
    )
    text = references.write_index(folder).read_text()
    expected = {file: file_sha256(folder / file) for file in ("b.safetensors", "toy.safetensors")}
    assert references.read_index(folder) == expected
    assert "40 toys train" in text
    assert "block (5, 12, 0), logits (3, 0, 0)" in text


class FakeCifar:
    def __init__(self, *, download: bool, **_: object) -> None:
        if not download:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        self.data = np.arange(4 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 32, 32, 3)
        self.targets = [3, 1, 2, 0]


def test_a_recipe_opens_images_with_labels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EVALKIT_OFFLINE", raising=False)
    source = open_cifar10(train=True, load=FakeCifar)
    assert len(source) == 4
    batch = source.read(np.array([2, 0]))
    assert tuple(batch.images.shape) == (2, 3, 32, 32)
    assert batch.labels is not None
    assert batch.labels.tolist() == [2, 3]
    assert batch.images[0, 1, 0, 2].item() == (2 * 3072 + 7) % 256
    assert source.spec.sha256 == open_cifar10(train=True, load=FakeCifar).spec.sha256
    with pytest.raises(IndexError):
        source.read(np.array([4]))


def test_offline_says_what_where_and_how_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError, match="EVALKIT_OFFLINE is set") as caught:
        REGISTERED["cifar10"].open()
    assert caught.value.exit_code == 75
    for words in ("cifar-10-python.tar.gz", str(tmp_path / "cache"), "evalkit reference build"):
        assert words in (caught.value.hint or "")


def test_a_lost_connection_is_temporary(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EVALKIT_OFFLINE", raising=False)

    def unreachable(**_: object) -> None:
        raise OSError("Name or service not known")

    with pytest.raises(OfflineError, match="Name or service"):
        open_cifar10(train=False, load=unreachable)


def test_references_are_listed_without_torch():
    code = (
        "import sys; from evalkit import references; references.list_references();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
