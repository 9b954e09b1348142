"""The same files give the same batches from every container, in one order, under any worker count."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.core import ImageSource
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.sources import FORMATS, DecodePolicy, open_source

ENCODED = ["set", "set.zip", "set.tar", "set.tgz", "set.tar.gz", "set.tar.bz2", "set.tar.xz", "set.parquet"]
ORDER = [f"{kind}/{number}.png" for kind in ("Zebra", "cat", "dog") for number in (1, 10, 9)]
EVERYTHING = np.arange(9)


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ENCODED)
def test_same_files_same_batches_in_byte_order(write, files, pixels, name):
    source = open_source(write(name, files))
    assert isinstance(source, ImageSource)
    batch = source.read(EVERYTHING)
    expected = np.stack([pixels[name] for name in ORDER]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch.images.numpy(), expected)
    assert batch.images.dtype == torch.uint8
    np.testing.assert_array_equal(batch.index, EVERYTHING)
    np.testing.assert_array_equal(batch.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    if not name.endswith("parquet"):
        assert source.class_names == ("Zebra", "cat", "dog")
        assert [source.name_of(i) for i in range(9)] == ORDER


@pytest.mark.parametrize("name", ["set.npz", "packed.npz"])
def test_arrays_give_the_same_batches_too(tmp_path, pixels, name):
    save = np.savez if name == "set.npz" else np.savez_compressed
    save(tmp_path / name, np.stack([pixels[name] for name in ORDER]), np.repeat([0, 1, 2], 3))
    batch = open_source(tmp_path / name).read(EVERYTHING)
    expected = np.stack([pixels[name] for name in ORDER]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch.images.numpy(), expected)
    np.testing.assert_array_equal(batch.labels, np.repeat([0, 1, 2], 3))


@pytest.mark.parametrize("name", ENCODED)
def test_any_index_order_and_any_worker_count_give_the_same_images(write, files, name):
    path = write(name, files)
    whole = open_source(path, workers=1).read(EVERYTHING)
    index = np.array([7, 0, 0, 8, 3])
    for workers in (1, 2, 7):
        batch = open_source(path, workers=workers).read(index)
        assert torch.equal(batch.images, whole.images[index])
        np.testing.assert_array_equal(batch.labels, whole.labels[index])


def test_threads_may_share_one_source(write, files):
    for name in ("set.zip", "set.tar", "set.tgz", "set.parquet"):
        source = open_source(write(name, files), workers=2)
        expected = source.read(EVERYTHING).images
        results: list[bool] = []

        def read(index, source=source, expected=expected, results=results):
            results.append(torch.equal(source.read(index).images, expected[index]))

        threads = [threading.Thread(target=read, args=(EVERYTHING[start::2],)) for start in (0, 1, 0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 4


@pytest.mark.parametrize("name", ENCODED)
def test_spec_follows_content_and_not_path_or_workers(write, files, encode, name):
    spec = open_source(write(name, files), workers=1).spec
    again = open_source(write(f"moved-{name}", files), workers=3).spec
    assert spec.kind == "source"
    assert len(spec.sha256) == 64
    assert dict(spec.params) == {"count": 9}
    if "gz" not in name:  # gzip stores its file's name
        assert spec == again
    changed = {**files, "dog/9.png": encode(np.zeros((6, 5, 3), np.uint8))}
    assert open_source(write(f"changed-{name}", changed)).spec.sha256 != spec.sha256


def test_spec_of_a_folder_follows_names_and_policy(write, files):
    spec = open_source(write("a", files)).spec
    renamed = {name.replace("dog/9", "dog/8"): data for name, data in files.items()}
    assert open_source(write("b", renamed)).spec.sha256 != spec.sha256
    white = open_source(write("c", files), policy=DecodePolicy(alpha="white")).spec
    assert (white.sha256, dict(white.params)) == (spec.sha256, {"count": 9, "alpha": "white"})


@pytest.mark.fault("mixed-sizes")
def test_mixed_sizes_come_as_a_list(write, encode):
    sizes = {"a.png": (4, 5), "b.png": (6, 5), "c.png": (4, 5)}
    files = {name: encode(np.zeros((*size, 3), np.uint8)) for name, size in sizes.items()}
    batch = open_source(write("mixed.zip", files)).read(np.arange(3))
    assert [tuple(image.shape) for image in batch.images] == [(3, *size) for size in sizes.values()]
    assert batch.labels is None
    assert isinstance(open_source(write("mixed.zip", files)).read(np.array([0, 2])).images, torch.Tensor)


@pytest.mark.parametrize("index", [[-1], [9], [[0]], [0.5]])
def test_indices_outside_are_an_error(write, files, index):
    with pytest.raises(IndexError):
        open_source(write("set", files)).read(np.array(index))


def test_empty_batch(write, files):
    batch = open_source(write("set", files)).read(np.array([], dtype=np.int64))
    assert len(batch) == 0
    assert list(batch.same_size_groups()) == []


def damaged_set(files):
    return {**files, "cat/10.png": files["cat/10.png"][:50], "dog/1.png": b"", "dog/2.jpg": jpeg(1)[:-40]}


@pytest.mark.parametrize("name", ENCODED)
def test_bad_images_fail_by_name(write, files, name):
    source = open_source(write(name, damaged_set(files)))
    assert len(source) == 10
    with pytest.raises(InvalidInputError, match="3 of 10 images") as error:
        source.read(np.arange(10))
    assert "--on-bad skip" in error.value.hint
    names = (
        {"row 4", "row 6", "row 8"} if name.endswith("parquet") else {"cat/10.png", "dog/1.png", "dog/2.jpg"}
    )
    assert {image.name for image in source.check()} == names
    assert all(repr(bad) in error.value.message for bad in names)


@pytest.mark.fault("images-damaged")
def test_at_most_twenty_offenders_are_listed(write):
    source = open_source(write("bad.zip", {f"{i:03}.png": b"x" for i in range(33)}))
    with pytest.raises(InvalidInputError, match="33 of 33") as error:
        source.read(np.arange(33))
    assert error.value.message.count(".png") == 20
    assert "and 13 more" in error.value.message


@pytest.mark.fault("images-damaged")
@pytest.mark.parametrize("name", ["set", "set.zip", "set.tgz", "set.parquet"])
def test_skip_records_rejects_and_changes_the_count(write, files, name):
    path = write(name, damaged_set(files))
    whole = open_source(path)
    source = open_source(path, on_bad="skip", max_bad=3, workers=2)
    good = [i for i in range(10) if i not in {4, 6, 8}]
    assert len(source) == 7
    assert len(source.rejected) == 3
    assert source.check() == ()
    batch = source.read(np.arange(7))
    assert torch.equal(batch.images, whole.read(np.array(good)).images)
    np.testing.assert_array_equal(batch.labels, whole.read(np.array(good)).labels)
    assert [source.name_of(i) for i in range(7)] == [whole.name_of(i) for i in good]
    assert dict(source.spec.params) == {"count": 7, "rejected": 3}
    assert whole.spec.digest() != source.spec.digest()


def test_skip_refuses_more_than_max_bad(write, files):
    path = write("set", damaged_set(files))
    with pytest.raises(InvalidInputError, match="3 of 10"):
        open_source(path, on_bad="skip", max_bad=2)
    with pytest.raises(NothingMeasuredError):
        open_source(write("all-bad", {"a.png": b"x"}), on_bad="skip", max_bad=1)


@pytest.mark.parametrize("arguments", [{"on_bad": "ignore"}, {"max_bad": 3}, {"workers": 0}])
def test_contradicting_arguments_are_usage_errors(write, files, arguments):
    with pytest.raises(UsageError):
        open_source(write("set", files), **arguments)


def test_missing_unknown_and_empty_paths(tmp_path):
    with pytest.raises(UsageError, match="does not exist") as error:
        open_source(tmp_path / "nothing")
    assert all(FORMATS[name].accepts in error.value.hint for name in FORMATS)
    (tmp_path / "set.rar").write_bytes(b"Rar!" * 10)
    with pytest.raises(UsageError, match="not a known kind") as error:
        open_source(tmp_path / "set.rar")
    assert "zip" in error.value.hint
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="empty"):
        open_source(tmp_path / "set.zip")


@pytest.mark.fault("no-images")
@pytest.mark.parametrize("name", ["none", "none.zip", "none.tar", "none.tgz"])
def test_a_set_without_images_is_nothing_measured(write, name):
    with pytest.raises(NothingMeasuredError) as error:
        open_source(write(name, {"readme.txt": b"hello", "inner.zip": b"PK"}))
    assert error.value.exit_code == 5


@pytest.mark.parametrize("name", ["set.bin", "set.png"])
def test_the_kind_is_told_by_content(write, files, name):
    for kind in ("set.zip", "set.tar", "set.tgz", "set.parquet"):
        path = write(kind, files)
        assert len(open_source(path.rename(path.with_name(name)))) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in the file system")
def test_a_pipe_does_not_block(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither"):
        open_source(tmp_path / "pipe")
