"""The next batch is read while the network works: same images, same errors, two batches at most."""

from __future__ import annotations

import signal
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.core import ImageBatch
from evalkit.errors import InvalidInputError
from evalkit.extraction import Interrupted, Job, extract
from evalkit.extractors import build_extractor
from evalkit.generators.toy import GaussianTiles
from evalkit.lanes import Lane
from evalkit.shards import ShardLayout, ShardStore
from evalkit.sources import open_source
from evalkit.sources.ahead import ReadAhead
from evalkit.sources.encoded import EncodedImages
from evalkit.sources.generated import GeneratedSource
from evalkit.sources.subset import SubsetSource

COUNT, SHARD = 128, 8
FIRST, SECOND, THIRD = (np.arange(start, start + 4) for start in (0, 4, 8))


@pytest.fixture
def folder(tmp_path, rng):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
    return root


@pytest.fixture
def reads(monkeypatch) -> list[tuple[list[int], str]]:
    """What is read from files, and by which thread."""
    noted: list[tuple[list[int], str]] = []
    plain = EncodedImages.read

    def read(self, index):
        noted.append((index.tolist(), threading.current_thread().name))
        return plain(self, index)

    monkeypatch.setattr(EncodedImages, "read", read)
    return noted


def run(source, store, *, batch_size=64, extractor=None, stop=lambda: 0):
    network = extractor or build_extractor("pixels")
    layout = ShardLayout(len(source))
    job = Job(
        lanes=(Lane.of_extractor(network, ("thumbnail",), ShardStore(store)),),
        layout=layout,
        batch_size=batch_size,
        device=torch.device("cpu"),
        source=source,
    )
    (done,) = extract(job, progress=lambda _n: None, stop=stop)
    return done


def features_in_turn(source) -> np.ndarray:
    images = source.read(np.arange(len(source))).images
    return build_extractor("pixels")(images, ["thumbnail"])["thumbnail"].numpy()


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_every_image_is_read_once_in_order_and_all_but_the_first_batch_ahead(
    folder, reads, tmp_path, batch_size
):
    source = open_source(folder)
    expected = features_in_turn(source)
    reads.clear()
    np.testing.assert_array_equal(
        run(source, tmp_path / "state", batch_size=batch_size).features("thumbnail"), expected
    )
    assert [i for index, _ in reads for i in index] == list(range(COUNT))
    assert reads[0][1] == threading.current_thread().name
    assert all(thread.startswith("evalkit-read") for _, thread in reads[1:])
    assert len(reads) == COUNT // SHARD * -(-SHARD // min(batch_size, SHARD))


