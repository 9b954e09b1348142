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
from evalkit.numerics.cosine import directional_cosine
from evalkit.pairs.edits import open_edits
from evalkit.probes.directional import HEAD
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
    rows = open_edits(write(tmp_path), extractor=network)(np.arange(5), [HEAD])[HEAD]

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
        open_edits(write(tmp_path, drop=column), extractor=Network())


def test_an_absent_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_edits(tmp_path / "none.csv", extractor=Network())
