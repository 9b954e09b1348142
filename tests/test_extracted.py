"""Features stay in the files of their shards: what is read, what is held, and what if they are gone."""

from __future__ import annotations

import io
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.core import FeatureSet
from evalkit.costing.laws import Size
from evalkit.costing.numerics_probe import MadeUp
from evalkit.errors import TemporaryError
from evalkit.extracted import Extracted, ShardBlocks
from evalkit.extraction import Job, extract
from evalkit.measurement import Materials, measure
from evalkit.metrics import METRICS, compute_all
from evalkit.plan import Network, Plan, Planned
from evalkit.protocol import PROTOCOLS
from evalkit.shards import ShardLayout, ShardResult, ShardStore
from evalkit.spec import Spec
from evalkit.stored_features import StoredFeatures

WIDTH = 64
ROWS = Network("rows")


class Rows:
    """A probe, and by its spec an extractor: every row depends on its index alone."""

    spec, heads, published = Spec.of("extractor", "rows"), {"features": WIDTH}, False

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.waves = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) * np.float32(0.2)

    def __call__(self, index, heads):
        numbers = np.arange(1, WIDTH + 1, dtype=np.float64)
        rows = np.sin(np.outer(index + 1, np.sqrt(numbers) * 7.1)).astype(np.float32)
        return dict.fromkeys(heads, rows @ self.waves)


class Real:
    """A reference with the moments of a normal distribution."""

    sha256, about = "0" * 64, None

    def head(self, _name, *, dimension):
        return MadeUp(Size(n=2, m=500, d=dimension), seed=3)


def extracted(count, state):
    job = Job.of_probe(
        Rows(), heads=("features",), count=count, state=state, device=torch.device("cpu"), batch_size=512
    )
    (done,) = extract(job, progress=lambda _n: None, stop=lambda: 0)
    return done


def plan_of(*names):
    metrics = tuple(Planned(METRICS[name](), "features", ROWS) for name in names)
    return Plan(preset=PROTOCOLS["pixels"], metrics=metrics)


def scores(done, *names, drawn=True):
    materials = Materials(
        extractors={ROWS: Rows()}, drawn=drawn, lanes={ROWS: done}, references={ROWS: Real()}
    )
    return measure(plan_of(*names), materials, {}, notify=pytest.fail)


def shards_of(count, *, width=3, store=None):
    """Some shards with labels, in files where there is a store; and all rows."""
    layout, done, rng = ShardLayout(count), Extracted(ShardLayout(count)), np.random.default_rng(1)
    for shard in range(layout.shards):
        index = layout.indices(shard)
        rows = rng.standard_normal((len(index), width)).astype(np.float32)
        result = ShardResult({"a": rows[:, :1].copy(), "b": rows}, {"labels": (index % 5).tolist()})
        done.add(result if store is None else replace(result, path=store.write(shard, result)))
    return done


def eager(done, *, contiguous, texts):
    features, labels, parts = done.features("b"), done.labels(), done.blocks(contiguous=contiguous)
    return FeatureSet(
        *(tuple(rows[part] for part in parts) for rows in (features, labels, texts)),
    )


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("in_files", [True, False])
def test_lazy_features_are_the_eager_ones(tmp_path, contiguous, in_files):
    count = 203
    done = shards_of(count, store=ShardStore(tmp_path) if in_files else None)
    assert all(isinstance(shard.features, StoredFeatures) == in_files for shard in done.shards)
    texts = np.random.default_rng(2).standard_normal((count, 3)).astype(np.float32)
    lazy = done.in_blocks("b", contiguous=contiguous, texts=texts)
    plain = eager(done, contiguous=contiguous, texts=texts)
    assert isinstance(lazy.blocks, ShardBlocks)
    assert (lazy.count, lazy.sizes) == (plain.count, plain.sizes) == (count, lazy.sizes)
    for ours, theirs in ((lazy.blocks, plain.blocks), (lazy.labels, plain.labels), (lazy.texts, plain.texts)):
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
    np.testing.assert_array_equal(np.concatenate(list(lazy.pieces())), plain.stacked())
    np.testing.assert_array_equal(lazy.stacked(), plain.stacked())
    assert all(np.shares_memory(block, lazy.stacked()) for block in lazy.in_memory())
    for one, two in zip(
        *(
            compute_all(
                [(METRICS["intra-fd"](), side, _ByClass()), (METRICS["fd"](), side, _ByClass())],
                rng=lambda: np.random.default_rng(0),
            )
            for side in (done.in_blocks("b", contiguous=contiguous), plain)
        ),
        strict=True,
    ):
        assert one == two


class _ByClass(MadeUp):
    def __init__(self) -> None:
        super().__init__(Size(n=2, m=50, d=3), seed=4)

    @property
    def groups(self):
        return dict.fromkeys(range(5), self)


