"""PixelCNN: masks by dependence, cached against plain sampling, loading."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evalkit.errors import CheckpointError
from evalkit.generators.autoregressive.building import build_masked
from evalkit.generators.autoregressive.masked import MaskedConv, PixelCNN, PixelCNNConfig
from evalkit.generators.autoregressive.masked_cache import sample, sample_naively
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.sampling import SamplingOptions

SMALL = PixelCNNConfig(features=12, blocks=2, head=30, resolution=5)


def _network() -> PixelCNN:
    torch.manual_seed(0)
    network = PixelCNN(SMALL).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.mul_(2.0)
    return network


def test_cached_sampling_draws_what_plain_sampling_draws():
    uniforms = torch.rand(2, 5, 5, 3, generator=torch.Generator().manual_seed(1))
    cached = sample(_network(), uniforms)
    assert torch.equal(cached, sample_naively(_network(), uniforms))
    assert len(cached.unique()) > 60


def test_a_value_depends_on_what_comes_before_and_on_nothing_else():
    network, row, column = _network(), 2, 2
    values = torch.randint(0, 256, (1, 3, 5, 5), generator=torch.Generator().manual_seed(2))
    before = network(values)[0, row, column]
    for r in range(5):
        for c in range(5):
            for channel in range(3):
                changed = values.clone()
                changed[0, channel, r, c] = (changed[0, channel, r, c] + 128) % 256
                moved = (network(changed)[0, row, column] != before).any(dim=-1).tolist()
                if (r, c) < (row, column):
                    assert moved == [True] * 3
                elif (r, c) == (row, column):
                    assert moved == [other > channel for other in range(3)]
                else:
                    assert moved == [False] * 3


def test_masks_a_and_b_at_the_position_itself():
    a, b = MaskedConv(6, 9, 3, own=False), MaskedConv(6, 9, 3, own=True)
    groups_in, groups_out = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0] * 3 + [1] * 3 + [2] * 3)
    assert torch.equal(a.mask[:, :, 1, 1].bool(), groups_in[None] < groups_out[:, None])
    assert torch.equal(b.mask[:, :, 1, 1].bool(), groups_in[None] <= groups_out[:, None])
    for mask in (a.mask, b.mask):
        assert bool((mask[:, :, 0] == 1).all())
        assert bool((mask[:, :, 1, 0] == 1).all())
        assert bool((mask[:, :, 1, 2] == 0).all())
        assert bool((mask[:, :, 2] == 0).all())


def test_sizes_are_read_from_the_tensors_but_for_the_resolution():
    state = {k: v.float() for k, v in _network().state_dict().items()}
    bare = Checkpoint(tensors=state, sha256="0" * 64, format="torch")
    with pytest.raises(CheckpointError, match="resolution"):
        build_masked(bare, SamplingOptions())
    whole = Checkpoint(tensors=state, sha256="0" * 64, format="torch", given={"resolution": 5})
    generator = build_masked(whole, SamplingOptions())
    assert generator.network.config == SMALL
    together = generator.generate(np.array([3, 4, 5]))
    assert torch.equal(together[1:2], generator.generate(np.array([4])))
    assert generator.evaluations_per_image == 75


def test_channels_must_fall_into_three_groups():
    with pytest.raises(ValueError, match="multiples of 3"):
        PixelCNNConfig(features=8, blocks=1, head=9, resolution=4)