def test_a_whole_shard_is_not_read_again_and_a_damaged_one_is(folder, reads, tmp_path):
    source, state = open_source(folder), tmp_path / "state"
    expected = run(source, state).features("thumbnail")
    for shard in (3, 4, 9):
        (path,) = state.glob(f"{shard:06d}-*.safetensors")
        path.write_bytes(path.read_bytes()[:-1] + b"?") if shard == 4 else path.unlink()
    reads.clear()
    done = run(source, state)
    np.testing.assert_array_equal(done.features("thumbnail"), expected)
    assert [index[0] // SHARD for index, _ in reads] == [3, 4, 9]
    assert done.reused == COUNT - 3 * SHARD
    assert len(done.warnings) == 1


def test_at_most_two_batches_exist(folder, tmp_path, monkeypatch):
    alive: set[weakref.ref] = set()
    most, lock, plain = [0], threading.Lock(), EncodedImages.read

    def read(self, index):
        batch = plain(self, index)
        with lock:
            alive.add(weakref.ref(batch.images, alive.discard))
            most.append(len(alive))
        return batch

    monkeypatch.setattr(EncodedImages, "read", read)
    run(open_source(folder), tmp_path / "state", batch_size=4)
    assert len(most) - 1 == COUNT // 4
    assert max(most) == 2
    assert not alive


def test_an_error_is_raised_when_its_own_batch_is_due(folder, tmp_path):
    (folder / "042.png").write_bytes(b"not an image")
    state, seen = tmp_path / "state", []
    pixels = build_extractor("pixels")

    class Seeing:
        spec, heads, published = pixels.spec, pixels.heads, True

        def __call__(self, images, heads):
            seen.append(len(images))
            return pixels(images, heads)

    with pytest.raises(InvalidInputError, match=r"1 of 8 images cannot be used:\n  '042.png'"):
        run(open_source(folder), state, extractor=Seeing())
    assert seen == [SHARD] * (42 // SHARD)
    assert len(list(state.glob("*.safetensors"))) == 42 // SHARD


def test_an_interruption_keeps_whole_shards_and_leaves_no_thread(folder, tmp_path):
    source, before, calls = open_source(folder), threading.active_count(), []

    def stop() -> int:
        calls.append(threading.active_count())
        return signal.SIGTERM if len(calls) == 5 else 0

    with pytest.raises(Interrupted) as stopped:
        run(source, tmp_path / "state", batch_size=4, stop=stop)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert len(list((tmp_path / "state").glob("*.safetensors"))) == 2
    assert max(calls) > before, "nothing was read ahead"
    assert threading.active_count() == before
    done = run(source, tmp_path / "state", batch_size=4)
    assert done.reused == 2 * SHARD
    np.testing.assert_array_equal(done.features("thumbnail"), features_in_turn(source))


@pytest.mark.fault("out-of-memory")
def test_running_out_of_memory_reads_again_in_halves(folder, reads, tmp_path):
    pixels = build_extractor("pixels")

    class Small:
        spec, heads, published = pixels.spec, pixels.heads, True

        def __call__(self, images, heads):
            if len(images) > 2:
                raise torch.OutOfMemoryError("no")
            return pixels(images, heads)

    source = open_source(folder)
    expected = features_in_turn(source)
    done = run(source, tmp_path / "state", extractor=Small())
    np.testing.assert_array_equal(done.features("thumbnail"), expected)
    assert [shard.facts["out_of_memory_batch"] for shard in done.shards] == [2] * 16


def test_what_is_not_asked_for_is_dropped(folder, reads):
    with ReadAhead(open_source(folder)) as images:
        images.read(FIRST, then=SECOND)
        other = images.read(THIRD, then=FIRST)
        again = images.read(FIRST)
    np.testing.assert_array_equal(other.images.index, THIRD)
    np.testing.assert_array_equal(again.images.index, FIRST)
    assert [index[0] for index, _ in reads if index[0] != SECOND[0]] == [0, 8, 0]
    assert again.seconds > 0.0


def test_an_error_ahead_is_forgotten_with_its_batch(folder):
    (folder / "005.png").write_bytes(b"")
    with ReadAhead(open_source(folder)) as images:
        images.read(FIRST, then=SECOND)
        np.testing.assert_array_equal(images.read(THIRD, then=SECOND).images.index, THIRD)
        with pytest.raises(InvalidInputError, match="empty"):
            images.read(SECOND)


@pytest.mark.parametrize("wrap", [lambda source: source, lambda source: SubsetSource(source, 12)])
def test_a_generator_is_never_asked_ahead_and_its_device_is_waited_for(wrap):
    threads, finished = [], []

    class Noting(GaussianTiles):
        def generate(self, seeds, *, labels=None):
            threads.append(threading.current_thread())
            return super().generate(seeds, labels=labels)

    source = wrap(GeneratedSource(Noting(), 16))
    with ReadAhead(source, finished=lambda: finished.append(len(threads))) as images:
        for index, then in ((FIRST, SECOND), (SECOND, THIRD), (THIRD, None)):
            batch = images.read(index, then=then).images
            assert isinstance(batch, ImageBatch)
            np.testing.assert_array_equal(batch.index, index)
    assert threads == [threading.current_thread()] * 3
    assert finished == [1, 2, 3]


@pytest.mark.parametrize("wrap", [lambda source: source, lambda source: SubsetSource(source, 12)])
def test_arrays_and_subsets_of_files_are_read_ahead(tmp_path, rng, wrap):
    np.savez(tmp_path / "a.npz", rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8))
    source = wrap(open_source(tmp_path / "a.npz"))
    with ReadAhead(source) as images:
        images.read(FIRST, then=SECOND)
        assert any(thread.name.startswith("evalkit-read") for thread in threading.enumerate())
        batch = images.read(SECOND).images
    assert torch.equal(batch.images, source.read(SECOND).images)
    assert not any(thread.name.startswith("evalkit-read") for thread in threading.enumerate())
