"""PixelCNN++: the public layout, weight norm and shifts against torch's own, the mixture, cached sampling."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from evalkit.errors import CheckpointError
from evalkit.generators.autoregressive import logistic_mixture
from evalkit.generators.autoregressive.building import build_plus
from evalkit.generators.autoregressive.plus import (
    PixelCNNPlus,
    PixelCNNPlusConfig,
    Shifted,
    ShiftedUp,
    WeightNorm,
)
from evalkit.generators.autoregressive.plus_cache import sample, sample_naively
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.sampling import SamplingOptions
from tests.generators.layouts import tensors

SMALL = PixelCNNPlusConfig(blocks=1, width=6, mixtures=3, resolution=8)


def _network() -> PixelCNNPlus:
    torch.manual_seed(0)
    network = PixelCNNPlus(SMALL).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def _checkpoint(state: dict[str, torch.Tensor], **given: object) -> Checkpoint:
    return Checkpoint(tensors=state, sha256="0" * 64, format="torch", layout="pixelcnn-pp", given=given)


def test_the_public_layout_loads_and_samples_its_first_rows():
    """The first two rows only: a whole image of the full size takes half a minute on one core."""
    generator = build_plus(_checkpoint(tensors("pixelcnn-pp-cifar10"), resolution=32), SamplingOptions())
    assert generator.network.config == PixelCNNPlusConfig(blocks=5, width=160, mixtures=10, resolution=32)
    uniforms = generator._uniforms(np.array([1, 2]), 13)
    image = sample(generator.exact, uniforms, rows=2)
    assert bool(torch.isfinite(image).all())
    assert float(image[:, :, :2].std()) > 0.1
    assert not torch.equal(image[0], image[1])


def test_the_resolution_is_asked_for():
    with pytest.raises(CheckpointError, match="resolution"):
        build_plus(_checkpoint(_network().state_dict()), SamplingOptions())


def test_cached_sampling_is_plain_sampling():
    network = _network()
    uniforms = torch.rand(2, 8, 8, 6, generator=torch.Generator().manual_seed(1))
    cached = sample(network, uniforms)
    assert float((cached - sample_naively(network, uniforms)).abs().max()) < 1e-12
    assert float(cached.std()) > 0.1


def test_an_image_does_not_depend_on_its_batch():
    state = {k: v.float() for k, v in _network().state_dict().items()}
    generator = build_plus(_checkpoint(state, resolution=8), SamplingOptions())
    together = generator.generate(np.array([3, 4, 5]))
    assert torch.equal(together[1:2], generator.generate(np.array([4])))
    assert generator.evaluations_per_image == 64


def test_parameters_depend_on_everything_before_and_nothing_else():
    network = _network()
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[0, 4, 3].square().sum(), images)
    seen = gradient[0].abs().sum(dim=0) > 0
    position = torch.arange(64).view(8, 8)
    assert not bool(seen[position >= 4 * 8 + 3].any())
    assert bool(seen[:4].all())  # no blind spot: every pixel of the rows above
    assert bool(seen[4, :3].all())


@pytest.mark.parametrize("both", [True, False])
def test_weight_norm_and_the_shifts_are_torch_s_own(both):
    torch.manual_seed(1)
    kernel = (2, 3) if both else (2, 2)
    layer = Shifted(3, 4, kernel, both=both)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its older weight norm deprecated; files hold its names
        reference = torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 4, kernel, stride=2))
        up = torch.nn.utils.weight_norm(torch.nn.ConvTranspose2d(4, 4, kernel, 2, output_padding=1))
    layer.conv.weight_g.data.uniform_(0.5, 2.0)
    layer.conv.bias.data.normal_()
    reference.load_state_dict(layer.conv.state_dict())
    x = torch.randn(2, 3, 6, 6)
    padding = (1, 1, 1, 0) if both else (1, 0, 1, 0)
    expected = reference(torch.nn.functional.pad(x, padding))
    assert torch.allclose(layer(x, stride=2), expected, atol=1e-6)
    grow = ShiftedUp(4, kernel, both=both)
    grow.deconv.weight_g.data.uniform_(0.5, 2.0)
    up.load_state_dict(grow.deconv.state_dict())
    raw = up(expected)  # 3 -> 7 rows, 8 or 7 columns
    assert torch.allclose(grow(expected), raw[:, :, :6, 1:7] if both else raw[:, :, :6, :6], atol=1e-6)


def test_a_shift_leaves_zeros_not_biases():
    layer = Shifted(1, 1, (2, 1), both=False)
    layer.conv.bias.data.fill_(5.0)
    y = layer(torch.randn(1, 1, 3, 3), right=1)
    assert bool((y[..., 0] == 0).all())
    assert bool((y[..., 1] != 0).all())


def test_the_length_of_a_weight_is_g():
    layer = WeightNorm((5, 3, 2, 2), 5)
    layer.weight_g.data.uniform_(1.0, 3.0)
    assert torch.allclose(layer.weight.flatten(1).norm(dim=1), layer.weight_g.flatten())


def _mass(value: int, mean: float, log_scale: float) -> float:
    """Logistic mass of the bin of an 8-bit value; those of 0 and 255 reach to infinity."""

    def below(x: float) -> float:
        return 1.0 / (1.0 + math.exp(-(x - mean) / math.exp(log_scale)))

    x = value / 127.5 - 1.0
    upper = 1.0 if value == 255 else below(x + 1.0 / 255.0)
    return upper - (0.0 if value == 0 else below(x - 1.0 / 255.0))


@pytest.mark.parametrize("pixel", [(0, 255, 7), (255, 0, 130), (60, 64, 90)])
def test_the_likelihood_is_the_mass_of_the_bins(pixel):
    parameters = torch.randn(1, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    p = parameters[0].tolist()
    weights = [math.exp(v) / sum(math.exp(w) for w in p[:2]) for v in p[:2]]
    r, g, _ = (v / 127.5 - 1.0 for v in pixel)
    total = 0.0
    for k, weight in enumerate(weights):
        (mr, sr, a), (mg, sg, b), (mb, sb, c) = (
            [p[2 + 6 * ch + 2 * q + k] for q in range(3)] for ch in range(3)
        )
        a, b, c = math.tanh(a), math.tanh(b), math.tanh(c)
        moved = (mr, mg + a * r, mb + b * r + c * g)
        masses = [_mass(v, m, s) for v, m, s in zip(pixel, moved, (sr, sg, sb), strict=True)]
        total += weight * math.prod(masses)
    pixels = torch.tensor([pixel], dtype=torch.float64) / 127.5 - 1.0
    assert float(logistic_mixture.log_likelihood(parameters, pixels)) == pytest.approx(
        math.log(total), rel=1e-9
    )


def test_drawn_values_follow_the_mixture():
    """Red's share below zero is the mixture of the components' logistic masses."""
    parameters = torch.randn(1, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    uniforms = torch.rand(40_000, 6, generator=torch.Generator().manual_seed(5))
    drawn = logistic_mixture.sample(parameters.expand(40_000, -1), uniforms)
    logits, means, log_scales, _ = logistic_mixture.split(parameters)
    below = torch.sigmoid((0.0 - means[0, 0]) / log_scales[0, 0].exp())
    expected = float((torch.softmax(logits[0], dim=0) * below).sum())
    assert float((drawn[:, 0] < 0).double().mean()) == pytest.approx(expected, abs=0.01)


def test_green_and_blue_move_with_the_channels_before():
    parameters = torch.zeros(1, 10)  # one component: [logit, red (mean, scale, a), green (..b), blue (..c)]
    parameters[0, 1:] = torch.tensor([0.5, -7.0, 0.3, 0.1, -7.0, -0.4, 0.2, -7.0, 0.7])
    uniforms = torch.full((1, 4), 0.5)
    red, green, blue = logistic_mixture.sample(parameters, uniforms)[0].tolist()
    a, b, c = math.tanh(0.3), math.tanh(-0.4), math.tanh(0.7)
    assert red == pytest.approx(0.5, abs=1e-5)
    assert green == pytest.approx(0.1 + a * red, abs=1e-5)
    assert blue == pytest.approx(0.2 + b * red + c * green, abs=1e-5)


def test_golden_numbers_of_the_public_code():
    """From pclucas14/pixel-cnn-pp (model.py) with these weights and this image, in float64."""
    network = PixelCNNPlus(SMALL).double().requires_grad_(False)
    for index, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + index).view(tensor.shape)
        # The reference was filled in float32.
        tensor.copy_((wave.abs() + 0.5 if name.endswith("weight_g") else 0.5 * wave).float())
    image = torch.sin(torch.arange(192, dtype=torch.float64)).view(1, 3, 8, 8)
    parameters = network(image)
    expected = [0.108858, -0.497176, 2.856457, -0.592815, -2.83835, 1.39146, -0.439341, -2.465064]
    assert parameters[0, 5, 3, :8].tolist() == pytest.approx(expected, abs=2e-6)
    assert float(parameters.square().mean()) == pytest.approx(7.584889, abs=2e-6)


def test_a_bin_of_almost_no_mass_has_its_density_in_full_precision():
    """Far out, log f(x) + log(2/255) by the definition of the logistic density, with |x - m| / s = 200."""
    parameters = torch.zeros(1, 10, dtype=torch.float64)
    parameters[0, 1:4] = torch.tensor([0.0, -5.0, 0.0])  # red: mean, log scale, coefficient
    red = 200.0 * math.exp(-5.0)
    others = [math.log(1 / (1 + math.exp(-1 / 255)) - 1 / (1 + math.exp(1 / 255)))] * 2
    pixel = torch.tensor([[red - 1.0, 0.0, 0.0]], dtype=torch.float64)
    parameters[0, 1] = -1.0
    found = float(logistic_mixture.log_likelihood(parameters, pixel))
    assert found == pytest.approx(-200.0 + 5.0 - math.log(127.5) + sum(others), rel=1e-11)
