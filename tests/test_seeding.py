"""Seeds and labels are functions of (base seed, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.seeding import balanced_labels, image_seeds, normal_per_image

bases = st.integers(0, 2**63 - 1)


@given(bases, st.integers(0, 10**9), st.integers(1, 50))
def test_a_seed_depends_on_its_index_only(base, start, n):
    index = np.arange(start, start + n)
    together = image_seeds(base, index)
    assert together.dtype == np.int64
    assert (together >= 0).all()
    alone = [int(image_seeds(base, index[i : i + 1])[0]) for i in range(n)]
    assert together.tolist() == alone
    assert len(set(alone)) == n


def test_seeds_are_pinned():
    # A change here changes which images every published score is about: raise SEED_SCHEME with it.
    assert image_seeds(0, np.arange(3)).tolist() == [
        5195254382361308015,
        7347343574475241980,
        3908956314408778864,
    ]


def test_base_seeds_give_other_seeds():
    index = np.arange(10_000)
    assert not set(image_seeds(0, index).tolist()) & set(image_seeds(1, index).tolist())


@given(bases, st.integers(1, 12), st.integers(0, 1000), st.integers(1, 60))
def test_labels_depend_on_the_index_and_are_balanced(base, classes, start, n):
    index = np.arange(start, start + n)
    labels = balanced_labels(base, index, classes)
    assert labels.tolist() == [int(balanced_labels(base, i[None], classes)[0]) for i in index]
    run = balanced_labels(base, np.arange(3 * classes), classes)
    assert sorted(run[classes : 2 * classes].tolist()) == list(range(classes))


def test_noise_of_an_image_does_not_depend_on_its_batch():
    seeds = image_seeds(5, np.arange(6))
    device = torch.device("cpu")
    together = normal_per_image(seeds, (3, 4), device=device)
    apart = normal_per_image(seeds[4:5], (3, 4), device=device)
    assert torch.equal(together[4:5], apart)


def _plain_noise(seeds, shape):
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])


@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (17,), (128,), (3, 32, 32), (3, 5, 7)])
@pytest.mark.parametrize("inference", [False, True])
def test_noise_is_that_of_a_generator_for_each_image(shape, inference):
    seeds = np.array([0, 1, 2**32, 2**63 - 1, 7, 7], dtype=np.int64)
    before = torch.get_rng_state()
    with torch.inference_mode(inference):
        drawn = normal_per_image(seeds, shape, device=torch.device("cpu"))
    assert torch.equal(drawn, _plain_noise(seeds, shape))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("inference", [False, True])
def test_noise_does_not_depend_on_the_threads(monkeypatch, inference):
    monkeypatch.setattr("evalkit.seeding._NUMBERS_A_THREAD", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    seeds = image_seeds(5, np.arange(7))
    with torch.inference_mode(inference):
        drawn = normal_per_image(seeds, (3, 4), device=torch.device("cpu"))
    assert torch.equal(drawn, _plain_noise(seeds, (3, 4)))


def test_no_seeds_give_no_noise():
    none = np.empty(0, dtype=np.int64)
    assert normal_per_image(none, (3, 4), device=torch.device("cpu")).shape == (0, 3, 4)
