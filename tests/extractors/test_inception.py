"""InceptionV3 against the networks of torch-fidelity and pytorch-fid, on seeded random weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.core import Extractor
from evalkit.errors import CheckpointError, OfflineError, UnsafeCheckpointError, UsageError
from evalkit.extractors import build_extractor
from evalkit.extractors.facts import INCEPTION_V3
from evalkit.extractors.inception import InceptionV3
from evalkit.extractors.inception_network import InceptionNetwork, expected_layout
from evalkit.extractors.inception_weights import PUBLISHED_SHA256, cached_weights

POOLED = ("64", "192", "768", "2048")
SHARED_WITH_TORCH_FIDELITY = (*POOLED, "logits_unbiased", "logits")
TOLERANCE = 5e-5


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def noise(size: int, *, n: int = 2) -> Tensor:
    rng = np.random.Generator(np.random.Philox(size))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))


@pytest.fixture(scope="module")
def extractor(inception_file: Path) -> InceptionV3:
    return InceptionV3(weights=inception_file, backend="torch")


@pytest.fixture(scope="module")
def with_its_preset(inception_file: Path) -> InceptionV3:
    return InceptionV3(weights=inception_file, preset="pytorch-fid", backend="torch")


@pytest.fixture(scope="module")
def by_runtime(inception_file: Path) -> InceptionV3:
    pytest.importorskip("onnxruntime")
    return InceptionV3(weights=inception_file)


@pytest.fixture(scope="module")
def torch_fidelity_network(inception_state: Mapping[str, Tensor]) -> Any:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: dict(inception_state))
        return module.FeatureExtractorInceptionV3("peer", list(SHARED_WITH_TORCH_FIDELITY))


@pytest.fixture(scope="module")
def pytorch_fid_network(inception_state: Mapping[str, Tensor]) -> Any:
    module = pytest.importorskip("pytorch_fid.inception", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: dict(inception_state))
        # Its default is a slow truncated-normal initialisation that the state dict overwrites.
        return module.InceptionV3((0, 1, 2, 3)).eval()


@pytest.mark.parametrize("size", [32, 64, 299, 512])
def test_agrees_with_torch_fidelity(extractor: InceptionV3, torch_fidelity_network: Any, size: int) -> None:
    images = noise(size)
    with torch.inference_mode():
        expected = dict(zip(SHARED_WITH_TORCH_FIDELITY, torch_fidelity_network(images), strict=True))
    features = extractor(images, SHARED_WITH_TORCH_FIDELITY)
    for head in SHARED_WITH_TORCH_FIDELITY:
        assert features[head].std(dim=1).min() > 0.01 * features[head].abs().max(), (
            "the test would see nothing"
        )
        assert relative(features[head], expected[head]) < TOLERANCE, head


def test_the_runtime_agrees_with_torch_fidelity(
    extractor: InceptionV3, by_runtime: InceptionV3, torch_fidelity_network: Any
) -> None:
    images = noise(64)
    with torch.inference_mode():
        expected = dict(zip(SHARED_WITH_TORCH_FIDELITY, torch_fidelity_network(images), strict=True))
    heads = list(by_runtime.heads)
    features, by_torch = by_runtime(images, heads), extractor(images, heads)
    assert (by_runtime.engine.backend, by_runtime.engine.warnings) == ("onnxruntime", ())
    for head in SHARED_WITH_TORCH_FIDELITY:
        assert relative(features[head], expected[head]) < TOLERANCE, head
    for head in heads:
        assert relative(features[head], by_torch[head]) < 2e-5, head
    # An image has the same features in any batch, to the last bit.
    alone = torch.cat([by_runtime(image[None], heads)["logits"] for image in images])
    assert torch.equal(alone, features["logits"])


@pytest.mark.parametrize("size", [32, 299, 512])
def test_agrees_with_pytorch_fid(with_its_preset: InceptionV3, pytorch_fid_network: Any, size: int) -> None:
    images = noise(size)
    with torch.inference_mode():
        maps = pytorch_fid_network(images.float() / 255)
    features = with_its_preset(images, POOLED)
    for head, expected in zip(POOLED, maps, strict=True):
        assert relative(features[head], expected.mean((2, 3))) < TOLERANCE, head


def test_spatial_head_is_the_convolution_before_batch_norm(
    extractor: InceptionV3, torch_fidelity_network: Any
) -> None:
    seen: list[Tensor] = []
    handle = torch_fidelity_network.Mixed_6d.branch1x1.conv.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    images = noise(64)
    with torch.inference_mode():
        torch_fidelity_network(images)
    handle.remove()
    # ADM's evaluator keeps the first 7 channels of a channels-last map and flattens that.
    expected = seen[0].permute(0, 2, 3, 1)[..., :7].reshape(2, 2023)
    features = extractor(images, ["spatial"])["spatial"]
    assert (features < 0).any()
    assert relative(features, expected) < TOLERANCE


def test_presets_differ_and_adm_is_fid(inception_file: Path) -> None:
    images = noise(32, n=1)
    made = {
        name: InceptionV3(weights=inception_file, preset=name, backend="torch")
        for name, _ in INCEPTION_V3.presets
    }
    found = {name: extractor(images, ["64"])["64"] for name, extractor in made.items()}
    assert torch.equal(found["fid"], found["adm"])
    assert made["fid"].spec == made["adm"].spec
    others = ("fid", "pytorch-fid", "clean-fid")
    assert len({made[name].spec.digest() for name in others}) == 3
    for one, other in (("fid", "pytorch-fid"), ("fid", "clean-fid"), ("pytorch-fid", "clean-fid")):
        assert not torch.allclose(found[one], found[other], rtol=1e-4)


def test_clean_fid_preset_is_the_documented_preparation(
    inception_file: Path, inception_state: Mapping[str, Tensor]
) -> None:
    from PIL import Image

    images = noise(32, n=1)
    planes = [
        np.asarray(
            Image.fromarray(plane.numpy().astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
        )
        for plane in images[0]
    ]
    prepared = (torch.from_numpy(np.stack(planes)).clamp(0, 255)[None] - 128) / 128
    network = InceptionNetwork(inception_state, torch.device("cpu"))
    expected = network(prepared, frozenset({"192"}))["192"]
    features = InceptionV3(weights=inception_file, preset="clean-fid")(images, ["192"])["192"]
    assert relative(features, expected) < 1e-6


def test_stops_at_the_deepest_head(extractor: InceptionV3, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    original = InceptionNetwork._step

    def spy(self: InceptionNetwork, name: str, x: Tensor) -> Tensor:
        steps.append(name)
        return original(self, name, x)

    monkeypatch.setattr(InceptionNetwork, "_step", spy)
    deepest = {"64": "Conv2d_2b_3x3", "192": "Conv2d_4a_3x3", "spatial": "Mixed_6c.branch_pool"}
    for head, last in deepest.items():
        steps.clear()
        assert set(extractor(noise(32, n=1), [head])) == {head}
        assert [step for step in steps if "max" not in step][-1] == last
        assert steps.count("Conv2d_1a_3x3") == 1


def test_heads_shapes_and_protocol(extractor: InceptionV3) -> None:
    assert isinstance(extractor, Extractor)
    features = extractor(noise(32, n=1), list(extractor.heads))
    assert {head: tuple(f.shape) for head, f in features.items()} == {
        head: (1, size) for head, size in extractor.heads.items()
    }
    assert all(f.dtype == torch.float32 for f in features.values())


def test_batch_and_threads_do_not_matter(extractor: InceptionV3) -> None:
    images = noise(32, n=5)
    together = extractor(images, ["64"])["64"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        alone = torch.cat([extractor(image[None], ["64"])["64"] for image in images])
    finally:
        torch.set_num_threads(threads)
    assert relative(alone, together) < 1e-6


def test_layout_counts() -> None:
    # 94 convolutions with four batch norm tensors each, and the classifier's two.
    assert len(expected_layout()) == 94 * 5 + 2


def test_weights_of_ones_own_are_labelled(extractor: InceptionV3) -> None:
    assert not extractor.published
    assert extractor.spec.sha256 == extractor.weights_sha256 != PUBLISHED_SHA256


def save(state: Mapping[str, Any], path: Path) -> Path:
    torch.save(dict(state), path)
    return path


def test_files_with_counters_are_read(
    inception_state: Mapping[str, Tensor], extractor: InceptionV3, tmp_path: Path
) -> None:
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(9)
        for name in inception_state
        if name.endswith("running_var")
    }
    path = save({**inception_state, **counters}, tmp_path / "counted.pth")
    other = InceptionV3(weights=path, backend="torch")
    assert torch.equal(other(noise(32), ["64"])["64"], extractor(noise(32), ["64"])["64"])
    assert other.spec.digest() != extractor.spec.digest()


def test_nan_weights_name_the_tensor(inception_state: Mapping[str, Tensor], tmp_path: Path) -> None:
    name = "Mixed_7c.branch3x3_2a.conv.weight"
    broken = inception_state[name].clone()
    broken[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=name):
        InceptionV3(weights=save({**inception_state, name: broken}, tmp_path / "nan.pth"))


def test_torchvision_files_are_refused(inception_state: Mapping[str, Tensor], tmp_path: Path) -> None:
    # torchvision's ImageNet network has 1000 classes and an auxiliary head: FID from it is no FID.
    state = {
        **inception_state,
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
        "AuxLogits.fc.bias": torch.zeros(1000),
    }
    with pytest.raises(CheckpointError, match=r"unexpected AuxLogits.*fc\.weight has shape \(1000, 2048\)"):
        InceptionV3(weights=save(state, tmp_path / "torchvision.pth"))


def test_code_in_a_weights_file_is_refused(inception_state: Mapping[str, Tensor], tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "touched"),)

    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        InceptionV3(weights=save({**inception_state, "x": Malice()}, tmp_path / "evil.pth"))
    assert not (tmp_path / "touched").exists()


def test_without_network_it_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    assert cached_weights() is None
    with pytest.raises(OfflineError) as caught:
        build_extractor("inception-v3")
    hint = caught.value.hint or ""
    assert "pt_inception-2015-12-05-6726825d.pth" in hint
    assert str(tmp_path) in hint


def test_unknown_preset_is_explained_before_anything_is_fetched() -> None:
    with pytest.raises(UsageError) as caught:
        InceptionV3(preset="cleanfid")
    assert "clean-fid" in (caught.value.hint or "")


@pytest.mark.weights
def test_published_weights() -> None:
    path = cached_weights()
    if path is None:
        pytest.skip(
            "the published InceptionV3 weights are not in the cache (evalkit fetches them at first use)"
        )
    extractor = InceptionV3()
    assert extractor.published
    # A constant image is the same under every resizer: the presets may differ by their scaling alone.
    grey = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    features = extractor(grey, ["2048", "logits"])
    clean = InceptionV3(preset="clean-fid")(grey, ["2048"])
    assert relative(clean["2048"], features["2048"]) < 1e-5
    assert features["2048"].min() >= 0
