"""Conditional VAE: the label enters both sides, sizes from shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.sampling import SamplingOptions
from evalkit.generators.vae.conditional import CVAE, CVAEConfig
from evalkit.generators.vae.conditional_sampling import build

CONFIG = CVAEConfig(resolution=6, channels=3, latent_dim=4, hidden=(12, 8), num_classes=5)


def _generator(config: CVAEConfig = CONFIG):
    torch.manual_seed(0)
    network = CVAE(config)
    for parameter in network.parameters():
        parameter.data.mul_(2.0)
    checkpoint = Checkpoint(tensors=network.state_dict(), sha256="0" * 64, format="torch")
    return build(checkpoint, SamplingOptions())


def test_sizes_are_read_from_the_tensors():
    assert _generator().network.config == CONFIG
    grey = CVAEConfig(resolution=28, channels=1, latent_dim=2, hidden=(10,), num_classes=10)
    generator = _generator(grey)
    assert generator.network.config == grey
    images = generator.generate(np.array([1]), labels=np.array([3]))
    assert images.shape == (1, 3, 28, 28)
    assert torch.equal(images[:, 0], images[:, 2])


def test_decoding_by_hand():
    network = _generator().network
    z, labels = torch.randn(2, 4), torch.tensor([1, 4])
    x = torch.cat([z, torch.eye(5)[labels]], dim=1)
    hidden = F.relu(F.relu(x @ network.decoder[0].weight.T + network.decoder[0].bias)
                    @ network.decoder[2].weight.T + network.decoder[2].bias)  # fmt: skip
    image = torch.tanh(hidden @ network.to_image.weight.T + network.to_image.bias).view(2, 3, 6, 6)
    assert torch.allclose(network.decode(z, labels), image, atol=1e-6)
    assert not torch.allclose(network.decode(z, labels), network.decode(z, labels.flip(0)), atol=1e-3)


def test_images_by_seed_and_label():
    generator = _generator()
    seeds, labels = np.array([1, 2, 3]), np.array([0, 1, 4])
    together = generator.generate(seeds, labels=labels)
    apart = torch.cat([generator.generate(seeds[i : i + 1], labels=labels[i : i + 1]) for i in range(3)])
    assert int((together.int() - apart.int()).abs().max()) <= 1
    assert not torch.equal(together, generator.generate(seeds, labels=(labels + 1) % 5))
    assert (generator.family, generator.num_classes, generator.evaluations_per_image) == ("vae", 5, 1)


def test_reconstruction_needs_labels_and_uses_them():
    generator = _generator()
    images = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    with pytest.raises(UsageError, match="labels"):
        generator.reconstruct(images)
    for wrong in ([0], [0, 5], [-1, 0]):
        with pytest.raises(UsageError, match=r"a label in 0\.\.4 for each of 2 images"):
            generator.reconstruct(images, labels=np.array(wrong))
    first = generator.reconstruct(images, labels=np.array([0, 1]))
    assert first.shape == images.shape
    assert not torch.equal(first, generator.reconstruct(images, labels=np.array([2, 3])))
