"""The rows of the directional similarity: a stand-in network with known embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.core import IndexArray, Probe
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics.directional import COLUMNS, ClipDirectional
from evalkit.numerics.cosine import cosine_rows, directional_cosine
from evalkit.probes.directional import HEAD, DirectionalProbe, EditedImages
from evalkit.spec import Spec

WIDTH = 5
CAPTIONS = {"a cat": 0, "a dog": 1, "a red cat": 2, "a night": 3}


@dataclass
class Batch:
    generated: Sequence[Tensor]
    reference: Sequence[Tensor]


class Edits:
    """Images of two sizes; edit 2 changes nothing."""

    def __init__(self, name: str = "edits") -> None:
        rng = np.random.default_rng(0)
        sizes = [(8, 8), (8, 12), (8, 8), (8, 12)]
        self.before = [torch.from_numpy(rng.integers(0, 256, (3, *s), dtype=np.uint8)) for s in sizes]
        self.after = [torch.from_numpy(rng.integers(0, 256, (3, *s), dtype=np.uint8)) for s in sizes]
        self.after[2] = self.before[2]
        self.spec = Spec.of("pairs", name)

    def __len__(self) -> int:
        return len(self.before)

    def read(self, index: IndexArray) -> Batch:
        return Batch([self.after[i] for i in index], [self.before[i] for i in index])


class Network:
    """Embeds an image by means of its channels and rows, a caption by a fixed table."""

    heads: Mapping[str, int] = {"image": WIDTH}
    spec = Spec.of("extractor", "stand-in", sha256="0" * 64)
    published = True
    dark = False

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        assert images.dtype == torch.uint8
        pixels = images.float() * (0.0 if self.dark else 1.0)
        rows = torch.cat([pixels.mean((2, 3)), pixels[:, 0, :2].mean(2)], dim=1)
        return dict.fromkeys(heads, rows)

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(prompts))
        table = np.random.default_rng(3).standard_normal((len(CAPTIONS), WIDTH))
        return table[[CAPTIONS[prompt] for prompt in prompts]].astype(np.float32)


BEFORE = ["a cat", "a cat", "a dog", "a cat"]
AFTER = ["a dog", "a red cat", "a night", "a cat"]  # the last caption stays


def make(network: Network | None = None, **change: object) -> DirectionalProbe:
    arguments = {"edits": Edits(), "source_prompts": BEFORE, "prompts": AFTER, **change}
    return DirectionalProbe(**arguments, extractor=network or Network())  # type: ignore[arg-type]


def test_rows_are_the_formula_on_the_networks_embeddings() -> None:
    network, edits = Network(), Edits()
    probe = make(network)
    assert isinstance(probe, Probe)
    rows = probe(np.arange(4), [HEAD])[HEAD]
    assert rows.dtype == np.float32
    assert rows.shape == (4, len(COLUMNS)) == (4, probe.heads[HEAD])
    before, after = (
        np.concatenate([network(image[None], ["image"])["image"].numpy() for image in side])
        for side in (edits.before, edits.after)
    )
    was, became = network.encode_text(BEFORE), network.encode_text(AFTER)
    expected = directional_cosine(
        source_image=before, edited_image=after, source_text=was, edited_text=became
    )
    assert np.isnan(expected).tolist() == [False, False, True, True]
    assert rows[:2, 0] == pytest.approx(expected[:2], rel=1e-6)
    assert rows[:, 1].tolist() == [1, 1, 0, 0]
    assert rows[2:, 0].tolist() == [0, 0]
    assert rows[:, 2] == pytest.approx(cosine_rows(before, after), rel=1e-6)
    assert rows[:, 3] == pytest.approx(cosine_rows(after, became), rel=1e-6)


def test_rows_do_not_depend_on_their_batch() -> None:
    probe = make()
    together = probe(np.array([3, 1, 0, 2]), [HEAD])[HEAD]
    alone = np.concatenate([probe(np.array([i]), [HEAD])[HEAD] for i in (3, 1, 0, 2)])
    assert np.allclose(together, alone, rtol=1e-6)


def test_the_metric_reads_the_rows() -> None:
    from evalkit.core import FeatureSet

    rows = make()(np.arange(4), [HEAD])[HEAD]
    score = ClipDirectional().compute(FeatureSet((rows[:2], rows[2:])), None, rng=np.random.default_rng(0))
    assert score.value == pytest.approx(rows[:2, 0].mean())
    assert score.details["undefined"] == 2


def test_captions_are_encoded_once_and_for_all() -> None:
    network = Network()
    probe = make(network)
    probe(np.arange(2), [HEAD])
    probe(np.arange(2, 4), [HEAD])
    assert network.asked == [BEFORE, AFTER]


def test_spec_changes_with_images_captions_and_network() -> None:
    other = Network()
    other.spec = Spec.of("extractor", "stand-in", sha256="1" * 64)
    specs = [
        make().spec,
        make(edits=Edits("others")).spec,
        make(prompts=[*AFTER[:3], "a dog"]).spec,
        make(source_prompts=AFTER, prompts=BEFORE).spec,
        make(other).spec,
    ]
    assert len({spec.digest() for spec in specs}) == len(specs)
    assert make().spec == make().spec


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="4 edits"):
        make(prompts=AFTER[:3])
    with pytest.raises(UsageError, match="no head"):
        make()(np.arange(2), ["direction"])
    dark = Network()
    probe = make(dark)
    dark.dark = True
    with pytest.raises(InvalidInputError, match="zero"):
        probe(np.arange(2), [HEAD])
    blind = Network()
    blind.heads = {"pooled": 3}
    with pytest.raises(UsageError, match="text"):
        make(blind)


def test_edits_of_two_image_sets(tmp_path: Path) -> None:
    from evalkit.sources import open_source

    rng = np.random.default_rng(8)
    edited, source = (rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8) for side in (8, 12))
    for name, images in (("edited", edited), ("source", source)):
        np.savez(tmp_path / f"{name}.npz", images=images)
    sets = [open_source(tmp_path / f"{name}.npz") for name in ("edited", "source")]
    edits = EditedImages(*sets)
    batch = edits.read(np.array([2, 0]))
    assert torch.equal(batch.generated[0], torch.from_numpy(edited[2]).permute(2, 0, 1))
    assert torch.equal(batch.reference[1], torch.from_numpy(source[0]).permute(2, 0, 1))
    assert edits.spec != EditedImages(*reversed(sets)).spec
    assert make(edits=edits)(np.arange(4), [HEAD])[HEAD].shape == (4, 4)
    np.savez(tmp_path / "few.npz", images=edited[:3])
    with pytest.raises(InvalidInputError, match="3 edited"):
        EditedImages(open_source(tmp_path / "few.npz"), sets[1])
