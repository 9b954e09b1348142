"""LPIPS, perceptual and style distance against the lpips package and torchvision on shared random weights."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.extractors.backbones import ALEXNET_TOPOLOGY, TOPOLOGIES, Backbone, read_backbone
from evalkit.extractors.efficientnet_lite import EfficientNetLite0
from evalkit.perceptual import build_pair_measure
from evalkit.perceptual import heads as heads_module
from evalkit.perceptual.distance import StageDistance
from evalkit.perceptual.heads import HEADS_SHA256, published_heads
from evalkit.perceptual.networks import BackboneStages, in_unit_range
from evalkit.perceptual.style import gram_matrix

from .conftest import noisy, photographs, random_state

NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
every = pytest.mark.parametrize("variant", NETWORKS)


def peer(variant, *, dtype=torch.float32, **options):
    """lpips.LPIPS with our random backbone in place of its own."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of its 'pretrained' argument
        model = lpips.LPIPS(net=variant, pnet_rand=True, verbose=False, **options)
    state = random_state(NETWORKS[variant])
    layers = {name: layer for part in model.net.children() for name, layer in part.named_children()}
    for index, layer in layers.items():
        for key, parameter in layer.named_parameters():
            parameter.data.copy_(state[f"features.{index}.{key}"])
    return model.to(dtype)


def images(size=64):
    return noisy(photographs(size), 40), photographs(size)


def scaled(x):
    return x.float() / 127.5 - 1


@every
def test_lpips_agrees_with_the_package(variant, backbone_files):
    a, b = images(67)
    ours = build_pair_measure(f"lpips-{variant}", weights=backbone_files, device="cpu")
    with torch.inference_mode():
        expected = peer(variant)(scaled(a), scaled(b)).flatten()
    # Both sides in float32: 1e-6 of the value.
    torch.testing.assert_close(ours(a, b, masks={})[f"lpips-{variant}"], expected.double(), rtol=1e-6, atol=0)


@every
def test_lpips_agrees_in_float64(variant, backbone_files):
    a, b = images()
    name = NETWORKS[variant]
    network = BackboneStages(name, weights=backbone_files[name], device="cpu", dtype=torch.float64)
    heads = [head.double() for head in published_heads(variant)]
    ours = StageDistance(name="lpips", network=network, minimum_size=31, heads=heads)
    x, y = (side.double() / 127.5 - 1 for side in (a, b))
    with torch.inference_mode():
        model = peer(variant, dtype=torch.float64)
        # Its shift and scale are float32 constants, ours are not rounded.
        model.scaling_layer.shift.copy_(network._shift)
        model.scaling_layer.scale.copy_(network._scale)
        expected = model(x, y).flatten()
    torch.testing.assert_close(ours.distance(x, y), expected, rtol=1e-12, atol=0)


