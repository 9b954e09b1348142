"""The blocks of style-based generators against their definitions, written out the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch.nn import functional as F

from evalkit.generators.gan.style_layers import (
    EqualisedConv,
    EqualisedLinear,
    StyleConv,
    ToRGB,
    blur,
    demodulation,
    leaky,
    modulated_conv,
    normalise_second_moment,
    upsample,
)

KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16.0


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)  # not the layers' 0: equal draws would be correlated


def grouped(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, *, up: bool) -> torch.Tensor:
    """Karras et al. 2020, eq. 1 to 3 as written: modulate and demodulate each image's own weights."""
    n, _, h, w = x.shape
    own = weight[None] * style[:, None, :, None, None]
    own = own / (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    flat = x.reshape(1, -1, h, w)
    if not up:
        out = F.conv2d(flat, own.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
        return out.view(n, -1, h, w)
    out = F.conv_transpose2d(flat, own.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    return blur(out.view(n, -1, 2 * h + 1, 2 * w + 1))


@pytest.mark.parametrize("up", [False, True])
def test_scaled_inputs_are_the_grouped_convolution(rng, up):
    x = torch.randn(3, 5, 6, 6, generator=rng, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3, generator=rng, dtype=torch.float64)
    style = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    ours = modulated_conv(x, weight, style, up=up) * demodulation(weight, style)[:, :, None, None]
    torch.testing.assert_close(ours, grouped(x, weight, style, up=up), rtol=1e-12, atol=1e-12)


def test_demodulated_output_has_unit_variance_whatever_the_style(rng):
    x = torch.randn(64, 32, 12, 12, generator=rng)
    weight = torch.randn(16, 32, 3, 3, generator=rng)
    style = 10.0 ** torch.empty(64, 32).uniform_(-2, 2, generator=rng)
    y = modulated_conv(x, weight, style) * demodulation(weight, style)[:, :, None, None]
    inner = y[:, :, 1:-1, 1:-1]  # the border sees zeros
    assert float(inner.var()) == pytest.approx(1.0, abs=0.02)
    plain = modulated_conv(x, weight, style)[:, :, 1:-1, 1:-1].var(dim=(1, 2, 3))
    assert float(plain.max() / plain.min()) > 5.0  # what demodulation removes


def test_upsampling_is_zero_insertion_and_a_filter(rng):
    x = torch.randn(2, 3, 5, 7, generator=rng, dtype=torch.float64)
    inserted = torch.zeros(2, 3, 10, 14, dtype=torch.float64)
    inserted[:, :, ::2, ::2] = x
    # Centre of the even kernel: [1, 3, 3, 1] reaches two back and one forward of a zero-inserted pixel.
    expected = [
        [convolve2d(plane, KERNEL, mode="full")[1:-2, 1:-2] for plane in image] for image in inserted.numpy()
    ]
    assert upsample(x).numpy() == pytest.approx(np.array(expected), rel=1e-12, abs=1e-12)


def test_upsampling_is_bilinear_inside(rng):
    x = torch.randn(2, 3, 6, 6, generator=rng, dtype=torch.float64)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(x)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1])


def test_blur_is_the_two_dimensional_filter(rng):
    x = torch.randn(2, 3, 7, 9, generator=rng, dtype=torch.float64)
    expected = [
        [convolve2d(np.pad(plane, 1), KERNEL, mode="valid") for plane in image] for image in x.numpy()
    ]
    assert blur(x).numpy() == pytest.approx(np.array(expected), rel=1e-12, abs=1e-12)
    assert blur(torch.ones(1, 1, 8, 8))[0, 0, 3, 3].item() == pytest.approx(4.0)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_equalised_layers_start_at_unit_gain(rng, rate):
    torch.manual_seed(0)
    layer = EqualisedLinear(256, 256, rate=rate, bias=0.5)
    y = layer(torch.randn(512, 256, generator=rng)).detach()
    assert float(y.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(y.var()) == pytest.approx(1.0, abs=0.05)


def test_the_rate_scales_what_an_optimizer_step_changes(rng):
    torch.manual_seed(0)
    x, moved = torch.randn(4, 8, generator=rng), {}
    for rate in (1.0, 0.01):
        layer = EqualisedLinear(8, 3, rate=rate)
        before = (layer.weight * layer.scale).detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        layer(x).sum().backward()
        optimizer.step()
        moved[rate] = float((layer.weight * layer.scale - before).detach().abs().max())
    assert moved[0.01] == pytest.approx(0.01 * moved[1.0], rel=1e-3)
    # Adam's first step is its rate in each weight, times the run-time scale.
    assert moved[1.0] == pytest.approx(1e-2 / math.sqrt(8), rel=1e-3)


def test_equalised_convolution_is_a_convolution_and_the_rectifier(rng):
    torch.manual_seed(0)
    layer = EqualisedConv(4, 6, 4, stride=2)
    layer.bias.data.normal_(generator=rng)
    x = torch.randn(2, 4, 8, 8, generator=rng)
    plain = F.conv2d(x, layer.weight / math.sqrt(4 * 16), layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), leaky(plain))
    assert layer(x).shape == (2, 6, 4, 4)


def test_the_rectifier_about_keeps_the_second_moment(rng):
    x = torch.randn(100_000, generator=rng)
    # Exactly (1 + 0.2^2) / 2 * 2 = 1.04 for symmetric input.
    assert float(leaky(x).square().mean()) == pytest.approx(1.04, abs=0.02)


def test_normalisation_to_the_unit_second_moment(rng):
    z = torch.randn(5, 64, generator=rng) * torch.tensor([[1e-2], [0.1], [1.0], [10.0], [1e3]])
    normalised = normalise_second_moment(z)
    torch.testing.assert_close(normalised.square().mean(dim=1), torch.ones(5), rtol=1e-3, atol=0)
    torch.testing.assert_close(normalise_second_moment(z[2:] * 7.0), normalised[2:], rtol=1e-5, atol=1e-6)
    assert bool(torch.isfinite(normalise_second_moment(torch.zeros(1, 4))).all())


@pytest.mark.parametrize("up", [False, True])
def test_a_style_convolution_is_its_parts_in_order(rng, up):
    torch.manual_seed(0)
    layer = StyleConv(6, 4, style_dim=5, up=up)
    layer.noise_strength.data.fill_(0.7)
    layer.bias.data.normal_(generator=rng)
    x, w = torch.randn(2, 6, 4, 4, generator=rng), torch.randn(2, 5, generator=rng)
    noise = torch.randn(2, 1, *([8, 8] if up else [4, 4]), generator=rng)
    weight = layer.weight / math.sqrt(6 * 9)
    expected = grouped(x, weight, layer.affine(w), up=up) + 0.7 * noise + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x, w, noise), leaky(expected), rtol=1e-4, atol=1e-5)


def test_to_rgb_is_modulated_and_not_demodulated(rng):
    torch.manual_seed(0)
    layer = ToRGB(6, style_dim=5)
    x, w = torch.randn(2, 6, 4, 4, generator=rng), torch.randn(2, 5, generator=rng)
    expected = torch.einsum("nihw,oi,ni->nohw", x, layer.weight[:, :, 0, 0] / math.sqrt(6), layer.affine(w))
    torch.testing.assert_close(layer(x, w), expected, rtol=1e-4, atol=1e-5)
