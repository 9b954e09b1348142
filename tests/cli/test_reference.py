"""``evalkit reference``: what it prints, what it finds broken, and the codes it leaves with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from evalkit import references
from evalkit.cli import reference as command
from evalkit.errors import EvalkitError
from evalkit.references.builder import ReferenceBuilder
from evalkit.references.file import write_reference
from evalkit.spec import Spec


@pytest.fixture(autouse=True)
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bundled"
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    for module in (references, command):
        monkeypatch.setattr(module, "bundled_folder", lambda: folder)
    builder = ReferenceBuilder({"block": 4, "logits": 2}, bank_size=5, bank_heads=("block",))
    rng = np.random.default_rng(0)
    batch = {"block": rng.normal(size=(9, 4)), "logits": rng.normal(size=(9, 2))}
    builder.update({head: x.astype(np.float32) for head, x in batch.items()}, np.arange(9))
    built = builder.build(
        name="toy",
        title="Toy images",
        dataset="toys",
        split="train",
        resolution=32,
        images_sha256="b" * 64,
        extractor=Spec.of("extractor", "pixels", sha256="a" * 64, resizer="area"),
        command="evalkit reference build toys",
    )
    write_reference(built, folder / "toy.safetensors")
    references.write_index(folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.reference, [str(argument) for argument in arguments])


def code(result: Result) -> int:
    return result.exception.exit_code if isinstance(result.exception, EvalkitError) else result.exit_code


def test_list_prints_aligned_text():
    result = run("list")
    assert code(result) == 0
    heading, *rows = result.stdout.splitlines()
    assert heading.split()[:3] == ["name", "state", "extractor"]
    toy = next(row for row in rows if row.startswith("toy"))
    assert "block:4 logits:2" in toy
    assert "kB" in toy
    assert any(row.startswith("cifar10 ") and "not built" in row for row in rows)


def test_list_prints_json_only():
    rows = json.loads(run("list", "--format", "json").stdout)
    toy = next(row for row in rows if row["name"] == "toy")
    assert toy["heads"] == {"block": 4, "logits": 2}
    assert toy["images"] == 9
    assert toy["bytes"] > 0


def test_show_tells_where_it_came_from():
    text = run("show", "toy").stdout
    for words in ("Toy images", "pixels (resizer area)", "evalkit reference build toys", "block"):
        assert words in text
    facts = json.loads(run("show", "toy", "--format", "json").stdout)
    assert facts["heads"]["block"]["features_kept"] == 5
    assert facts["extractor"]["name"] == "pixels"


def test_show_of_an_unknown_name_suggests_one():
    result = run("show", "tooy")
    assert code(result) == 2
    assert result.exception.hint == "did you mean 'toy'?"


def test_verify_accepts_whole_files():
    result = run("verify")
    assert code(result) == 0
    assert result.stdout == "ok      toy.safetensors: 9 images; block 4, logits 2\n"


@pytest.mark.parametrize("position", [20, -3], ids=["header", "arrays"])
def test_verify_finds_a_flipped_byte(bundled: Path, position: int):
    path = bundled / "toy.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    result = run("verify")
    assert code(result) == 6
    assert result.stdout.startswith("BROKEN  toy.safetensors")


def test_verify_compares_bundled_files_with_the_index(bundled: Path):
    index = bundled / "INDEX.md"
    index.write_text(index.read_text().replace("`toy.safetensors`", "`other.safetensors`"))
    result = run("verify", bundled / "toy.safetensors")
    assert code(result) == 6
    assert "not in INDEX.md" in result.stdout


def test_verify_checks_every_file_before_it_fails(tmp_path: Path):
    bad, good = tmp_path / "bad.npz", tmp_path / "good.npz"
    np.savez(bad, mu=np.zeros(3), sigma=-np.eye(3))
    np.savez(good, mu=np.zeros(3), sigma=np.eye(3))
    result = run("verify", bad, good)
    assert code(result) == 6
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["BROKEN", "ok"]
    assert "1 of 2" in str(result.exception)


def test_verify_of_nothing_measures_nothing(bundled: Path):
    (bundled / "toy.safetensors").unlink()
    assert code(run("verify")) == 5


def test_export_writes_what_pytorch_fid_reads(tmp_path: Path):
    out = tmp_path / "out.npz"
    result = run("export", "toy", "--format", "pytorch-fid", "--head", "block", "--out", out)
    assert code(result) == 0
    assert result.stdout == ""
    with np.load(out, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["mu"], references.load_reference("toy").head("block").mean)


def test_export_needs_the_heads_of_the_format(tmp_path: Path):
    assert code(run("export", "toy", "--format", "adm", "--head", "block", "--out", tmp_path / "o.npz")) == 5
    assert code(run("export", "toy", "--format", "pytorch-fid", "--out", tmp_path / "o.npz")) == 5
    assert code(run("export", "toy", "--format", "other", "--out", tmp_path / "o.npz")) == 2
    assert not (tmp_path / "o.npz").exists()


def test_index_is_generated(bundled: Path):
    before = (bundled / "INDEX.md").read_text()
    assert code(run("index", bundled)) == 0
    assert (bundled / "INDEX.md").read_text() == before
    assert "index" not in run("--help").stdout


def labelled_folder(root: Path, classes: int = 2, images: int = 4) -> Path:
    rng = np.random.default_rng(1)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{number}.png")
    return root


def build(images: Path, tmp_path: Path, *options: str) -> tuple[Result, Path]:
    out = tmp_path / "built.safetensors"
    found = run(
        "build", images, "--name", "mine", "--extractor", "pixels", "--heads", "thumbnail", "--state",
        tmp_path / "state", "--out", out, "--device", "cpu", *options,
    )  # fmt: skip
    return found, out


def test_build_takes_moments_by_class_where_images_have_labels(tmp_path: Path):
    images = labelled_folder(tmp_path / "images")
    result, out = build(images, tmp_path)
    assert code(result) == 0, result.output
    loaded = references.load_reference(out)
    assert {label: group.count for label, group in loaded.head("thumbnail").groups.items()} == {0: 4, 1: 4}
    assert loaded.about.class_names == ("class0", "class1")
    assert json.loads(run("show", out, "--format", "json").stdout)["heads"]["thumbnail"]["classes"] == 2
    result, out = build(images, tmp_path, "--class-heads", "none")
    assert code(result) == 0
    assert not references.load_reference(out).head("thumbnail").classes


def test_build_refuses_classes_of_images_without_labels(tmp_path: Path):
    images = labelled_folder(tmp_path / "images") / "class0"
    result, out = build(images, tmp_path, "--class-heads", "thumbnail")
    assert code(result) == 5
    assert "no labels" in str(result.exception)
    result, out = build(images, tmp_path)
    assert code(result) == 0
    assert not references.load_reference(out).head("thumbnail").classes
    assert code(build(images, tmp_path, "--class-heads", "nose")[0]) != 0


def test_build_finds_labels_that_older_shards_do_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from evalkit.extraction import Extracted

    monkeypatch.setattr(Extracted, "labels", lambda self: None)
    result, out = build(labelled_folder(tmp_path / "images"), tmp_path)
    assert code(result) == 0
    assert set(references.load_reference(out).head("thumbnail").groups) == {0, 1}
