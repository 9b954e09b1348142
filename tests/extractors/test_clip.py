"""CLIP through open_clip: equal features on equal weights, every way to give weights, text, names."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evalkit import asset_catalogue
from evalkit.asset_catalogue import ASSETS
from evalkit.digests import file_sha256
from evalkit.errors import (
    CheckpointError,
    InvalidInputError,
    OfflineError,
    UnsafeCheckpointError,
    UsageError,
)
from evalkit.extractors import EXTRACTORS, FACTS, OPENAI_ARCHITECTURES, build_extractor
from evalkit.extractors.clip import OpenClip, random_network
from evalkit.extractors.facts import ExtractorFacts, clip_presets
from evalkit.extractors.resizers import prepared

TINY = "evalkit-tiny"
CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
FACTS_OF_TINY = ExtractorFacts(
    name="tiny-clip",
    summary="for tests",
    heads=(("image", 24),),
    roles=(("features", "image"),),
    presets=clip_presets(),
    encodes_text=True,
)
PROMPTS = ["a cat", "A photo depicts a red lighthouse", "a cat", ""]


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    for name, change in ((TINY, {}), (f"{TINY}-custom", {"custom_text": True})):
        (folder / f"{name}.json").write_text(json.dumps(CONFIG | change))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def network(tiny_architecture: None) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return open_clip.create_model(TINY, force_quick_gelu=True).eval()


@pytest.fixture(scope="module")
def weights(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(network.state_dict(), path)
    return path


def tiny(weights: Path | None, *, quick_gelu: bool | None = True, preset: str | None = None) -> OpenClip:
    return OpenClip(FACTS_OF_TINY, TINY, quick_gelu=quick_gelu, weights=weights, preset=preset)


def noise(n: int = 5, height: int = 40, width: int = 56) -> Tensor:
    rng = np.random.Generator(np.random.Philox(1))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("preset", ["openai", "cmmd", "torch"])
def test_features_are_open_clips(network: Any, weights: Path, preset: str) -> None:
    extractor = tiny(weights, preset=preset)
    features = extractor(noise(), ["image"])["image"]
    with torch.no_grad():
        expected = network.encode_image(prepared(noise(), 32, dict(clip_presets())[preset]))
    assert features.shape == (5, 24)
    assert features.dtype == torch.float32
    assert (features - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_features_are_those_of_the_official_preprocessing(network: Any, weights: Path) -> None:
    from PIL import Image

    transform = open_clip.image_transform(32, is_train=False)  # OpenAI's: Pillow, shorter side, centre crop
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in noise()]
    with torch.no_grad():
        expected = network.encode_image(torch.stack([transform(picture) for picture in pictures]))
    features = tiny(weights)(noise(), ["image"])["image"]
    assert (features - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_no_feature_depends_on_its_batch(weights: Path) -> None:
    extractor = tiny(weights)
    together, alone = extractor(noise(9), ["image"])["image"], extractor(noise(9)[7:8], ["image"])["image"]
    assert torch.allclose(together[7:8], alone, rtol=1e-5, atol=1e-6)


def test_text_features_are_open_clips(network: Any, weights: Path) -> None:
    features = tiny(weights).encode_text(PROMPTS)
    with torch.no_grad():
        expected = network.encode_text(open_clip.get_tokenizer(TINY)(PROMPTS)).numpy()
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.array_equal(features[0], features[2])


def test_no_prompts_give_no_rows(weights: Path) -> None:
    assert tiny(weights).encode_text([]).shape == (0, 24)


def test_long_prompts_are_cut_and_told(weights: Path) -> None:
    extractor = tiny(weights)
    fits, too_long = "cat " * 75, "cat " * 76
    assert extractor.truncated(["a", fits, too_long, too_long + "dog"]) == (2, 3)
    rows = extractor.encode_text([fits, too_long, too_long + "dog"])
    assert np.array_equal(rows[1], rows[2])


def test_quick_gelu_moves_features_and_is_in_the_spec(weights: Path) -> None:
    quick, plain = tiny(weights), tiny(weights, quick_gelu=None)
    images = noise(2)
    assert not torch.allclose(quick(images, ["image"])["image"], plain(images, ["image"])["image"], rtol=1e-3)
    assert quick.spec.digest() != plain.spec.digest()


def test_spec_holds_everything_that_moves_a_feature(weights: Path) -> None:
    specs = [tiny(weights, preset=preset).spec for preset in ("openai", "cmmd", "torch")]
    assert len({spec.digest() for spec in specs}) == 3
    params = dict(specs[0].params)
    assert params["resizer"] == "pil-bicubic-uint8-crop"
    assert params["mean"] == "0.48145466 0.4578275 0.40821073"
    assert params["size"] == 32
    assert specs[0].sha256 == file_sha256(weights)


def test_safetensors_give_the_same_features(network: Any, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    images = noise(2)
    assert torch.equal(tiny(path)(images, ["image"])["image"], tiny(weights)(images, ["image"])["image"])


def test_half_precision_files_run_in_float32(network: Any, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    halves = {name: tensor.half() for name, tensor in network.state_dict().items()}
    torch.save(halves, path)
    features = tiny(path)(noise(2), ["image"])["image"]
    rounded = copy.deepcopy(network)
    rounded.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    with torch.no_grad():
        expected = rounded.encode_image(prepared(noise(2), 32, clip_presets()[0][1]))
    assert features.dtype == torch.float32
    assert (features - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_plain_layout_fits_a_network_with_a_separate_text_tower(network: Any, weights: Path) -> None:
    custom = OpenClip(FACTS_OF_TINY, f"{TINY}-custom", quick_gelu=True, weights=weights)
    assert np.allclose(custom.encode_text(PROMPTS), tiny(weights).encode_text(PROMPTS), rtol=1e-6, atol=1e-7)


def test_building_moves_no_global_random_stream_and_says_nothing(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with caplog.at_level(logging.WARNING):
        tiny(weights)
    assert torch.equal(torch.rand(3), expected)
    assert not caplog.records


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape", "nan"])
def test_files_that_do_not_fit_are_refused(network: Any, tmp_path: Path, fault: str) -> None:
    state = dict(network.state_dict())
    if fault == "missing":
        del state["visual.proj"]
    elif fault == "unexpected":
        state["visual.extra"] = torch.ones(1)
    elif fault == "shape":
        state["visual.proj"] = torch.ones(2, 2)
    else:
        state["visual.proj"] = state["visual.proj"] * float("nan")
    path = tmp_path / "bad.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"visual\.(proj|extra)"):
        tiny(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"12345678{not json", b"<html>"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        tiny(path)
    with pytest.raises(CheckpointError):
        tiny(tmp_path / "absent.pt")


class Tree(torch.nn.Module):
    """Modules nested like the names of a state dict, as float16 parameters: the form of OpenAI's files."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(first, torch.nn.Parameter(tensor.half()))
        for first, inner in children.items():
            self.add_module(first, Tree(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def archive(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "published.pt"
    tree = Tree(dict(network.state_dict()))
    tree.register_buffer("input_resolution", torch.tensor(32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(tree), path)
    return path


def test_a_published_torchscript_archive_is_read_without_its_code(
    network: Any, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.jit, "load", None)
    known = asset_catalogue.Published(
        asset_catalogue.Asset("x", "https://example.org/x", file_sha256(archive), "x.pt"), "tests", "MIT"
    )
    monkeypatch.setitem(ASSETS._items, "clip-vit-b-32", known)
    extractor = tiny(archive)
    expected = {name: tensor.half().float() for name, tensor in network.state_dict().items()}
    for name, tensor in extractor._network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_any_other_torchscript_archive_is_refused(archive: Path) -> None:
    with pytest.raises(CheckpointError, match="TorchScript") as caught:
        tiny(archive)
    assert caught.value.exit_code == 6


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    import os

    path = tmp_path / "evil.pt"
    torch.save({"a": os.getcwd}, path)
    with pytest.raises(UnsafeCheckpointError):
        tiny(path)


@pytest.mark.parametrize("name", OPENAI_ARCHITECTURES)
def test_without_network_it_says_what_to_fetch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        build_extractor(name)
    assert caught.value.exit_code == 75
    assert ASSETS[name].asset.url in (caught.value.hint or "")
    assert str(tmp_path) in (caught.value.hint or "")


@pytest.mark.parametrize(("name", "architecture"), OPENAI_ARCHITECTURES.items())
def test_facts_agree_with_open_clip(name: str, architecture: str) -> None:
    config = open_clip.get_model_config(architecture)
    training = open_clip.get_pretrained_cfg(architecture, "openai")
    facts = FACTS[name]
    assert facts.dimensions("image") == config["embed_dim"]
    assert training["url"] == ASSETS[name].asset.url
    assert ASSETS[name].asset.sha256 in training["url"]
    assert training["quick_gelu"]
    assert facts.encodes_text
    assert name in EXTRACTORS


def test_registered_names_build_their_architecture(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, bool | None]] = []

    def record(architecture: str, *, quick_gelu: bool | None) -> Any:
        built.append((architecture, quick_gelu))
        return random_network(TINY, quick_gelu=quick_gelu)

    monkeypatch.setattr("evalkit.extractors.clip.random_network", record)
    for name in OPENAI_ARCHITECTURES:
        assert not build_extractor(name, weights=weights).published
    assert built == [(architecture, True) for architecture in OPENAI_ARCHITECTURES.values()]


def test_generic_names(weights: Path) -> None:
    facts = FACTS[f"open-clip:{TINY}"]
    assert f"open-clip:{TINY}" in FACTS
    assert facts.heads == (("image", 24),)
    extractor = build_extractor(f"open-clip:{TINY}", weights=weights)
    plain = tiny(weights, quick_gelu=None)
    images = noise(2)
    assert torch.equal(extractor(images, ["image"])["image"], plain(images, ["image"])["image"])
    assert not extractor.published
    with pytest.raises(OfflineError, match="must be given") as caught:
        build_extractor("open-clip:ViT-B-32:laion2b_s34b_b79k")
    assert "huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in (caught.value.hint or "")
    assert "--weights" in (caught.value.hint or "")


def test_a_tag_brings_its_own_preprocessing_and_known_files() -> None:
    openai = FACTS["open-clip:ViT-B-32:openai"]
    assert openai.assets == ("clip-vit-b-32",)
    assert openai.presets[0][1] == clip_presets()[0][1]
    siglip = FACTS["open-clip:ViT-B-16-SigLIP:webli"]
    assert siglip.presets[0][1].resizer == "pil-bicubic-uint8"
    assert siglip.presets[0][1].mean == (0.5, 0.5, 0.5)
    assert not siglip.encodes_text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("open-clip:ViT-B-33", "ViT-B-32"),
        ("open-clip:ViT-B-32:laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("open-clip:", "known"),
    ],
)
def test_misspelt_names_are_explained(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_extractor(name)
    assert hint in (caught.value.hint or "")


def test_towers_of_the_hub_are_refused_without_a_download() -> None:
    with pytest.raises(UsageError, match="hub"):
        random_network("xlm-roberta-base-ViT-B-32", quick_gelu=None)


def test_wrong_requests_are_refused(weights: Path) -> None:
    extractor = tiny(weights)
    with pytest.raises(UsageError, match="head"):
        extractor(noise(), ["pooled"])
    with pytest.raises(UsageError, match="uint8"):
        extractor(noise().float(), ["image"])
    with pytest.raises(InvalidInputError):
        extractor(noise()[:, :2], ["image"])
    with pytest.raises(UsageError, match="preset"):
        tiny(weights, preset="clean")
