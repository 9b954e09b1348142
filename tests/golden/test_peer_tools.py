"""From the same folders of images and the same weights, the peers' own programs give the same FID."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import evalkit

COUNTS = {"generated": 14, "reference": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two folders of smooth colour images whose statistics differ."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("folders")
    for side, count in COUNTS.items():
        (root / side).mkdir()
        for number in range(count):
            blur = 1.0 if side == "generated" else 2.0
            field = ndimage.gaussian_filter(rng.normal(size=(64, 64, 3)), sigma=(blur, blur, 0))
            pixels = np.clip(128 + 90 * field / field.std(), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / side / f"{number:03d}.png")
    return {side: root / side for side in COUNTS}


def _fid(folders: dict[str, Path], weights: Path, out: Path, protocol: str) -> float:
    record = evalkit.score(
        images=folders["generated"],
        reference=folders["reference"],
        protocol=protocol,
        metrics=["fid"],
        weights={"inception-v3": weights},
        out=out,
    )
    (result,) = record.results
    assert result.metric.startswith("fd:inception-v3@"), "random weights must never be called FID"
    return result.value


@pytest.mark.slow
def test_torch_fidelity(folders, inception_file, tmp_path):
    from torch_fidelity import calculate_metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = calculate_metrics(
            input1=str(folders["generated"]),
            input2=str(folders["reference"]),
            fid=True,
            cuda=False,
            verbose=False,
            cache=False,
            batch_size=8,
            feature_extractor_weights_path=str(inception_file),
            feature_extractor_internal_dtype="float32",
        )["frechet_inception_distance"]
    assert _fid(folders, inception_file, tmp_path, "standard") == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_pytorch_fid(folders, inception_file, inception_state, tmp_path, monkeypatch):
    from pytorch_fid import fid_score, inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_args, **_flags: dict(inception_state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = inception.InceptionV3([3]).eval()
        statistics = {
            side: fid_score.calculate_activation_statistics(
                sorted(folder.glob("*.png")), network, batch_size=8, dims=2048, device="cpu", num_workers=0
            )
            for side, folder in folders.items()
        }
        expected = fid_score.calculate_frechet_distance(*statistics["generated"], *statistics["reference"])
    assert _fid(folders, inception_file, tmp_path, "pytorch-fid") == pytest.approx(expected, rel=1e-3)
