"""VDVAE: the public layout, one block by hand, what each level is given, and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.facts import GENERATOR_FACTS
from evalkit.generators.sampling import SamplingOptions
from evalkit.generators.vae.deep import VDVAE, Block, Decoder, LatentBlock, VDVAEConfig, parse_blocks
from evalkit.generators.vae.deep_sampling import build
from tests.generators.layouts import tensors

SMALL = VDVAEConfig(
    width=8, zdim=3, num_mixtures=2, enc_blocks="8x1,8d2,4x1,4d4,1x1", dec_blocks="1x1,4m1,4x1,8m4,8x1",
    bottleneck_multiple=0.5, image_size=8, no_bias_above=4, pixel_mean=120.0, pixel_deviation=60.0,
)  # fmt: skip
PRESET = GENERATOR_FACTS["vdvae"].presets["vdvae-cifar10"]


def _checkpoint(state: dict[str, torch.Tensor], given: object) -> Checkpoint:
    return Checkpoint(tensors=state, sha256="0" * 64, format="torch", layout="vdvae", given=dict(given))


def _small_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = VDVAE(SMALL)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return network.state_dict()


def test_the_public_layout_loads_samples_and_reconstructs():
    generator = build(_checkpoint(tensors("vdvae-cifar10"), PRESET), SamplingOptions())
    config = generator.network.config
    assert (config.width, config.zdim, config.num_mixtures) == (384, 16, 10)
    images = generator.generate(np.array([1, 2]))
    assert images.shape == (2, 3, 32, 32)
    assert float(images.float().std()) > 5.0
    assert not torch.equal(images[0], images[1])
    assert generator.reconstruct(images[:1]).shape == (1, 3, 32, 32)


def test_what_the_tensors_do_not_reveal_is_asked_for():
    with pytest.raises(CheckpointError, match="bottleneck_multiple, dec_blocks, enc_blocks, image_size"):
        build(_checkpoint(_small_state(), {}), SamplingOptions())


def test_strings_of_blocks():
    assert parse_blocks("1x2,4m1,32d2,8") == [
        (1, None, None), (1, None, None), (4, 1, None), (32, None, 2), (8, None, None),
    ]  # fmt: skip
    assert len(parse_blocks(str(PRESET["dec_blocks"]))) == 43
    assert len(parse_blocks(str(PRESET["enc_blocks"]))) == 33


def test_a_block_is_four_convolutions_behind_exact_gelus():
    block = Block((2, 3, 4), resolution=1).requires_grad_(False)
    assert block.c2.kernel_size == (1, 1)
    assert Block((2, 3, 4), resolution=4).c2.kernel_size == (3, 3)
    x = torch.randn(1, 2, 1, 1)
    expected = x[0, :, 0, 0]
    for layer in (block.c1, block.c2, block.c3, block.c4):
        bent = torch.tensor([0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))) for v in expected.tolist()])
        expected = layer.weight[:, :, 0, 0] @ bent + layer.bias
    assert torch.allclose(block(x)[0, :, 0, 0], expected, atol=1e-6)


def test_a_group_of_latents_by_hand():
    torch.manual_seed(2)
    group = LatentBlock(SMALL, 4).requires_grad_(False)
    x, noise, encoded = torch.randn(2, 8, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4)
    features = group.prior(x)
    z = features[:, :3] + torch.exp(features[:, 3:6]) * noise
    state = x + features[:, 6:] + group.z_proj(z)
    assert torch.allclose(group(x, noise, None), state + group.resnet(state), atol=1e-6)
    posterior = group.enc(torch.cat([x, encoded], dim=1))
    state = x + features[:, 6:] + group.z_proj(posterior[:, :3])
    assert torch.allclose(group(x, None, encoded), state + group.resnet(state), atol=1e-6)


def test_levels_start_from_their_bias_and_mix_in_repeated_pixels():
    torch.manual_seed(3)
    decoder = Decoder(SMALL).requires_grad_(False)
    assert [tuple(bias.shape) for bias in decoder.bias_xs] == [(1, 8, 1, 1), (1, 8, 4, 4)]
    for parameter in decoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    noise = [torch.randn(2, 3, r, r) for r, _, _ in decoder.plan]
    b = decoder.dec_blocks
    one = b[0](decoder.bias_xs[0].repeat(2, 1, 1, 1), noise[0], None)
    four = b[1](decoder.bias_xs[1] + one.repeat(1, 1, 4, 4), noise[1], None)
    four = b[2](four, noise[2], None)
    eight = four.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # no bias above 4 pixels
    eight = b[4](b[3](eight, noise[3], None), noise[4], None)
    expected = decoder.out_net.out_conv(eight * decoder.gain + decoder.bias).permute(0, 2, 3, 1)
    assert torch.allclose(decoder(2, noise), expected, atol=1e-5)


def test_the_encoder_keeps_the_last_state_of_each_size():
    torch.manual_seed(4)
    encoder = VDVAE(SMALL).encoder.requires_grad_(False)
    images = torch.randn(1, 3, 8, 8)
    found = encoder(images)
    x = encoder.in_conv(images)
    for block in encoder.enc_blocks[:2]:
        x = x + block(x)
    four = F.avg_pool2d(x, 2)  # after the second block, which halves
    assert sorted(found) == [1, 4, 8]
    first = encoder.in_conv(images)
    assert torch.allclose(found[8], first + encoder.enc_blocks[0](first), atol=1e-6)
    assert torch.allclose(found[4], four + encoder.enc_blocks[2](four), atol=1e-6)


def test_an_image_does_not_depend_on_its_batch():
    generator = build(_checkpoint(_small_state(), _given()), SamplingOptions())
    together = generator.generate(np.array([3, 4, 5]))
    apart = torch.cat([generator.generate(np.array([seed])) for seed in (3, 4, 5)])
    assert int((together.int() - apart.int()).abs().max()) <= 1
    assert len({image.numpy().tobytes() for image in together}) == 3
    assert generator.evaluations_per_image == 1
    assert (generator.family, generator.num_classes, generator.resolution) == ("vae", 0, 8)


def _given() -> dict[str, object]:
    names = set(PRESET)
    return {name: getattr(SMALL, name) for name in names}


def test_golden_numbers_of_the_public_code():
    """From openai/vdvae (vae.py, first commit) with these weights, noise and image, in float64."""
    config = VDVAEConfig(
        width=8, zdim=3, num_mixtures=2, enc_blocks="32x1,32d8,4x1,4d4,1x1",
        dec_blocks="1x1,4m1,4x1,32m4,32x1", bottleneck_multiple=0.5, image_size=32, no_bias_above=64,
        pixel_mean=0.0, pixel_deviation=1.0,
    )  # fmt: skip
    network = VDVAE(config).double().requires_grad_(False)
    for index, (_, tensor) in enumerate(sorted(network.state_dict().items())):
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + index)
        # The reference was filled in float32.
        tensor.copy_((0.3 * wave).float().view(tensor.shape))
    noise = [
        torch.cos(torch.arange(3 * r * r, dtype=torch.float64)).view(1, 3, r, r)
        for r, _, _ in network.decoder.plan
    ]
    image = torch.sin(torch.arange(3072, dtype=torch.float64)).view(1, 3, 32, 32)
    prior = network.decoder(1, noise)
    posterior = network.decoder(1, noise, network.encoder(image))
    first = [-0.299696, -0.612781, -0.647114, -0.384759, 0.056121, 0.474493]
    second = [-0.293997, -0.626633, -0.674299, -0.413075, 0.039385, 0.476849]
    assert prior[0, 20, 11, :6].tolist() == pytest.approx(first, abs=2e-6)
    assert posterior[0, 20, 11, :6].tolist() == pytest.approx(second, abs=2e-6)
    assert float(prior.square().mean()) == pytest.approx(0.195821, abs=2e-6)
    assert float(posterior.square().mean()) == pytest.approx(0.201494, abs=2e-6)