@every
def test_regions_average_the_packages_spatial_map(variant, backbone_files):
    a, b = images()
    mask = torch.from_numpy(np.random.default_rng(3).random((3, 1, 64, 64)) < 0.2)
    ours = build_pair_measure(f"lpips-{variant}", weights=backbone_files, device="cpu")
    with torch.inference_mode():
        spatial = peer(variant, spatial=True)(scaled(a), scaled(b)).double()
    expected = torch.stack([spatial[i][mask[i]].mean() for i in range(3)])
    found = ours(a, b, masks={"scatter": mask})[f"lpips-{variant}/scatter"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@every
def test_distance_without_heads_agrees_with_the_packages_baseline(variant, backbone_files):
    a, b = images()
    name = f"pd-{NETWORKS[variant]}"
    with torch.inference_mode():
        expected = peer(variant, lpips=False)(scaled(a), scaled(b)).flatten().double()
    found = build_pair_measure(name, weights=backbone_files, device="cpu")(a, b, masks={})[name]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_layout_is_torchvisions(name):
    from torchvision import models

    with torch.device("meta"):
        layout = {key: tuple(t.shape) for key, t in getattr(models, name)().state_dict().items()}
    features = {key: shape for key, shape in layout.items() if not key.startswith("classifier.")}
    assert features == TOPOLOGIES[name].layout()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_least_size_is_the_least(name):
    topology = TOPOLOGIES[name]
    network = Backbone(topology, random_state(name), device=torch.device("cpu"))
    assert len(topology.stages) == len(topology.stage_names)
    last = network.stages(torch.zeros(1, 3, topology.minimum_size, topology.minimum_size))[-1]
    assert min(last.shape[2:]) >= 1
    object.__setattr__(topology, "minimum_size", topology.minimum_size - 1)
    try:
        with pytest.raises(RuntimeError):
            network.stages(torch.zeros(1, 3, topology.minimum_size, topology.minimum_size))
    finally:
        object.__setattr__(topology, "minimum_size", topology.minimum_size + 1)


@pytest.mark.parametrize("size", [(1, 31, 35), (5, 64, 64), (2, 100, 150), (0, 64, 64)])
def test_packed_weights_give_the_same_stages_also_in_a_copy(size):
    topology, state = TOPOLOGIES["alexnet"], random_state("alexnet")
    plain, packed = (
        Backbone(topology, state, device=torch.device("cpu"), packed=packed) for packed in (False, True)
    )
    images = torch.rand(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(2)) * 4 - 2
    with torch.inference_mode():
        expected, found = plain.stages(images), packed.stages(images)
        again = copy.deepcopy(packed).stages(images)
    for stage, other, repeated in zip(expected, found, again, strict=True):
        largest = float(stage.max()) if len(stage) else 0.0
        torch.testing.assert_close(other, stage, rtol=0, atol=5e-7 * largest)
        assert torch.equal(other, repeated)


def test_floats_are_not_quantised(backbone_files):
    lpips = build_pair_measure("lpips-vgg", weights=backbone_files, device="cpu")
    x = scaled(photographs(32))
    step = x + 1e-4 * torch.sin(torch.arange(32) / 3.0)
    found = lpips.distance(step, x)
    assert (found > 0).all()
    # Small steps are quadratic: a tenth of the step is a hundredth of the distance.
    tenfold = lpips.distance(x + 1e-3 * torch.sin(torch.arange(32) / 3.0), x)
    torch.testing.assert_close(tenfold / found, torch.full_like(found, 100), rtol=0.2, atol=0)


@pytest.mark.parametrize("name", ["lpips-alex", "pd-efficientnet-lite0"])
def test_floats_and_bytes_agree_and_features_can_be_kept(name, backbone_files):
    a, b = images()
    measure = build_pair_measure(name, weights=backbone_files, device="cpu")
    expected = measure(a, b, masks={})[name]
    kept = measure.features(b)
    for found in (
        measure.distance(scaled(a), scaled(b)),
        measure.distance(a, b),
        measure.between(measure.features(a), kept),
        measure.between(measure.features(scaled(a)), kept),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_float_inputs_are_checked():
    measure = build_pair_measure("pd-efficientnet-lite0", weights={}, device="cpu")
    x = scaled(photographs(32))
    with pytest.raises(InvalidInputError, match="NaN"):
        measure.distance(x * math.nan, x)
    with pytest.raises(InvalidInputError, match="one shape"):
        measure.distance(x[:1], x)
    with pytest.raises(UsageError, match="float16"):
        measure.features(x.half())
    with pytest.raises(InvalidInputError, match="n, 3, h, w"):
        in_unit_range(x[0])


def test_stages_of_the_embedded_extractor_are_its_blocks():
    extractor = EfficientNetLite0()
    images = photographs(64)
    with torch.inference_mode():
        stages = extractor.stages(images)
        floats = extractor.stages(images.float())
    shapes = [(16, 112), (24, 56), (40, 28), (112, 14), (320, 7)]
    assert [tuple(stage.shape) for stage in stages] == [(3, c, s, s) for c, s in shapes]
    assert all(torch.equal(one, other) for one, other in zip(stages, floats, strict=True))
    block = extractor(images, ["block"])["block"]
    # Of the largest feature: a chunk runs on one thread, stages() on all, and they sum in other orders.
    assert (stages[-1].mean((2, 3)) - block).abs().max() <= 1e-5 * block.abs().max()


def test_stages_of_the_embedded_extractor_agree_with_timm():
    timm = pytest.importorskip("timm")
    from evalkit.extractors.efficientnet_lite import bundled_weights

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = torch.load(bundled_weights(), weights_only=True)
    # The same tensors in the same order under other names; the head's counter too.
    ours = [tensor for name, tensor in state.items()]
    names = list(model.state_dict())
    assert len(names) == len(ours)
    model.load_state_dict(dict(zip(names, ours, strict=True)))
    images = noisy(photographs(224)[:1], 0)
    seen = []
    ends = {"blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.4.2", "blocks.6.0"}
    for name, module in model.named_modules():
        if name in ends:
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        model((images.float() - 127) / 128)
        stages = EfficientNetLite0().stages(images)
    for found, expected in zip(stages, seen, strict=True):
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_distance_is_its_definition_on_the_embedded_network():
    a, b = images(32)
    with torch.inference_mode():
        extractor = EfficientNetLite0()
        expected = torch.zeros(3, dtype=torch.float64)
        for f, g in zip(extractor.stages(a), extractor.stages(b), strict=True):
            cosine = torch.nn.functional.cosine_similarity(f.double(), g.double(), dim=1)
            expected += (2 - 2 * cosine).mean((1, 2))
    name = "pd-efficientnet-lite0"
    torch.testing.assert_close(
        build_pair_measure(name, weights={}, device="cpu")(a, b, masks={})[name], expected, rtol=1e-5, atol=0
    )


def test_style_is_its_definition(backbone_files):
    """Four times the paper's eq. 4, summed over stages, for one picture."""
    a, b = (side[:1] for side in images(32))
    name = "style-vgg16"
    found = build_pair_measure(name, weights=backbone_files, device="cpu")(a, b, masks={})[name]
    network = BackboneStages("vgg16", weights=backbone_files["vgg16"], device="cpu", dtype=torch.float64)
    expected = 0.0
    with torch.inference_mode():
        stages = zip(*(network.stages(x.double() / 127.5 - 1) for x in (a, b)), strict=True)
        for f, g in stages:
            c, pixels = f.shape[1], f.shape[2] * f.shape[3]
            gram_f, gram_g = (np.einsum("cp,dp->cd", *[side[0].flatten(1).numpy()] * 2) for side in (f, g))
            expected += 4 * ((gram_f - gram_g) ** 2).sum() / (4 * c**2 * pixels**2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_gram_matrix_of_a_region_is_that_of_its_pixels():
    stage = torch.randn(2, 5, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[..., :6, 4:] = True
    pixels = stage[:, :, :3, 2:].flatten(2)
    torch.testing.assert_close(gram_matrix(stage, mask), pixels @ pixels.mT / pixels.shape[-1])
    outside, share = gram_matrix(stage, ~mask), mask.double().mean()
    torch.testing.assert_close(share * gram_matrix(stage, mask) + (1 - share) * outside, gram_matrix(stage))


def test_style_sees_the_texture_and_not_its_places():
    """Two draws of one texture share a style and no pixel; a coarser texture has another style."""

    def texture(scale, seed):
        field = ndimage.gaussian_filter(
            np.random.default_rng(seed).normal(size=(1, 3, 96, 96)), (0, 0, scale, scale)
        )
        return torch.from_numpy(np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8))

    again, other, fine = texture(1, 1), texture(3, 2), texture(1, 0)
    ratios = {}
    for name in ("style-efficientnet-lite0", "pd-efficientnet-lite0"):
        measure = build_pair_measure(name, weights={}, device="cpu")
        ratios[name] = float(measure(again, fine, masks={})[name] / measure(other, fine, masks={})[name])
    assert ratios["style-efficientnet-lite0"] < 0.2
    assert ratios["pd-efficientnet-lite0"] > 0.5


def test_weights_of_ones_own_are_labelled(backbone_files):
    by_network = build_pair_measure("lpips-alex", weights=backbone_files, device="cpu")
    by_name = build_pair_measure(
        "lpips-alex", weights={"lpips-alex": backbone_files["alexnet"]}, device="cpu"
    )
    assert by_network.spec == by_name.spec
    assert not by_network.published
    params = dict(by_network.spec.params)
    assert params["heads_sha256"] == HEADS_SHA256["alex"]
    assert params["version"] == "0.1"
    assert build_pair_measure("pd-efficientnet-lite0", weights={}, device="cpu").published


def test_a_file_that_does_not_fit_is_refused(backbone_files, tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg16\.pth does not fit"):
        build_pair_measure("lpips-alex", weights={"alexnet": backbone_files["vgg16"]}, device="cpu")
    path = tmp_path / "features.pth"
    torch.save({k: v for k, v in random_state("alexnet").items() if "classifier" not in k}, path)
    assert set(read_backbone(ALEXNET_TOPOLOGY, path)) == set(ALEXNET_TOPOLOGY.layout())


def test_other_heads_are_refused(tmp_path, monkeypatch):
    assert [len(head) for head in published_heads("squeeze")] == [64, 128, 256, 384, 384, 512, 512]
    assert all((head >= 0).all() for variant in NETWORKS for head in published_heads(variant))
    monkeypatch.setitem(heads_module.HEADS_SHA256, "alex", "0" * 64)
    with pytest.raises(CheckpointError, match="not the published file"):
        published_heads("alex")
    monkeypatch.setattr(heads_module, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="not installed"):
        published_heads("vgg")
