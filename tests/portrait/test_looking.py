"""What is looked at: ranking, neighbours, strips, classes, curves and pictures, against what defines them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evalkit.cli.report import asked_for
from evalkit.console import Silent
from evalkit.extraction import interruption
from evalkit.numerics.neighbours import precision_recall_density_coverage
from evalkit.numerics.shares import wilson_proportion
from evalkit.pages.report_facts import Gallery, Matches, Paragraph, Pictures, TableBlock
from evalkit.portrait import Run, restored
from evalkit.portrait.classes import class_table, classes, has_classes
from evalkit.portrait.curves import curves, default_sizes, disagreement, distances
from evalkit.portrait.extremes import extremes, realism_text
from evalkit.portrait.neighbours import NEAREST, SAMPLES, neighbours, read_real, real_path
from evalkit.portrait.page_parts import Side
from evalkit.portrait.pictures import PAGE_BYTES, Album, Studio, reduced
from evalkit.portrait.ranking import Ranking, inside_balls, rank
from evalkit.portrait.request import PortraitRequest
from evalkit.portrait.sitter import Sitter, open_sitter
from evalkit.portrait.strips import STEPS, STRIPS, ends, strips, walk
from evalkit.portrait.work import Work
from evalkit.seeding import balanced_labels

COUNT = 64


@pytest.fixture(scope="module")
def work() -> Work:
    return Work(torch.device("cpu"), Silent(), lambda: 0)


@pytest.fixture(scope="module")
def sitter(runs, work) -> Sitter:
    return sitting(runs, work, "cgan")


def sitting(runs, work, name: str) -> Sitter:
    record = runs.record(name)
    score = restored(record, asked_for(record), ckpt=None, model=None, device="cpu")
    return open_sitter(Run(record=record, score=score, state=runs.folder / "runs" / "state"), name, work)


def side_of(sitter: Sitter, work: Work) -> Side:
    return Side(
        sitter=sitter, album=work.album(sitter.subject.source), studio=Studio(300), ranking=rank(sitter, None)
    )


@pytest.fixture(scope="module")
def side(sitter, work) -> Side:
    return side_of(sitter, work)


def recorded(sitter: Sitter, metric: str) -> float:
    return next(r.value for r in sitter.record.results if r.metric.startswith(metric))


def pixels_of(picture) -> np.ndarray:
    content = base64.b64decode(picture.data.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def same(pixels: np.ndarray, image: torch.Tensor) -> bool:
    """Whether two images are one but for float32 rounding, which depends on the size of the batch."""
    return np.abs(pixels.astype(int) - image.permute(1, 2, 0).numpy().astype(int)).max() <= 1


def test_shares_are_the_scores_of_the_record(side, sitter):
    """Each sample's flag belongs to the very metric that was scored: their means are the scores."""
    assert side.ranking is not None
    assert side.ranking.inside.mean() == recorded(sitter, "precision")
    assert (side.ranking.realism >= 1).mean() == recorded(sitter, "realism")


@given(st.integers(0, 2**32 - 1))
def test_the_mean_of_the_flags_is_the_precision(seed):
    draws = np.random.default_rng(seed)
    ours, theirs = (draws.normal(size=(12, 3)).astype(np.float32) for _ in range(2))
    expected = precision_recall_density_coverage(ours, theirs, k=3).precision
    assert inside_balls(ours, theirs).mean() == expected


def test_worst_and_best_are_the_ends_of_one_order():
    ranking = Ranking(
        np.array([1.0, np.inf, 0.2, 1.0, 0.5]), np.zeros(5, dtype=bool), real=9, which="real images"
    )
    assert ranking.best(3).tolist() == [1, 0, 3]
    assert ranking.worst(2).tolist() == [2, 4]
    assert realism_text(np.inf) == "∞"


def test_without_a_bank_real_images_rank_and_without_those_nothing(sitter):
    bare = replace(sitter, statistics=None)
    assert rank(bare, None) is None
    assert rank(bare, sitter.bank[:3]) is None
    found = rank(bare, sitter.bank)
    assert found is not None
    assert found.which == "real images given"
    assert np.array_equal(found.realism, rank(sitter, None).realism)


def test_extremes_show_the_scored_images(side, sitter):
    said, worst, best = extremes(side)
    assert said.text.startswith("By the realism score R (Kynkäänniemi et al. 2019")
    assert len(worst.pictures) == len(best.pictures) == 16
    first = int(side.ranking.worst(1)[0])
    assert worst.pictures[0].alt == f"sample {first}, {side.label(first)}"
    assert same(pixels_of(worst.pictures[0]), sitter.subject.source.read(np.array([first])).images[0])


