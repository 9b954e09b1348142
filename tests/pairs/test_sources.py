"""Pairs as data: masks, sizes, digests, and manifests that point at what they should not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.errors import InvalidInputError, UsageError
from evalkit.pairs.opening import open_pairs, read_manifest
from evalkit.pairs.request import Measuring, PairsRequest
from evalkit.pairs.sources import read_mask


def gray(value: int | np.ndarray, size: tuple[int, int] = (2, 3)) -> torch.Tensor:
    return torch.as_tensor(np.broadcast_to(np.asarray(value, dtype=np.uint8), (3, *size)).copy())


def test_a_mask_is_inside_from_the_middle_of_its_range_on():
    levels = np.array([[0, 127, 128], [129, 255, 1]])
    mask = read_mask(gray(levels), size=(2, 3), name="m")
    assert mask.tolist() == [[[False, False, True], [True, True, False]]]
    assert not read_mask(gray(0), size=(2, 3), name="m").any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (gray(255, (3, 2)), "mask 'm' is 2 x 3, its image 3 x 2"),
        (gray(1), "the brightest pixel of mask 'm' is 1"),
        (torch.stack([gray(255)[0], gray(0)[0], gray(0)[0]]), "mask 'm' is coloured"),
    ],
)
def test_masks_that_cannot_be_meant(image, message):
    with pytest.raises(InvalidInputError, match=message):
        read_mask(image, size=(2, 3), name="m")


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def open_manifest(path: Path, *regions: str, allow_outside: bool = False):
    measuring = Measuring(regions=regions)
    return open_pairs(PairsRequest(manifest=path, measuring=measuring, allow_outside=allow_outside))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for name, size in (("a.png", (6, 5)), ("b.png", (6, 5)), ("c.png", (4, 8)), ("d.png", (4, 8))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    Image.new("L", (5, 6), 255).save(tmp_path / "m.png")
    return tmp_path


def test_pairs_of_several_sizes_come_in_groups(pictures):
    rows = [
        {"generated": "a.png", "reference": "b.png"},
        {"generated": "c.png", "reference": "d.png", "prompt": "p"},
        {"generated": "b.png", "reference": "b.png"},
    ]
    opened = open_manifest(write_rows(pictures / "m.jsonl", rows))
    batch = opened.pairs.read(np.arange(3))
    groups = [
        (positions.tolist(), tuple(ours.shape), tuple(theirs.shape), masks)
        for positions, ours, theirs, masks in batch.same_size_groups()
    ]
    assert groups == [
        ([0, 2], (2, 3, 6, 5), (2, 3, 6, 5), None),
        ([1], (1, 3, 4, 8), (1, 3, 4, 8), None),
    ]
    assert opened.pairs.names(1) == ("c.png", "d.png")
    assert opened.edits is None
    manifest = read_manifest(pictures / "m.jsonl", allow_outside=False)
    assert [row.prompt for row in manifest.rows] == [None, "p", None]
    assert manifest.take([2, 1]).rows == (manifest.rows[2], manifest.rows[1])


def test_masks_are_wanted_for_every_pair_or_none(pictures):
    rows = [
        {"generated": "a.png", "reference": "b.png", "mask": "m.png"},
        {"generated": "a.png", "reference": "b.png"},
    ]
    path = write_rows(pictures / "m.jsonl", rows)
    for regions in ((), ("inside",)):
        with pytest.raises(InvalidInputError, match="1 of 2 rows have no mask: line 2"):
            open_manifest(path, *regions)
    assert open_manifest(path, "whole").pairs.masks_sha256 is None
    path = write_rows(path, rows[:1])
    opened = open_manifest(path)
    assert opened.pairs.masks_sha256 is not None
    masks = opened.pairs.read(np.arange(1)).masks
    assert masks is not None
    assert masks[0].all()


def test_digests_follow_content_and_order_but_no_path(pictures, tmp_path_factory):
    rows = [{"generated": "a.png", "reference": "b.png"}, {"generated": "c.png", "reference": "d.png"}]
    first = open_manifest(write_rows(pictures / "m.jsonl", rows)).pairs
    copy = tmp_path_factory.mktemp("elsewhere")
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (copy / name).write_bytes((pictures / name).read_bytes())
    moved = open_manifest(write_rows(copy / "other.jsonl", rows)).pairs
    assert moved.spec == first.spec
    assert moved.reference_sha256 == first.reference_sha256
    turned = open_manifest(write_rows(copy / "other.jsonl", rows[::-1])).pairs
    assert turned.spec != first.spec
    Image.new("RGB", (5, 6)).save(copy / "a.png")
    changed = open_manifest(write_rows(copy / "other.jsonl", rows)).pairs
    assert changed.spec != first.spec
    assert changed.reference_sha256 == first.reference_sha256


def test_files_that_do_not_exist_are_named_with_their_line(pictures):
    path = write_rows(
        pictures / "m.jsonl", [{"generated": "a.png", "reference": f"{i}.png"} for i in range(12)]
    )
    with pytest.raises(InvalidInputError, match=r"12 reference files .*\n  line 1: '0.png'") as caught:
        open_manifest(path)
    assert "and 2 more" in caught.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_does_not_block(pictures):
    os.mkfifo(pictures / "pipe.png")
    path = write_rows(pictures / "m.jsonl", [{"generated": "pipe.png", "reference": "a.png"}])
    with pytest.raises(InvalidInputError, match=r"'pipe.png' is not a file"):
        open_manifest(path).pairs.read(np.zeros(1, dtype=np.int64))


def test_paths_outside_need_leave(pictures):
    inner = pictures / "inner"
    inner.mkdir()
    path = write_rows(inner / "m.jsonl", [{"generated": "../a.png", "reference": "../b.png"}])
    with pytest.raises(InvalidInputError, match=r"m\.jsonl: line 1"):
        open_manifest(path)
    assert len(open_manifest(path, allow_outside=True).pairs) == 1


def test_a_manifest_that_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(UsageError):
            read_manifest(path, allow_outside=False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"generated": Path("a")},
        {"manifest": Path("m"), "generated": Path("a")},
        {"manifest": Path("m"), "match": "name"},
        {"generated": Path("a"), "reference": Path("b"), "allow_outside": True},
    ],
)
def test_what_is_compared_must_be_clear(fields):
    with pytest.raises(UsageError):
        PairsRequest(**fields).check()
