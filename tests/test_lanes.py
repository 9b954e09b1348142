"""One pass over the images whatever is measured on them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import evalkit
from evalkit.core import ImageBatch
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.extraction import Job, extract
from evalkit.extractors import build_extractor
from evalkit.generators.toy import GaussianTiles
from evalkit.lanes import Lane
from evalkit.prompts import read_prompts
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.shards import ShardLayout, ShardStore
from evalkit.sources import open_source
from evalkit.sources.generated import GeneratedSource
from evalkit.sources.subset import SubsetSource
from evalkit.spec import Spec

CPU = torch.device("cpu")


class Counting:
    """An extractor that counts its calls and the images it saw."""

    def __init__(self, name: str, heads: tuple[str, ...]) -> None:
        self.inner = build_extractor("pixels")
        self.spec = Spec.of("extractor", name)
        self.heads = dict.fromkeys(heads, self.inner.heads["thumbnail"])
        self.published = True
        self.calls = Counter[str]()

    def __call__(self, images, heads):
        self.calls["calls"] += 1
        self.calls["images"] += len(images)
        features = self.inner(images, ["thumbnail"])["thumbnail"]
        return dict.fromkeys(heads, features)


class CountingSource:
    """A source that counts its reads."""

    def __init__(self, count: int, labels: bool) -> None:
        self.inner = GeneratedSource(GaussianTiles(), count)
        self.spec, self.labels, self.reads = self.inner.spec, labels, Counter[int]()

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, index):
        self.reads.update(index.tolist())
        labels = index % 3 if self.labels else None
        return ImageBatch(images=self.inner.read(index).images, index=index, labels=labels)


def job(source, extractors, folder, **changes):
    lanes = tuple(
        Lane.of_extractor(network, tuple(network.heads), ShardStore(folder / network.spec.name))
        for network in extractors
    )
    settings = {
        "lanes": lanes, "layout": ShardLayout(len(source)), "batch_size": 8, "device": CPU, "source": source
    }  # fmt: skip
    return Job(**{**settings, **changes})


def go(work):
    return extract(work, progress=lambda _n: None, stop=lambda: 0)


def test_every_image_is_read_once_and_every_network_runs_once_on_it(tmp_path):
    source = CountingSource(100, labels=True)
    networks = [Counting("a", ("x", "y")), Counting("b", ("x",))]
    first, second = go(job(source, networks, tmp_path))
    assert set(source.reads.values()) == {1}
    assert len(source.reads) == 100
    for network in networks:
        assert network.calls == {"calls": 13, "images": 100}
    np.testing.assert_array_equal(first.features("x"), second.features("x"))
    np.testing.assert_array_equal(first.labels(), np.arange(100) % 3)


def test_a_network_that_joins_later_computes_only_its_own(tmp_path):
    source, old, new = CountingSource(64, labels=False), Counting("a", ("x",)), Counting("b", ("x",))
    go(job(source, [old], tmp_path))
    kept, added = go(job(source, [old, new], tmp_path))
    assert old.calls["images"] == new.calls["images"] == 64
    assert (kept.reused, added.reused) == (64, 0)


def test_shards_without_labels_are_not_enough_where_labels_are_read(tmp_path):
    source = CountingSource(64, labels=True)
    network = Counting("a", ("x",))
    work = job(source, [network], tmp_path)
    (extracted,) = go(work)
    store = work.lanes[0].store
    for shard, result in enumerate(extracted.shards):  # as an older release wrote them
        facts = {key: value for key, value in result.facts.items() if key != "labels"}
        store.write(shard, type(result)(result.features, facts))
    assert go(work)[0].reused == 64
    (again,) = go(job(source, [network], tmp_path, needs_labels=True))
    assert again.reused == 0
    np.testing.assert_array_equal(again.labels(), np.arange(64) % 3)


def test_blocks_carry_labels_and_texts_of_their_images(tmp_path):
    (extracted,) = go(job(CountingSource(100, labels=True), [Counting("a", ("x",))], tmp_path))
    texts = np.arange(100, dtype=np.float32)[:, None]
    for contiguous in (True, False):
        blocks = extracted.in_blocks("x", contiguous=contiguous, texts=texts)
        order = np.concatenate([part[:, 0] for part in blocks.texts]).astype(int)
        assert sorted(order) == list(range(100))
        np.testing.assert_array_equal(np.concatenate(blocks.labels), order % 3)
        np.testing.assert_array_equal(blocks.stacked(), extracted.features("x")[order])


class Squares:
    """A probe with two heads."""

    spec = Spec.of("probe", "squares")
    heads = {"square": 1, "cube": 1}  # noqa: RUF012

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, index, heads):
        self.seen += index.tolist()
        return {head: (index[:, None] ** {"square": 2, "cube": 3}[head]).astype(np.float32) for head in heads}


def test_a_probe_goes_through_the_same_shards(tmp_path):
    probe = Squares()
    work = Job.of_probe(probe, heads=("square",), count=50, state=tmp_path, device=CPU, batch_size=4)
    (extracted,) = go(work)
    np.testing.assert_array_equal(extracted.features("square")[:, 0], np.arange(50.0) ** 2)
    assert extracted.image_size() is None
    assert extracted.labels() is None
    assert go(work)[0].reused == 50
    assert len(probe.seen) == 50


@pytest.mark.fault("out-of-memory")
def test_out_of_memory_halves_the_batch_and_keeps_the_result(tmp_path, monkeypatch):
    class Small(Counting):
        def __call__(self, images, heads):
            if len(images) > 2:
                raise torch.OutOfMemoryError
            return super().__call__(images, heads)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    source = CountingSource(40, labels=False)
    (small,) = go(job(source, [Small("a", ("x",))], tmp_path / "small"))
    (whole,) = go(job(source, [Counting("a", ("x",))], tmp_path / "whole"))
    np.testing.assert_array_equal(small.features("x"), whole.features("x"))
    assert small.shards[0].facts["out_of_memory_batch"] == 2

    class Full(Counting):
        def __call__(self, images, heads):
            raise torch.OutOfMemoryError

    with pytest.raises(TemporaryError, match="one image does not fit"):
        go(job(source, [Full("a", ("x",))], tmp_path / "full"))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("lanes") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


def test_a_score_on_two_extractors_is_the_two_scores(tmp_path, real):
    settings = {
        "model": "evalkit.generators.toy:make", "reference": real, "protocol": "pixels", "num_samples": 64,
        "out": tmp_path,
    }  # fmt: skip
    both = evalkit.score(metrics=["fd", "fd:efficientnet-lite0@logits"], **settings)
    values = {result.metric: result.value for result in both.results}
    for metric, label in (("fd", "fd:pixels"), ("fd:efficientnet-lite0@logits", "fd:efficientnet-lite0")):
        (alone,) = evalkit.score(metrics=[metric], **settings).results
        assert alone.metric == label
        assert alone.value == values[label]
    fields = both.protocol.fields
    assert fields["extractor"]["name"] == "pixels"
    other = next(metric for metric in fields["metrics"] if "extractor" in metric)
    assert other["extractor"]["name"] == "efficientnet-lite0"
    assert len(other["reference"]) == 64


def test_parameters_reach_the_metric_and_the_fingerprint(tmp_path, real):
    settings = {"images": real, "reference": real, "protocol": "pixels", "out": tmp_path, "metrics": ["is"]}
    plain, split = (evalkit.score(params=p, **settings) for p in ({}, {"is": {"splits": 3}}))
    assert plain.results[0].value != split.results[0].value
    assert plain.protocol.fingerprint != split.protocol.fingerprint
    with pytest.raises(UsageError, match="has no parameter 'spits'"):
        evalkit.score(params={"is": {"spits": 3}}, **settings)


def test_prompts_follow_their_images(tmp_path, real):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"a tile number {i}\n" for i in range(300)), encoding="utf-8")
    source = open_source(real)
    assert read_prompts(path, source, found=300)[17] == "a tile number 17"
    subset = SubsetSource(source, 40, 3)
    chosen = subset.positions(np.arange(40))
    assert read_prompts(path, subset, found=300) == tuple(f"a tile number {i}" for i in chosen)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"one\n", "1 prompts for 300"), (b"\xff\xfe\n" * 300, "UTF-8"), (b"a\n\n" * 150, "line 2")],
)
def test_bad_prompts_are_refused(tmp_path, real, content, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_prompts(path, open_source(real), found=300)


def test_prompts_belong_to_images(tmp_path):
    with pytest.raises(UsageError, match="takes no prompts"):
        evalkit.score(model="ddpm", prompts=tmp_path / "x.txt", metrics=["fd"])
