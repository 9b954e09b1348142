"""VQ-VAE: nearest codes, sampling by seed, reconstruction through the codes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import Reconstructor
from evalkit.errors import InvalidInputError
from evalkit.generators import load_generator
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.sampling import quantise
from evalkit.generators.vae.quantised import VQVAE, Codebook, VQVAEConfig

CONFIG = VQVAEConfig(
    codes=16, code_dim=4, width=8, residual_width=4, num_classes=3, prior_features=8, prior_layers=2,
    prior_head=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    torch.manual_seed(0)
    network = VQVAE(CONFIG)
    for parameter in network.autoencoder.parameters():
        parameter.data.mul_(2.0)  # a fresh decoder paints everything grey
    path = tmp_path_factory.mktemp("vq") / "vq.safetensors"
    config = dataclasses.asdict(CONFIG)
    save_checkpoint(path, network.state_dict(), architecture="vq-vae", config=config, training={})
    return load_generator("vq-vae", path)


def test_codes_are_the_nearest_vectors():
    book = Codebook(7, 3)
    x = torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(book.nearest(x), torch.cdist(x.reshape(-1, 3), book.vectors).argmin(1).view(2, 4, 4))
    assert torch.equal(book.nearest(book.look_up(torch.arange(7))), torch.arange(7))


def test_an_image_does_not_depend_on_its_batch(generator):
    seeds, labels = np.array([5, 6, 7, 8]), np.array([0, 1, 2, 0])
    together = generator.generate(seeds, labels=labels)
    apart = torch.cat([generator.generate(seeds[i : i + 1], labels=labels[i : i + 1]) for i in range(4)])
    assert together.shape == (4, 3, 32, 32)
    assert int((together.int() - apart.int()).abs().max()) <= 1  # the decoder is float32
    codes = generator.codes(seeds, torch.from_numpy(labels))
    assert torch.equal(codes[1:3], generator.codes(seeds[1:3], torch.from_numpy(labels[1:3])))
    assert len({grid.numpy().tobytes() for grid in codes}) == 4
    assert generator.evaluations_per_image == 65
    assert (generator.family, generator.num_classes, generator.resolution) == ("vae", 3, 32)


def test_reconstruction_is_the_decoder_s_image_of_the_nearest_codes(generator):
    assert isinstance(generator, Reconstructor)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    coder = generator.network.autoencoder
    with torch.no_grad():
        vectors = coder.encode(images.float() / 127.5 - 1.0)
        nearest = torch.cdist(vectors.reshape(-1, 4), coder.codebook.vectors).argmin(1)
        expected = quantise(coder.decode(coder.codebook.vectors[nearest].view_as(vectors)))
    found = generator.reconstruct(images)
    assert int((found.int() - expected.int()).abs().max()) <= 1
    assert float(found.float().std()) > 1.0


def test_other_images_are_refused(generator):
    with pytest.raises(InvalidInputError, match="of \\[1, 3, 16, 16\\]"):
        generator.reconstruct(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(InvalidInputError, match="uint8"):
        generator.reconstruct(torch.zeros(1, 3, 32, 32))
