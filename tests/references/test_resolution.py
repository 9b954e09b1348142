"""References resolved from folders of classes: moments by class where they are asked for, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evalkit
from evalkit.errors import NothingMeasuredError
from evalkit.extraction import Extracted, Job, extract
from evalkit.extractors import build_extractor
from evalkit.reference_resolution import resolve_reference
from evalkit.references import Reference
from evalkit.subjects import ImageOptions

HEAD = "thumbnail"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "real" / name).mkdir(parents=True)
        for number in range(5 + label):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "real" / name / f"{number}.png")
    return tmp_path / "real"


def extract_images(job: Job, _title: str) -> Extracted:
    (extracted,) = extract(job, progress=lambda _: None, stop=lambda: 0)
    return extracted


def resolved(path: Path, tmp_path: Path, **options: object) -> Reference:
    extractor = build_extractor("pixels", weights=None, preset=None, device="cpu")
    return resolve_reference(
        str(path), extractor=extractor, heads=(HEAD,), image_options=ImageOptions(), state=tmp_path / "state",
        device=torch.device("cpu"), extract_images=extract_images, **options,
    )  # fmt: skip


def test_a_folder_of_classes_gives_moments_by_class_where_asked(images: Path, tmp_path: Path):
    reference = resolved(images, tmp_path, class_heads=(HEAD,))
    head = reference.head(HEAD)
    assert {label: group.count for label, group in head.groups.items()} == {0: 5, 1: 6}
    assert reference.about.class_names == ("cats", "dogs")
    np.testing.assert_allclose(head.groups[0].mean, head.bank[:5].astype(float).mean(axis=0), rtol=1e-12)
    plain = resolved(images, tmp_path)
    assert not plain.head(HEAD).classes
    assert plain.sha256 == reference.sha256


def test_images_without_labels_have_no_classes(images: Path, tmp_path: Path):
    with pytest.raises(NothingMeasuredError, match="no labels"):
        resolved(images / "cats", tmp_path, class_heads=(HEAD,))


def test_a_held_out_folder_goes_beside_the_reference(images: Path, tmp_path: Path):
    both = resolved(images / "cats", tmp_path).with_held_out(resolved(images / "dogs", tmp_path))
    assert both.head(HEAD).held_out.count == 6


def test_sample_images_of_an_adm_file_become_its_features(tmp_path, inception_file):
    """Moments are the file's own; features, for precision and recall, are those of its ``arr_0``."""
    from evalkit.generators.toy import GaussianTiles
    from evalkit.seeding import image_seeds

    images = GaussianTiles().generate(image_seeds(3, np.arange(12))).permute(0, 2, 3, 1).numpy()
    adm, plain, samples = tmp_path / "adm.npz", tmp_path / "plain.npz", tmp_path / "samples.npz"
    moments = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
    np.savez(adm, arr_0=images, **moments)
    np.savez(plain, **moments)
    np.savez(samples, arr_0=images[:8])
    settings = {
        "images": samples, "protocol": "adm", "metrics": ["precision"], "out": tmp_path,
        "weights": {"inception-v3": inception_file},
    }  # fmt: skip
    record = evalkit.score(reference=adm, **settings)
    assert record.results[0].value == 1.0  # every sample is one of the file's images
    assert record.results[0].n_ref == 12
    with pytest.raises(NothingMeasuredError):
        evalkit.score(reference=plain, **settings)
