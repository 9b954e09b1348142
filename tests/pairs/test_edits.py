"""A manifest of edits becomes the rows of the directional similarity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evalkit.errors import InvalidInputError, UsageError
from evalkit.extractors.facts import CLIP_VIT_B_32
from evalkit.numerics.cosine import directional_cosine
from evalkit.pairs.edits import Edits, check_edits, edit_network, open_edits
from evalkit.pairs.opening import read_manifest
from evalkit.probes.directional import HEAD, IMAGE_SIZE
from evalkit.sources.decode import DEFAULT_POLICY
from evalkit.sources.formats import ReadSettings
from evalkit.spec import Spec


class Network:
    """Mean colour of an image; the letters of a caption, counted."""

    heads: Mapping[str, int] = {"image": 3}
    spec = Spec.of("extractor", "stand-in", sha256="0" * 64)
    published = True

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        return dict.fromkeys(heads, images.float().mean((2, 3)))

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        return np.array([[p.count(letter) + 0.1 for letter in "abc"] for p in prompts], dtype=np.float32)


def opened(path: Path) -> Edits:
    manifest = read_manifest(path, allow_outside=False)
    return open_edits(manifest, root=path.parent, settings=ReadSettings(DEFAULT_POLICY, None))


def write(folder: Path, *, drop: str | None = None) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(5):
        row = {
            "edited": f"out/{i}.png", "target": f"out/{i}.png", "source": f"in/{i}.png",
            "source_prompt": "a" * (i + 1), "prompt": "abc" * (i + 1) + "b",
        }  # fmt: skip
        for path in (row["edited"], row["source"]):
            (folder / path).parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8 + i, 3), dtype=np.uint8)).save(folder / path)
        rows.append({key: value for key, value in row.items() if not (key == drop and i == 3)})
    manifest = folder / "edits.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return manifest


def test_rows_follow_the_manifest(tmp_path: Path) -> None:
    network = Network()
    found = opened(write(tmp_path)).probe(network)(np.arange(5), [HEAD, IMAGE_SIZE])
    rows = found[HEAD]
    assert found[IMAGE_SIZE].tolist() == [[8, 8 + i] for i in range(5)]

    def embedded(folder: str) -> np.ndarray:
        images = [np.asarray(Image.open(tmp_path / folder / f"{i}.png")) for i in range(5)]
        return np.stack([image.astype(np.float64).mean((0, 1)) for image in images])

    expected = directional_cosine(
        source_image=embedded("in"),
        edited_image=embedded("out"),
        source_text=network.encode_text(["a" * (i + 1) for i in range(5)]),
        edited_text=network.encode_text(["abc" * (i + 1) + "b" for i in range(5)]),
    )
    assert rows[:, 0] == pytest.approx(expected, rel=1e-4)
    assert torch.equal(torch.from_numpy(rows[:, 1]), torch.ones(5))


@pytest.mark.parametrize("column", ["source", "source_prompt", "prompt"])
def test_a_row_without_its_source_or_captions_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"{column}.*line 4"):
        opened(write(tmp_path, drop=column))


def test_an_absent_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        opened(tmp_path / "none.csv")


def test_what_moves_a_row_moves_a_digest(tmp_path: Path) -> None:
    path = write(tmp_path)
    edits = opened(path)
    captions, sources = edits.prompts_sha256, edits.source_sha256
    path.write_text(path.read_text().replace('"abcb"', '"abcc"'))
    assert opened(path).prompts_sha256 != captions
    assert opened(path).source_sha256 == sources
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "0.png")
    assert opened(path).source_sha256 != sources


def test_lists_of_edits_need_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "edits.csv"
    path.write_text("edited,source,source_prompt,prompt\na.png,b.png,x,y\n")
    manifest = read_manifest(path, allow_outside=False)
    check_edits(manifest)
    assert manifest.rows[0].reference is None
    path.write_text("edited,source,source_prompt,prompt\na.png,,x,y\n")
    with pytest.raises(InvalidInputError, match="line 2: source is empty"):
        read_manifest(path, allow_outside=False)


def test_the_network_is_chosen_by_name() -> None:
    assert edit_network(["psnr", "lpips:vgg"]) is None
    assert edit_network(["psnr", "clip-directional"]) == "clip-vit-b-32" == CLIP_VIT_B_32.name
    assert edit_network(["clip-directional:clip-vit-l-14"]) == "clip-vit-l-14"
    with pytest.raises(UsageError, match="and by"):
        edit_network(["clip-directional", "clip-directional:clip-vit-l-14"])
    with pytest.raises(UsageError) as caught:
        edit_network(["clip-directional:clip-vit-b-23"])
    assert "clip-vit-b-32" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="encodes no text"):
        edit_network(["clip-directional:dinov2"])
