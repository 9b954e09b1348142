"""VGG16 against torchvision's network, on seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evalkit.core import Extractor
from evalkit.errors import CheckpointError, OfflineError, UsageError
from evalkit.extractors.vgg import VGG16, expected_layout


@pytest.fixture(scope="module")
def model() -> Any:
    """torchvision's network with He-scaled weights and biases away from zero.

    Row i of a linear layer is a random sequence from its number i on, so that the file holds the sequence
    and not 500 MB.
    """
    from torchvision import models

    with torch.device("meta"):
        network = models.vgg16().eval()
    generator = torch.Generator().manual_seed(16)
    state: dict[str, torch.Tensor] = {}
    for name, parameter in network.named_parameters():
        rows, columns = parameter.shape[0], parameter[0].numel()
        linear = name.startswith("classifier") and name.endswith("weight")
        uniform = torch.rand(rows + columns if linear else rows * columns, generator=generator) - 0.5
        values = uniform * ((24 / columns) ** 0.5 if name.endswith("weight") else 0.2)
        state[name] = values.as_strided((rows, columns), (1, 1)) if linear else values.view(parameter.shape)
    network.load_state_dict(state, assign=True)
    return network


@pytest.fixture(scope="module")
def weights(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> VGG16:
    return VGG16(weights=weights)


def noise(size: int, n: int = 2) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(size))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))


@pytest.mark.parametrize(
    ("preset", "size", "options"),
    [
        ("default", 224, {"mode": "nearest-exact"}),
        ("default", 64, {"mode": "bicubic", "antialias": True, "align_corners": False}),
        ("bilinear", 299, {"mode": "bilinear", "align_corners": False}),
    ],
)
def test_agrees_with_torchvision(
    weights: Path, model: Any, preset: str, size: int, options: dict[str, Any]
) -> None:
    images = noise(size, 1)
    resized = F.interpolate(images.float(), (224, 224), **options)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (resized / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        flat = model.avgpool(model.features(x)).flatten(1)
        fc2 = model.classifier[:5](flat)
        logits = model.classifier[5:](fc2.clone())
    assert (fc2 > 0).any()
    assert (fc2 >= 0).all()
    found = VGG16(weights=weights, preset=preset)(images, ["fc2", "logits"])
    for head, expected in (("fc2", fc2), ("logits", logits)):
        # Products of 25 088 float32 terms in another order.
        assert float((found[head] - expected).abs().max() / expected.abs().max()) < 1e-5, head


def test_layout_is_torchvisions(model: Any) -> None:
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == expected_layout()
    assert len(expected_layout()) == 32


def test_protocol_and_spec(extractor: VGG16, weights: Path) -> None:
    assert isinstance(extractor, Extractor)
    assert dict(extractor.heads) == {"fc2": 4096, "logits": 1000}
    assert not extractor.published
    assert extractor.spec.sha256 == extractor.weights_sha256
    assert VGG16(weights=weights, preset="bilinear").spec != extractor.spec
    one = extractor(noise(64, 1), ["fc2"])
    assert set(one) == {"fc2"}
    assert (one["fc2"].shape, one["fc2"].dtype) == ((1, 4096), torch.float32)


def test_refusals(tmp_path: Path, extractor: VGG16, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"missing features\.0\.bias"):
        VGG16(weights=path)
    with pytest.raises(UsageError):
        VGG16(weights=path, preset="bicubic")
    with pytest.raises(UsageError):
        extractor(noise(64, 1), ["fc1"])
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        VGG16()
    assert "vgg16-397923af.pth" in (caught.value.hint or "")
