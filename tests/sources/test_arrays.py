"""Arrays: shapes told unambiguously, uint8 only, no pickle, mapped where possible."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest
import torch

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.sources import open_source


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def write(*arrays, packed=False, **named):
        path = tmp_path / "set.npz"
        (np.savez_compressed if packed else np.savez)(path, *arrays, **named)
        return path

    return write


def read_all(path):
    source = open_source(path, workers=3)
    return source.read(np.arange(len(source))).images.numpy()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_channels_last_and_first(save, images, packed, order):
    expected = images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(read_all(save(np.asarray(images, order=order), packed=packed)), expected)
    np.testing.assert_array_equal(read_all(save(np.asarray(expected, order=order), packed=packed)), expected)


def test_npy_is_mapped_and_results_are_writable_copies(tmp_path, images):
    np.save(tmp_path / "set.npy", images)
    source = open_source(tmp_path / "set.npy")
    assert isinstance(source._images, np.memmap)
    batch = source.read(np.array([3, 3, 0]))
    assert batch.images.is_contiguous()
    batch.images.zero_()
    np.testing.assert_array_equal(read_all(tmp_path / "set.npy"), images.transpose(0, 3, 1, 2))
    assert source.spec.name == "npy"
    assert (source.class_names, source.rejected, source.check()) == (None, (), ())
    assert source.usable(max_bad=0) is source
    assert source.name_of(3) == "image 3"


def test_stored_npz_is_mapped_and_a_packed_one_is_not(save, images):
    assert isinstance(open_source(save(images))._images, np.memmap)
    assert not isinstance(open_source(save(images, packed=True))._images, np.memmap)


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 5, 1), (7, 1, 6, 5)])
def test_grayscale_is_repeated(save, rng, shape):
    gray = rng.integers(0, 256, shape, dtype=np.uint8)
    read = read_all(save(gray))
    assert read.shape == (7, 3, 6, 5)
    for channel in range(3):
        np.testing.assert_array_equal(read[:, channel], gray.reshape(7, 6, 5))


@pytest.mark.parametrize(
    "shape", [(4, 3, 9, 3), (4, 3, 9, 1), (4, 9, 9, 4), (4, 9, 9, 2), (9, 9, 3), (9, 9), (2, 2, 9, 9, 3)]
)
def test_shapes_that_could_mean_two_things_or_nothing_are_refused(save, shape):
    with pytest.raises(InvalidInputError, match="shape"):
        open_source(save(np.zeros(shape, np.uint8)))


def test_named_arrays_and_labels(save, images):
    source = open_source(save(pictures=images, labels=np.arange(7, dtype=np.int32), mu=np.zeros(3)))
    batch = source.read(np.array([6, 2]))
    assert batch.labels.tolist() == [6, 2]
    assert batch.labels.dtype == np.int64
    assert open_source(save(images)).read(np.arange(7)).labels is None


@pytest.mark.parametrize(
    "labels", [np.zeros(6, np.int64), np.zeros(7), np.zeros((7, 2), int), -np.ones(7, int)]
)
def test_labels_that_do_not_fit_are_refused(save, images, labels):
    with pytest.raises(InvalidInputError, match="labels"):
        open_source(save(images, labels))


@pytest.mark.fault("float-images", "nan-pixels")
def test_float_arrays_are_refused_with_their_range(save, images):
    unit = images.astype(np.float32) / 255
    with pytest.raises(UsageError, match=r"float32 in 0\.\.1, not uint8") as error:
        open_source(save(unit))
    assert "quantise" in error.value.hint
    unit[3, 2, 1, 0] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        open_source(save(unit))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool])
def test_other_types_are_refused(save, images, dtype):
    with pytest.raises(UsageError, match="not uint8"):
        open_source(save(images.astype(dtype)))


@pytest.mark.parametrize("packed", [False, True])
def test_object_arrays_are_refused_unread(save, tmp_path, packed):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    with pytest.raises(InvalidInputError, match="pickled objects"):
        open_source(save(np.array([Touch()], dtype=object), packed=packed))
    np.save(tmp_path / "set.npy", np.array([Touch()], dtype=object))
    with pytest.raises(InvalidInputError, match="pickled objects"):
        open_source(tmp_path / "set.npy")
    assert not (tmp_path / "touched").exists()


def test_statistics_and_unclear_archives_are_refused(save, images):
    with pytest.raises(InvalidInputError, match="statistics") as error:
        open_source(save(mu=np.zeros(3), sigma=np.eye(3)))
    assert "reference" in error.value.hint
    with pytest.raises(InvalidInputError, match="clearly"):
        open_source(save(a=images, b=images))


def test_no_images_in_an_array_is_nothing_measured(save):
    with pytest.raises(NothingMeasuredError):
        open_source(save(np.zeros((0, 8, 8, 3), np.uint8)))


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_arrays_are_refused(save, tmp_path, images, packed):
    path = save(images, packed=packed)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInputError):
        open_source(path)
    np.save(tmp_path / "set.npy", images)
    whole = (tmp_path / "set.npy").read_bytes()
    for length in (7, 40, len(whole) - 1):
        (tmp_path / "set.npy").write_bytes(whole[:length])
        with pytest.raises(InvalidInputError):
            open_source(tmp_path / "set.npy")


def test_corrupt_packed_array_is_found(save, images):
    path = save(images, packed=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidInputError):
        open_source(path)


def test_npz_bomb_is_refused_by_its_directory(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, np.zeros((1, 8, 8, 3), np.uint8))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size
    central = data.index(b"PK\x01\x02")
    path.write_bytes(data[:central] + data[central:].replace(size.to_bytes(4, "little"), b"\0\0\0\x7f"))
    start = time.perf_counter()
    with pytest.raises(InvalidInputError, match="bomb"):
        open_source(path)
    assert time.perf_counter() - start < 1


def test_indices_and_spec(save, images):
    source = open_source(save(images))
    with pytest.raises(IndexError):
        source.read(np.array([7]))
    spec = source.spec
    assert (spec.name, dict(spec.params)) == ("npz", {"count": 7})
    images[0, 0, 0, 0] ^= 1
    assert open_source(save(images)).spec.sha256 != spec.sha256
    assert torch.is_tensor(source.read(np.array([], dtype=int)).images)
