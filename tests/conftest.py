"""One thread a process, and a seeded InceptionV3: random weights of a sane scale, random batch norms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# Before torch: processes that share the cores of a machine would wait for each other's threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from evalkit.extractors.inception_network import expected_layout

# Speed is never asserted: a busy machine would fail a test by chance.
settings.register_profile("evalkit", deadline=None)
settings.load_profile("evalkit")


def random_inception_state(*, counters: bool) -> dict[str, torch.Tensor]:
    """He-scaled convolutions and batch norms away from the identity, so that no term can be left out."""
    generator = torch.Generator().manual_seed(2015)
    state: dict[str, torch.Tensor] = {}
    for name, shape in expected_layout().items():
        uniform = torch.rand(shape, generator=generator)
        if name.endswith(("conv.weight", "fc.weight")):
            fan_in = uniform[0].numel()
            state[name] = (uniform - 0.5) * (24 / fan_in) ** 0.5
        elif name.endswith(("bn.weight", "bn.running_var")):
            state[name] = uniform + 0.5
        else:
            state[name] = (uniform - 0.5) * 0.4
        if counters and name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return state


@pytest.fixture(scope="session")
def inception_state() -> Mapping[str, torch.Tensor]:
    return random_inception_state(counters=False)


@pytest.fixture(scope="session")
def inception_file(
    inception_state: Mapping[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(dict(inception_state), path)
    return path
