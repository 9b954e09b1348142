"""Layers of the residual and attentive generators, each against its definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evalkit.generators.gan.convolutional.attentive import FullAttention, NormalisedTransposed
from evalkit.generators.gan.convolutional.residual import (
    ConditionalNorm,
    ResidualConfig,
    ResidualGenerator,
    SelfAttention,
)
from evalkit.generators.gan.convolutional.spectral import SpectralConv
from tests.generators.gan.seeded import latents

CONFIG = ResidualConfig(
    latent_dim=128,
    num_classes=10,
    channels=(16, 16, 16, 16),
    upsampling="nearest",
    attention=0,
    bottom_width=4,
    spectral_norm=False,
)


def test_repeating_pixels_then_convolving_is_one_transposed_convolution():
    """Sampling takes a shortcut that training does not."""
    torch.manual_seed(0)
    network = ResidualGenerator(CONFIG).eval()
    z, labels = latents(3, 128), torch.tensor([0, 9, 4])
    step_by_step = network(z, labels).detach()
    with torch.no_grad():
        assert torch.allclose(network(z, labels), step_by_step, atol=1e-5)


def test_conditional_norm_takes_the_gain_first():
    norm = ConditionalNorm(2, 3).eval()
    with torch.no_grad():
        norm.embed.weight.copy_(torch.arange(12.0).view(3, 4))
        norm.bn.running_mean.copy_(torch.tensor([1.0, 2.0]))
        norm.bn.running_var.copy_(torch.tensor([4.0, 9.0]))
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0]).add(1e-5).sqrt()
    expected = (x[0] - mean[:, None, None]) / deviation[:, None, None]
    expected = expected * torch.tensor([8.0, 9.0])[:, None, None] + torch.tensor([10.0, 11.0])[:, None, None]
    torch.testing.assert_close(norm(x, torch.tensor([2]))[0], expected)


def test_attention_pixel_by_pixel():
    torch.manual_seed(0)
    block = SelfAttention(16, spectral=False)
    nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(1, 16, 4, 4)
    query, key, value = block.theta(x)[0], F.max_pool2d(block.phi(x), 2)[0], F.max_pool2d(block.g(x), 2)[0]
    expected = torch.empty(1, 8, 4, 4)
    for i in range(4):
        for j in range(4):
            share = torch.softmax(torch.einsum("c,chw->hw", query[:, i, j], key).flatten(), 0).view(2, 2)
            expected[0, :, i, j] = torch.einsum("hw,chw->c", share, value)
    torch.testing.assert_close(block(x), x + 0.7 * block.o(expected), rtol=1e-4, atol=1e-5)


def test_spectral_weight_is_what_torch_has_in_evaluation_mode():
    torch.manual_seed(0)
    public = nn.utils.spectral_norm(nn.Conv2d(6, 5, 3, padding=1))
    x = torch.randn(2, 6, 8, 8)
    public(x)  # one power iteration
    public.eval()
    ours = SpectralConv(5, 6, 3, 3)
    ours.load_state_dict(public.state_dict(), strict=True)
    torch.testing.assert_close(ours(x), public(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.weight.dtype == torch.float32
        assert torch.equal(ours.weight, public.weight)


def test_the_wrapper_of_sagan_64_iterates_once_and_keeps_nothing():
    torch.manual_seed(0)
    layer = NormalisedTransposed(6, 5, stride=2, padding=1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    flat = layer.weight_bar.detach().flatten(1).double()
    v = F.normalize(flat.T @ layer.weight_u.detach().double(), dim=0)
    u = F.normalize(flat @ v, dim=0)
    expected = layer.weight_bar.detach().double() / (u @ flat @ v)
    torch.testing.assert_close(layer.weight.detach().double(), expected)
    layer(torch.randn(1, 6, 4, 4))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize(
    "wrong",
    [
        {"upsampling": "cubic"},
        {"channels": (16,)},
        {"channels": (16, 0)},
        {"attention": 7},
        {"bottom_width": 0},
    ],
)
def test_impossible_residual_sizes(wrong):
    with pytest.raises(ValueError, match=r"upsampling is|impossible|attention at"):
        dataclasses.replace(CONFIG, **wrong)


def test_full_attention_pixel_by_pixel():
    torch.manual_seed(0)
    block = FullAttention(16)
    x = torch.randn(1, 16, 3, 3)
    assert torch.equal(block(x), x)
    nn.init.constant_(block.gamma, 0.7)
    query, key, value = (layer(x)[0] for layer in (block.query_conv, block.key_conv, block.value_conv))
    expected = torch.empty(16, 3, 3)
    for i in range(3):
        for j in range(3):
            share = torch.softmax(torch.einsum("c,chw->hw", query[:, i, j], key).flatten(), 0).view(3, 3)
            expected[:, i, j] = torch.einsum("hw,chw->c", share, value)
    torch.testing.assert_close(block(x)[0], x[0] + 0.7 * expected, rtol=1e-4, atol=1e-5)
