"""DINOv2 through timm: equal features on equal weights, Meta's position convention, both file layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from evalkit.asset_catalogue import ASSETS
from evalkit.errors import CheckpointError, OfflineError, UsageError
from evalkit.extractors import DINOV2_ARCHITECTURES, FACTS, build_extractor
from evalkit.extractors.dinov2 import resampled_positions
from evalkit.extractors.resizers import prepared

SMALL = DINOV2_ARCHITECTURES["dinov2-s"]


def noise(n: int = 2, height: int = 60, width: int = 48) -> Tensor:
    rng = np.random.Generator(np.random.Philox(2))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8))


def metas_positions(embedding: Tensor, grid: int) -> Tensor:
    """Row by row, the bicubic kernel (a = -0.75) at source = (i + 0.5) * side / (grid + 0.1) - 0.5."""
    side = int((embedding.shape[1] - 1) ** 0.5)
    table = embedding[0, 1:].double().reshape(side, side, -1).numpy()
    matrix = np.zeros((grid, side))
    for i in range(grid):
        source = (i + 0.5) * side / (grid + 0.1) - 0.5
        low = int(np.floor(source))
        for tap in range(low - 1, low + 3):
            x, a = abs(source - tap), -0.75
            weight = (
                (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            )
            matrix[i, min(max(tap, 0), side - 1)] += weight
    resampled = np.einsum("iy,jx,yxd->ijd", matrix, matrix, table).reshape(grid * grid, -1)
    return torch.cat([embedding[:, :1].double(), torch.from_numpy(resampled)[None]], dim=1)


@pytest.fixture(scope="module")
def published_like() -> dict[str, Tensor]:
    """Random weights in the layout of Meta's file: 37 x 37 positions and a mask token."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        peer = timm.create_model(SMALL, pretrained=False, num_classes=0)  # at 518 pixels
        # Scales of the residual branches are initialised at 1e-5, which would hide the blocks.
        state = {
            name: torch.rand_like(tensor) if name.endswith("gamma") else tensor.clone()
            for name, tensor in peer.state_dict().items()
        }
        state["pos_embed"] = torch.randn_like(state["pos_embed"])
        state["mask_token"] = torch.randn(1, 384)
    return state


@pytest.fixture(scope="module")
def weights(published_like: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "small.pth"
    torch.save(published_like, path)
    return path


@pytest.fixture(scope="module")
def peer(published_like: dict[str, Tensor]) -> Any:
    """timm's network at 224 pixels with the positions as the slow formula gives them."""
    network = timm.create_model(SMALL, pretrained=False, img_size=224, num_classes=0)
    state = {name: tensor for name, tensor in published_like.items() if name != "mask_token"}
    state["pos_embed"] = metas_positions(published_like["pos_embed"], 16).float()
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("preset", ["dgm", "edm2"])
def test_features_are_timms_at_metas_positions(peer: Any, weights: Path, preset: str) -> None:
    extractor = build_extractor("dinov2-s", weights=weights, preset=preset)
    features = extractor(noise(), ["cls"])["cls"]
    with torch.no_grad():
        expected = peer(prepared(noise(), 224, dict(FACTS["dinov2-s"].presets)[preset]))
    assert features.shape == (2, 384)
    # Positions of the formula in float64 against torch's in float32.
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_preset_dgm_is_the_published_preprocessing(peer: Any, weights: Path) -> None:
    from PIL import Image
    from torchvision.transforms import functional as peer_functions

    pictures = [
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        for image in noise()
    ]
    pixels = torch.stack([peer_functions.to_tensor(picture) for picture in pictures])
    pixels = peer_functions.normalize(pixels, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert torch.allclose(prepared(noise(), 224, FACTS["dinov2"].presets[0][1]), pixels, rtol=1e-6, atol=1e-6)


def test_positions_follow_metas_formula_not_timms() -> None:
    from timm.layers import resample_abs_pos_embed

    embedding = torch.randn(1, 1 + 37 * 37, 5, generator=torch.Generator().manual_seed(0))
    ours = resampled_positions(embedding, 16)
    assert torch.allclose(ours.double(), metas_positions(embedding, 16), rtol=1e-4, atol=1e-5)
    timms = resample_abs_pos_embed(embedding, [16, 16])
    assert (ours - timms).abs().max() > 0.1
    assert torch.equal(ours[:, 0], embedding[:, 0])


def test_positions_of_the_right_size_are_left_alone() -> None:
    embedding = torch.randn(1, 1 + 16 * 16, 5)
    assert torch.equal(resampled_positions(embedding, 16), embedding)


@pytest.mark.parametrize("shape", [(1, 8, 4), (2, 10, 4), (1, 1, 4), (10, 4)])
def test_positions_of_no_square_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match="pos_embed"):
        resampled_positions(torch.ones(shape), 16)


def test_both_layouts_and_formats_give_the_same_features(
    published_like: dict[str, Tensor], weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "timm.safetensors"
    save_file({k: t.contiguous() for k, t in published_like.items() if k != "mask_token"}, path)
    images = noise(1)
    one, other = (build_extractor("dinov2-s", weights=p)(images, ["cls"])["cls"] for p in (weights, path))
    assert torch.equal(one, other)


def test_files_that_do_not_fit_are_refused(published_like: dict[str, Tensor], tmp_path: Path) -> None:
    state = {k: t for k, t in published_like.items() if k != "norm.weight"}
    path = tmp_path / "bad.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"missing norm\.weight"):
        build_extractor("dinov2-s", weights=path)
    with pytest.raises(CheckpointError):
        build_extractor("dinov2-s", weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("name", DINOV2_ARCHITECTURES)
def test_without_network_it_says_what_to_fetch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        build_extractor(name)
    assert ASSETS[name].asset.url in (caught.value.hint or "")


def test_spec_and_facts(weights: Path) -> None:
    dgm, edm2 = (build_extractor("dinov2-s", weights=weights, preset=p).spec for p in ("dgm", "edm2"))
    assert dgm.digest() != edm2.digest()
    assert dict(dgm.params)["positions"] == "bicubic, offset 0.1, no antialias"
    assert not build_extractor("dinov2-s", weights=weights).published
    for name, architecture in DINOV2_ARCHITECTURES.items():
        config = timm.get_pretrained_cfg(f"{architecture}.lvd142m")
        assert config.url == ASSETS[name].asset.url
        assert FACTS[name].dimensions("cls") == {"dinov2": 1024, "dinov2-s": 384}[name]
    with pytest.raises(UsageError, match="preset"):
        build_extractor("dinov2-s", weights=weights, preset="pil")