def test_not_ranked_says_why(side):
    (said,) = extremes(replace(side, ranking=None, unranked="no features."))
    assert said.text == "Not ranked: no features."


def test_a_reference_of_images_is_searched_without_being_named(runs, sitter):
    request = PortraitRequest(runs=(sitter.run,))
    assert real_path(request, sitter) == runs.real
    other = runs.folder / "other"
    assert real_path(replace(request, real=other), sitter) == other
    named = replace(sitter, run=replace(sitter.run, score=replace(sitter.request, reference="cifar10")))
    assert real_path(request, named) is None


def test_nearest_images_are_the_nearest(runs, sitter, side, work):
    real = read_real(runs.real, PortraitRequest(runs=(sitter.run,)), sitter, work)
    *_, closest, first = neighbours(side, real)
    assert isinstance(closest, Matches)
    assert len(closest.rows) == len(first.rows) == SAMPLES
    distance = np.linalg.norm(
        sitter.features[:, None].astype(np.float64) - real.features[None].astype(np.float64), axis=2
    )
    for number, row in enumerate(first.rows):
        expected = np.argsort(distance[number], kind="stable")[:NEAREST]
        assert [picture.alt.partition(":")[0] for picture in row.real] == [
            f"real image {i}" for i in expected
        ]
    nearest = np.argsort(distance.min(axis=1), kind="stable")[:SAMPLES]
    assert [row.sample.caption.split()[0] for row in closest.rows] == [f"#{i}" for i in nearest]
    shown = real.source.read(np.array([int(np.argmin(distance[0]))])).images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels_of(first.rows[0].real[0]), shown)


def test_a_copy_is_called_one(runs, sitter, side, work):
    real = read_real(runs.real, PortraitRequest(runs=(sitter.run,)), sitter, work)
    features = real.features.copy()
    features[5] = sitter.features[9]
    _, said, closest, _ = neighbours(side, replace(real, features=features))
    assert closest.rows[0].sample.caption.startswith("#9 ")
    assert closest.rows[0].note == "its features equal the real image's"
    assert "1 has exactly" in said.text
    assert {row.note for row in closest.rows[1:]} == {"as near as the closest 1 % of real images"}


def test_without_real_images_the_flag_is_named(side):
    (said,) = neighbours(side, None)
    assert isinstance(said, Paragraph)
    assert "--real PATH" in said.text


def test_a_strip_begins_and_ends_at_scored_samples(sitter):
    generator = sitter.subject.generator
    for start, end in ends(0, generator.num_classes):
        images = walk(generator, 0, start, end)
        assert len(images) == STEPS
        first, last = sitter.subject.source.read(np.array([start, end])).images
        assert same(images[0], first)
        assert same(images[-1], last)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_both_ends_of_a_strip_have_one_class(seed, count):
    labels = balanced_labels(seed, np.arange(2 * count + STRIPS, dtype=np.int64), count)
    found = ends(seed, count)
    assert len(found) == STRIPS
    assert all(a < b and labels[a] == labels[b] for a, b in found)


def test_strips_of_a_model_without_latents(side):
    assert isinstance(strips(side)[1], Pictures)
    blind = replace(side.sitter.subject, generator=SimpleNamespace())
    (said,) = strips(replace(side, sitter=replace(side.sitter, subject=blind)))
    assert "no latent space" in said.text
    (said,) = strips(replace(side, sitter=replace(side.sitter, subject=replace(blind, generator=None))))
    assert "no latent space" in said.text


def test_classes_split_the_scores(side, sitter):
    table = class_table(side, side.ranking, sitter.labels)
    counts = [int(row[1].text) for row in table.rows]
    shares = [float(row[2].text.split()[0]) for row in table.rows]
    assert sum(counts) == COUNT
    whole = sum(n * share for n, share in zip(counts, shares, strict=True)) / COUNT
    assert whole == pytest.approx(recorded(sitter, "precision"), abs=0.005)
    *_, gallery = classes(side)
    assert isinstance(gallery, Gallery)
    assert [group.title for group in gallery.groups] == [row[0].text for row in table.rows]
    for label, group in enumerate(gallery.groups):
        index = np.flatnonzero(sitter.labels == label)
        assert [p.alt.split(",")[0] for p in group.pictures] == [f"sample {i}" for i in index[:8]]


