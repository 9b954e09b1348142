"""EfficientNet-Lite0: the same numbers as timm's network, and real photographs named correctly."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.core import Extractor
from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.extractors import build_extractor
from evalkit.extractors.efficientnet_lite import (
    PUBLISHED_SHA256,
    EfficientNetLite0,
    bundled_weights,
    expected_layout,
)
from evalkit.extractors.facts import Backend
from evalkit.runtime import bitwise_numerics

HEADS = ("block", "pooled", "logits")


@pytest.fixture(scope="module")
def extractor() -> EfficientNetLite0:
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def plain() -> EfficientNetLite0:
    return EfficientNetLite0(backend="torch")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(7))
    smooth = torch.from_numpy(rng.random((6, 3, 6, 6), dtype=np.float32) * 255)
    return torch.nn.functional.interpolate(smooth, (32, 32), mode="bicubic").clamp(0, 255).byte()


def photograph(package: str, *path: str) -> torch.Tensor:
    pytest.importorskip(package)
    file = resources.files(package).joinpath(*path)
    if not file.is_file():
        pytest.skip(f"{package} does not ship {path[-1]} here")
    with file.open("rb") as stream:
        pixels = np.array(Image.open(stream).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_bundled_weights_are_the_released_ones(extractor: EfficientNetLite0) -> None:
    assert extractor.weights_sha256 == PUBLISHED_SHA256
    assert extractor.published
    assert extractor.spec.sha256 == PUBLISHED_SHA256


def test_layout_has_247_tensors_and_49_counters() -> None:
    counters = [name for name in expected_layout() if name.endswith("num_batches_tracked")]
    assert (len(expected_layout()) - len(counters), len(counters)) == (247, 49)


def test_layout_is_the_files_in_its_order() -> None:
    state = torch.load(bundled_weights(), weights_only=True, mmap=False, map_location="cpu")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_layout()
    assert list(state) == list(expected_layout())


@pytest.mark.parametrize(
    ("package", "path", "classes", "among"),
    [
        ("skimage", ("data", "chelsea.png"), {281, 282, 285}, 1),  # tabby, tiger cat, Egyptian cat
        ("skimage", ("data", "coffee.png"), {967, 968}, 1),  # espresso, cup
        ("skimage", ("data", "motorcycle_left.png"), {665, 670}, 1),  # moped, motor scooter
        ("sklearn", ("datasets", "images", "flower.jpg"), {985}, 1),  # daisy
        ("skimage", ("data", "rocket.jpg"), {657, 744, 812}, 5),  # missile, projectile, space shuttle
        ("sklearn", ("datasets", "images", "china.jpg"), {698, 663, 832}, 5),  # palace, monastery, stupa
    ],
)
def test_real_photographs_get_their_class(
    extractor: EfficientNetLite0, package: str, path: tuple[str, ...], classes: set[int], among: int
) -> None:
    logits = extractor(photograph(package, *path), ["logits"])["logits"]
    best = logits.topk(among).indices[0].tolist()
    assert classes & set(best), f"best {best}"


def test_agrees_with_timm_layer_for_layer(extractor: EfficientNetLite0, images: torch.Tensor) -> None:
    # An oracle with its own topology, batch norm and padding; the tensors go over by their order alone.
    timm = pytest.importorskip("timm")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    source = torch.load(bundled_weights(), weights_only=True, mmap=False, map_location="cpu")
    network.load_state_dict(dict(zip(network.state_dict(), source.values(), strict=True)))
    resized = torch.nn.functional.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True)
    with torch.inference_mode():
        x = network.blocks(network.bn1(network.conv_stem((resized - 127) / 128)))
        pooled = network.bn2(network.conv_head(x)).mean((2, 3))
        expected = {"block": x.mean((2, 3)), "pooled": pooled, "logits": network.classifier(pooled)}
    features = extractor(images, HEADS)
    for head in HEADS:
        assert relative(features[head], expected[head]) < 1e-5, head


def test_shapes_and_protocol(extractor: EfficientNetLite0, images: torch.Tensor) -> None:
    assert isinstance(extractor, Extractor)
    features = extractor(images, HEADS)
    assert {head: tuple(f.shape) for head, f in features.items()} == {
        head: (6, extractor.heads[head]) for head in HEADS
    }
    assert all(f.dtype == torch.float32 and f.isfinite().all() for f in features.values())
    assert features["pooled"].min() >= 0


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_features_do_not_depend_on_the_batch(backend: Backend, images: torch.Tensor) -> None:
    extractor = EfficientNetLite0(backend=backend)
    together = extractor(images, HEADS)
    for head in HEADS:
        alone = torch.cat([extractor(image[None], [head])[head] for image in images])
        turned = extractor(images.flip(0), [head])[head].flip(0)
        assert relative(alone, together[head]) < 1e-6
        assert relative(turned, together[head]) < 1e-6
        if extractor.engine.backend == "onnxruntime" or head != "logits":
            assert torch.equal(alone, together[head])
            assert torch.equal(turned, together[head])


def test_the_runtime_gives_what_torch_gives(
    extractor: EfficientNetLite0, plain: EfficientNetLite0, images: torch.Tensor
) -> None:
    pytest.importorskip("onnxruntime")
    found, expected = extractor(images, HEADS), plain(images, HEADS)
    assert (extractor.engine.backend, plain.engine.backend) == ("onnxruntime", "torch")
    assert all(relative(found[head], expected[head]) < 5e-6 for head in HEADS)


def test_features_do_not_depend_on_the_number_of_threads(
    extractor: EfficientNetLite0, images: torch.Tensor
) -> None:
    threads = torch.get_num_threads()
    try:
        features = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            features.append(extractor(images, ["pooled"])["pooled"])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])


def test_strict_numerics_are_torchs_to_the_last_bit(
    extractor: EfficientNetLite0, plain: EfficientNetLite0, images: torch.Tensor
) -> None:
    with bitwise_numerics():
        found, expected = extractor(images, HEADS), plain(images, HEADS)
    assert extractor.engine.backend == "torch"
    assert all(torch.equal(found[head], expected[head]) for head in HEADS)


def test_repeats_bit_for_bit(extractor: EfficientNetLite0, images: torch.Tensor) -> None:
    first, second = extractor(images, HEADS), extractor(images, HEADS)
    assert all(torch.equal(first[head], second[head]) for head in HEADS)


def test_only_what_is_needed_is_computed(
    plain: EfficientNetLite0, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the head convolution ran")

    monkeypatch.setattr(plain, "_head", forbidden)
    assert set(plain(images[:1], ["block"])) == {"block"}
    with pytest.raises(AssertionError):
        plain(images[:1], ["pooled"])


def test_no_images_give_no_features(extractor: EfficientNetLite0) -> None:
    assert extractor(torch.empty(0, 3, 8, 8, dtype=torch.uint8), ["pooled"])["pooled"].shape == (0, 1280)


@pytest.mark.parametrize("heads", [[], ["pool"], ["pooled", "2048"]])
def test_unknown_heads_are_refused(
    extractor: EfficientNetLite0, images: torch.Tensor, heads: list[str]
) -> None:
    with pytest.raises(UsageError):
        extractor(images, heads)


def test_floats_and_wrong_shapes_are_refused(extractor: EfficientNetLite0, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="uint8"):
        extractor(images.float(), ["pooled"])
    for wrong in (images[0], images[:, :1], images[..., :0]):
        with pytest.raises(InvalidInputError):
            extractor(wrong, ["pooled"])


def test_another_file_of_the_layout_has_another_digest(tmp_path: Path) -> None:
    state = torch.load(bundled_weights(), weights_only=True, mmap=False, map_location="cpu")
    state["_fc.bias"] = state["_fc.bias"] + 1
    path = tmp_path / "tuned.pth"
    torch.save(state, path)
    tuned = build_extractor("efficientnet-lite0", weights=path)
    assert isinstance(tuned, EfficientNetLite0)
    assert not tuned.published
    assert tuned.spec.digest() != EfficientNetLite0().spec.digest()


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    state = torch.load(bundled_weights(), weights_only=True, mmap=False, map_location="cpu")
    del state["_blocks.3._bn1.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=r"missing _blocks\.3\._bn1\.weight"):
        EfficientNetLite0(weights=tmp_path / "short.pth")
