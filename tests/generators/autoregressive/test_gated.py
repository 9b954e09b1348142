"""Gated PixelCNN: what each output depends on, gates against their formula, cached against plain sampling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.errors import CheckpointError, UsageError
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.autoregressive.categorical import draw
from evalkit.generators.autoregressive.gated import GatedLayer, GatedPixelCNN, GatedPixelCNNConfig, gate
from evalkit.generators.autoregressive.gated_cache import sample, sample_naively
from evalkit.generators.autoregressive.sampling import centred
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.sampling import quantise

PIXELS = GatedPixelCNNConfig(resolution=6, channels=3, values=8, features=8, layers=3, head=8, num_classes=4)
CODES = GatedPixelCNNConfig(
    resolution=5, channels=1, values=12, features=8, layers=2, head=8, num_classes=0, embedded=True
)


def _network(config: GatedPixelCNNConfig) -> GatedPixelCNN:
    torch.manual_seed(0)
    network = GatedPixelCNN(config).double().eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.mul_(1.5)  # sharper distributions than a fresh network's
    return network


def _labels(config: GatedPixelCNNConfig, n: int) -> torch.Tensor | None:
    return torch.arange(n) % config.num_classes if config.num_classes else None


@pytest.mark.parametrize("config", [PIXELS, CODES])
def test_cached_sampling_draws_what_plain_sampling_draws(config):
    network = _network(config)
    size = config.resolution
    uniforms = torch.rand(3, size, size, config.channels, generator=torch.Generator().manual_seed(1))
    cached = sample(network, _labels(config, 3), uniforms)
    assert torch.equal(cached, sample_naively(network, _labels(config, 3), uniforms))
    assert len(cached.unique()) > config.values // 2


@pytest.mark.parametrize("config", [PIXELS, CODES])
def test_an_output_depends_on_everything_before_it_and_nothing_else(config):
    """By gradients with respect to the input of the stacks; the head's channels by changed values."""
    network = _network(config)
    network.requires_grad_(requires_grad=True)
    size, row, column = config.resolution, 3, 2
    values = torch.randint(0, config.values, (1, config.channels, size, size))
    inputs = network.represent(values).detach().requires_grad_()
    v = h = inputs
    for layer in network.layers:
        v, h = layer(v, h, _labels(config, 1))
    (gradient,) = torch.autograd.grad(h[0, :, row, column].square().sum(), inputs)
    seen = gradient[0].abs().sum(dim=0) > 0
    position = torch.arange(size * size).view(size, size)
    # No blind spot: the reach of 3 + 3 (or 2) covers this small grid but its far corner columns.
    assert torch.equal(seen, position < row * size + column)


def test_channels_of_a_pixel_see_the_channels_before_them():
    network = _network(PIXELS)
    values = torch.randint(0, 8, (1, 3, 6, 6))
    before = network(values, torch.tensor([1]))
    for channel in range(3):
        changed = values.clone()
        changed[0, channel, 2, 3] = (changed[0, channel, 2, 3] + 3) % 8
        moved = (network(changed, torch.tensor([1])) != before).any(dim=-1)[0]
        here = moved[2, 3]
        assert here.tolist() == [other > channel for other in range(3)]
        assert not moved[:2].any()
        assert not moved[2, :3].any()
        assert moved[2, 4].all()


def test_the_gate_is_the_paper_s_with_the_class_in_both_halves():
    layer = GatedLayer(2, 2, reach=1, classes=3, first=True).requires_grad_(False)
    x = torch.randn(1, 2, 3, 3)
    labels = torch.tensor([2])
    v, h = layer(x, x, labels)
    terms = layer.classes.weight[2]
    row, column = 2, 1
    above = layer.vertical.bias + terms[:4]
    without = layer.vertical.bias.clone()
    for aside in (-1, 0, 1):
        product = layer.vertical.weight[:, :, 0, aside + 1] @ x[0, :, row - 1, column + aside]
        above, without = above + product, without + product
    assert torch.allclose(v[0, :, row, column], torch.tanh(above[:2]) * torch.sigmoid(above[2:]), atol=1e-6)
    left = layer.horizontal.weight[:, :, 0, 0] @ x[0, :, row, column - 1] + layer.horizontal.bias
    left = left + layer.across.weight[:, :, 0, 0] @ without + layer.across.bias + terms[4:]
    expected = layer.out.weight[:, :, 0, 0] @ gate(left[None])[0] + layer.out.bias
    assert torch.allclose(h[0, :, row, column], expected, atol=1e-6)


def test_drawing_follows_the_distribution_and_the_edges():
    logits = torch.log(torch.tensor([[0.2, 0.0, 0.5, 0.3]])).expand(5, -1)
    uniforms = torch.tensor([0.0, 0.1999, 0.2001, 0.6999, 0.9999999])
    assert draw(logits, uniforms).tolist() == [0, 0, 2, 2, 3]
    many = draw(logits[:1].expand(20_000, -1), torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(many, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0.2, 0.0, 0.5, 0.3], abs=0.015)


def test_every_level_comes_out_as_itself():
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(quantise(centred(levels, 256).float()).long(), levels)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = GatedPixelCNNConfig(resolution=8, features=8, layers=2, head=16)
    path = tmp_path_factory.mktemp("gated") / "gated.safetensors"
    state = _network(config).float().state_dict()
    save_checkpoint(
        path, state, architecture="gated-pixelcnn", config=dataclasses.asdict(config), training={}
    )
    return path


def test_an_image_does_not_depend_on_its_batch(checkpoint):
    generator = load_generator("gated-pixelcnn", checkpoint)
    seeds, labels = np.array([5, 2**62 + 1, 9, 77]), np.array([0, 3, 9, 3])
    together = generator.generate(seeds, labels=labels)
    assert together.shape == (4, 3, 8, 8)
    assert torch.equal(together[1:3], generator.generate(seeds[1:3], labels=labels[1:3]))
    assert len({image.numpy().tobytes() for image in together}) == 4
    assert not torch.equal(together[:1], generator.generate(seeds[:1], labels=np.array([1])))
    assert generator.evaluations_per_image == 64
    assert ("arithmetic", "float64") in generator.spec.params
    assert (generator.family, generator.num_classes, generator.resolution) == ("autoregressive", 10, 8)


def test_another_compute_type_is_refused(checkpoint):
    with pytest.raises(UsageError, match="float64"):
        load_generator("gated-pixelcnn", checkpoint, options=SamplingOptions(dtype="bfloat16"))


def test_impossible_sizes():
    with pytest.raises(ValueError, match="impossible"):
        GatedPixelCNNConfig(features=0)


def test_grey_pixels_give_three_equal_channels_and_codes_are_no_pixels(tmp_path):
    def saved(config: GatedPixelCNNConfig) -> str:
        path = tmp_path / f"{config.embedded}.safetensors"
        stated = dataclasses.asdict(config)
        state = _network(config).state_dict()
        save_checkpoint(path, state, architecture="gated-pixelcnn", config=stated, training={})
        return str(path)

    grey = dataclasses.replace(PIXELS, channels=1, num_classes=0)
    images = load_generator("gated-pixelcnn", saved(grey)).generate(np.array([1, 2]))
    assert images.shape == (2, 3, 6, 6)
    assert torch.equal(images[:, 0], images[:, 2])
    with pytest.raises(CheckpointError, match="neither grey nor RGB pixels"):
        load_generator("gated-pixelcnn", saved(CODES))