def test_many_classes_are_cut_to_the_worst(side):
    labels = np.arange(COUNT, dtype=np.int64)
    table = class_table(side, side.ranking, labels)
    assert len(table.rows) == 40
    assert "40 classes of lowest precision of 64" in table.title
    crowded = replace(side, sitter=replace(side.sitter, labels=labels))
    assert "10 of 64 classes" in classes(crowded)[-1].text


def test_scored_accuracy_stands_beside_its_class(side, sitter):
    first = replace(sitter.record.results[0], metric="cifar10-accuracy", details={"class 0": 0.5})
    run = replace(sitter.run, record=replace(sitter.record, results=(first,)))
    scored = replace(side, sitter=replace(sitter, run=run))
    table = class_table(scored, side.ranking, sitter.labels)
    assert table.columns[-1].title == "accuracy ↑ [95 %]"
    inside = int((sitter.labels == 0).sum())
    share = wilson_proportion(round(0.5 * inside), inside)
    assert [row[-1].text for row in table.rows][:2] == [f"0.50 [{share.low:.2f}, {share.high:.2f}]", "—"]


def test_a_model_without_classes(runs, work):
    plain = side_of(sitting(runs, work, "vae"), work)
    assert not has_classes(plain)
    assert [block.text for block in classes(plain)] == ["The model takes no class."]


def test_classes_without_a_ranking(side):
    said, gallery = classes(replace(side, ranking=None, unranked="why"))
    assert said.text == "No shares by class: why"
    assert not isinstance(gallery, TableBlock)


def test_a_curve_ends_at_the_score_of_the_record(sitter):
    lines = curves(sitter, (16, 32))
    assert [line.label for line in lines] == [f"{name}:pixels" for name in ("kd", "fd")]
    for line in lines:
        assert [point.x for point in line.points] == [16, 32, COUNT]
        result = next(r for r in sitter.record.results if r.metric == line.label)
        assert line.points[-1].score.value == result.value
        assert line.points[-1].score.stderr == result.se
    assert disagreement(sitter, lines) == ""


def test_images_that_are_not_quite_the_same_are_told(sitter):
    moved = replace(sitter, features=sitter.features + np.float32(0.01))
    assert "not quite those that were scored" in disagreement(moved, curves(moved, (32,)))


@pytest.mark.parametrize(
    ("count", "sizes"), [(1024, [128, 256, 512, 1024]), (64, [32, 64]), (40, [40]), (100, [50, 100])]
)
def test_default_sizes_are_halves(count, sizes):
    assert default_sizes(count) == sizes


def test_no_curve_where_none_is_asked_or_possible(sitter):
    assert curves(sitter, ()) == []
    assert curves(replace(sitter, statistics=None), None) == []
    assert [planned.metric.name for planned in distances(sitter)] == ["kd", "fd"]


@pytest.mark.parametrize("side", [8, 64, 65, 500])
def test_small_pictures_are_exact_and_large_ones_smaller(side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture = Studio(10).picture(image, alt="x")
    assert (picture.width, picture.height) == (min(side, 128),) * 2
    if side <= 64:
        assert np.array_equal(pixels_of(picture), image)


def test_a_page_is_bounded():
    """Noise is the worst case: no codec shrinks it."""
    studio = Studio(400)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert 400 * len(studio.picture(image, alt="x").data) <= PAGE_BYTES


def test_pictures_keep_their_shape():
    assert reduced(torch.zeros(3, 300, 150, dtype=torch.uint8)).shape == (128, 64, 3)
    picture = Studio(1).picture(np.zeros((20, 40, 3), dtype=np.uint8), alt="x")
    assert (picture.width, picture.height) == (40, 20)


def test_an_album_reads_each_image_once(sitter):
    read: list[int] = []

    class Counted:
        def read(self, index):
            read.extend(index.tolist())
            return sitter.subject.source.read(index)

    album = Album(Counted(), stop=lambda: 0, interruption=interruption)
    one, two, three = album.pixels([3, 1, 3])
    album.pixels([1])
    assert sorted(read) == [1, 3]
    assert np.array_equal(one, three)
    assert not np.array_equal(one, two)


def test_an_album_stops_when_told(sitter):
    album = Album(sitter.subject.source, stop=lambda: 2, interruption=interruption)
    with pytest.raises(Exception, match="stopped by a signal") as caught:
        album.pixels([0])
    assert caught.value.exit_code == 130