def test_blocks_that_are_whole_can_be_read_while_images_come(tmp_path):
    whole = shards_of(203, store=ShardStore(tmp_path))
    so_far = Extracted(whole.layout, shards=whole.shards[:7])
    blocks = so_far.in_blocks("a", contiguous=True).blocks
    expected = whole.in_blocks("a", contiguous=True).blocks[: len(blocks)]
    assert 0 < len(blocks) < len(whole.layout.blocks())
    for left, right in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_pass_over_the_blocks_asks_for_each_row_once(tmp_path, monkeypatch):
    """Blocks of files take some rows of every shard; a second pass asks again, unless all are held."""
    done = shards_of(2048, width=50, store=ShardStore(tmp_path))
    read = Counter()
    plain = StoredFeatures.rows

    def rows(self, head, chosen):
        read[head] += len(chosen)
        return plain(self, head, chosen)

    monkeypatch.setattr(StoredFeatures, "rows", rows)
    features = done.in_blocks("b", contiguous=False)
    assert sum(map(len, features.blocks)) == 2048
    assert read == {"b": 2048}
    features.stacked()
    METRICS["vendi"]().compute(features, None, rng=np.random.default_rng(0))
    assert read == {"b": 4096}


@given(
    rows=st.integers(1, 40),
    width=st.sampled_from([1, 7, 3000]),
    chosen=st.sets(st.integers(0, 39), max_size=40),
)
def test_any_rows_of_any_head_can_be_read(tmp_path_factory, rows, width, chosen):
    """3000 columns are read row by row, few in one go with what lies between."""
    features = {
        "x": np.arange(rows * width, dtype=np.float32).reshape(rows, width),
        "é": np.ones((rows, 2), np.float32),
        "none": np.ones((0, 2), np.float32),
    }
    path = ShardStore(tmp_path_factory.mktemp("rows")).write(0, ShardResult(features, {"a": "ü" * 9}))
    stored = StoredFeatures(path)
    assert set(stored) == set(features)
    assert len(stored) == 3
    for head, expected in features.items():
        assert stored.shape(head) == expected.shape
        np.testing.assert_array_equal(stored[head], expected)
    index = np.array(sorted(row for row in chosen if row < rows), dtype=np.int64)
    np.testing.assert_array_equal(stored.rows("x", index), features["x"][index])
    with pytest.raises(KeyError):
        stored["y"]


@pytest.mark.parametrize("fault", ["gone", "shorter", "empty"])
def test_a_file_that_is_gone_is_an_error_that_says_what_to_do(tmp_path, fault):
    done = shards_of(64, store=ShardStore(tmp_path))
    features = done.in_blocks("b", contiguous=True)
    path = done.shards[3].path
    content = path.read_bytes()
    path.unlink() if fault == "gone" else path.write_bytes(
        content[: len(content) // 2 if fault == "shorter" else 0]
    )
    with pytest.raises(TemporaryError, match=f"features in {path.name} are gone") as caught:
        features.stacked()
    assert caught.value.exit_code == 75
    assert "run the same command again" in caught.value.hint
    if fault != "shorter":
        with pytest.raises(TemporaryError, match="are gone"):
            ShardResult({}, {}, path).left_in_file()


def test_a_shard_that_another_run_replaces_for_more_heads_is_followed(tmp_path):
    store = ShardStore(tmp_path)
    done = shards_of(64, store=store)
    expected = done.features("b")
    for shard, result in enumerate(done.shards):
        more = {**result.features, "c": np.ones((len(result.features["a"]), 2), np.float32)}
        store.write(shard, ShardResult(more, result.facts))
        assert not result.path.exists()
    np.testing.assert_array_equal(done.features("b"), expected)


def test_a_system_may_give_less_at_once_than_is_asked_for(tmp_path, monkeypatch):
    done = shards_of(64, store=ShardStore(tmp_path))
    expected = done.features("b")

    class Slow(io.FileIO):
        def readinto(self, view):
            return super().readinto(view[:5])

    monkeypatch.setattr(type(tmp_path), "open", lambda path, *_mode, **_options: Slow(path))
    np.testing.assert_array_equal(done.features("b"), expected)


def test_a_damaged_file_is_not_followed(tmp_path):
    store = ShardStore(tmp_path)
    done = shards_of(64, store=store)
    path = done.shards[3].path
    damaged = path.with_name(path.name.replace("-", "-0", 1)[: len(path.stem)] + path.suffix)
    path.rename(damaged)
    with pytest.raises(TemporaryError, match="are gone"):
        done.features("b")


def test_blocks_of_shards_that_have_not_come_are_refused(tmp_path):
    done = shards_of(64, store=ShardStore(tmp_path))
    parts = done.blocks(contiguous=False)
    with pytest.raises(ValueError, match="56 of 64 rows are there"):
        ShardBlocks(done.shards[:-1], "b", parts).stacked()


def test_a_run_whose_shards_vanish_while_it_scores_is_told_so(tmp_path):
    done = extracted(256, tmp_path)
    before = scores(done, "fd", "kd")
    for shard in done.shards:
        shard.path.unlink()
    with pytest.raises(TemporaryError, match="are gone"):
        scores(done, "fd")
    (fd, kd), again = before, scores(extracted(256, tmp_path), "fd", "kd")
    assert [fd.value, kd.value] == [result.value for result in again]


@pytest.mark.parametrize("drawn", [True, False])
def test_memory_of_a_frechet_distance_does_not_grow_with_the_images(tmp_path, drawn):
    """Of 49 152 images more: 12.6 MB of features, which were held three times; 100 bytes each are allowed."""
    peaks, few, many = [], 16_384, 65_536
    for count in (few, many):
        extracted(count, tmp_path)
        tracemalloc.start()
        try:
            (score,) = scores(extracted(count, tmp_path), "fd", drawn=drawn)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert score.n_gen == count
    assert peaks[1] - peaks[0] < 100 * (many - few)
