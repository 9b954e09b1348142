"""Counter-based noise: the published vectors, the distributions, and independence of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from evalkit.counter_noise import bits_at, exact_device, normal_at, philox4x32, uniform_at

# The rows "philox4x32 10" of tests/kat_vectors in the Random123 distribution: counter, key, words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

SEEDS = np.array([0, 1, 2**63 - 1, 5, 77], dtype=np.int64)
_WORD = 2**32 - 1


def _words(text: str) -> list[torch.Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


def _reference(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's integers, which have no width."""
    k = list(key)
    for _ in range(10):
        first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (second >> 32) ^ counter[1] ^ k[0],
            second & _WORD,
            (first >> 32) ^ counter[3] ^ k[1],
            first & _WORD,
        ]
        k = [(k[0] + 0x9E3779B9) & _WORD, (k[1] + 0xBB67AE85) & _WORD]
    return counter


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert [int(w) for w in philox4x32(_words(counter), _words(key))] == [
        int(x, 16) for x in expected.split()
    ]


WORDS = st.integers(0, _WORD)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on busy machines
@given(counter=st.lists(WORDS, min_size=4, max_size=4), key=st.lists(WORDS, min_size=2, max_size=2))
def test_any_counter_agrees_with_integers_of_any_width(counter, key):
    words = philox4x32([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert [int(w) for w in words] == _reference(counter, key)


def test_an_element_is_a_word_of_its_block():
    bits = bits_at(SEEDS, 7, 10, stream=3, device="cpu")
    assert bits.shape == (5, 10)
    for row, seed in enumerate(SEEDS.tolist()):
        for element in range(10):
            words = _reference([element // 4, 7, 3, 0], [seed & _WORD, seed >> 32])
            assert int(bits[row, element]) == words[element % 4]


@pytest.mark.parametrize("draw", [normal_at, uniform_at])
def test_an_image_does_not_depend_on_its_batch(draw):
    together = draw(SEEDS, 4, (3, 5, 5), device="cpu")
    assert together.dtype == torch.float32
    assert together.shape == (5, 3, 5, 5)
    order = np.array([3, 0, 4])
    assert torch.equal(draw(SEEDS[order], 4, (3, 5, 5), device="cpu"), together[order])
    assert torch.equal(draw(SEEDS[2:3], 4, (3, 5, 5), device="cpu"), together[2:3])


def test_seed_step_and_stream_each_change_every_word():
    base = bits_at(SEEDS[:1], 1, 64, stream=1, device="cpu")
    for other in (
        bits_at(SEEDS[1:2], 1, 64, stream=1, device="cpu"),
        bits_at(SEEDS[:1] + 2**32, 1, 64, stream=1, device="cpu"),  # the high half of the key
        bits_at(SEEDS[:1], 2, 64, stream=1, device="cpu"),
        bits_at(SEEDS[:1], 1, 64, stream=2, device="cpu"),
    ):
        assert int((base != other).sum()) >= 63


def test_fewer_elements_are_a_prefix_of_more():
    assert torch.equal(bits_at(SEEDS, 0, 5, device="cpu"), bits_at(SEEDS, 0, 64, device="cpu")[:, :5])
    few, many = normal_at(SEEDS, 0, (5,), device="cpu"), normal_at(SEEDS, 0, (64,), device="cpu")
    assert torch.equal(few, many[:, :5])


def test_normal_is_box_and_muller_of_the_words():
    words = bits_at(SEEDS, 2, 8, device="cpu").numpy().astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[:, 0::2] + 1) / 2**32))
    angle = 2 * math.pi * words[:, 1::2] / 2**32
    expected = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).reshape(5, 8)
    np.testing.assert_allclose(normal_at(SEEDS, 2, (2, 4), device="cpu").view(5, 8), expected, rtol=1e-6)


def _plain_normal(seeds, step, count, *, stream):
    """Box and Muller's formula over one tensor of words, a new tensor for each operation."""
    words = bits_at(seeds, step, -(-count // 2) * 2, stream=stream, device="cpu").view(len(seeds), -1, 2)
    unit = words.to(torch.float64)
    radius = torch.sqrt(-2.0 * torch.log((unit[..., 0] + 1.0) * 2.0**-32))
    angle = unit[..., 1] * (2.0 * math.pi * 2.0**-32)
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.to(torch.float32).flatten(1)[:, :count]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 3 * 32 * 32])
def test_normal_is_the_plain_formula_to_the_last_bit(count):
    for step, stream in [(0, 0), (3, 1), (2**32 - 1, 2)]:
        drawn = normal_at(SEEDS, step, (count,), stream=stream, device="cpu")
        assert torch.equal(drawn, _plain_normal(SEEDS, step, count, stream=stream))


def test_words_leave_counters_and_keys_as_they_were():
    counter, key = _words("ffffffff ffffffff 0 7"), _words("ffffffff 1")
    before = [word.clone() for word in (*counter, *key)]
    philox4x32(counter, key)
    assert all(torch.equal(word, then) for word, then in zip((*counter, *key), before, strict=True))


def test_distributions():
    seeds = np.arange(200, dtype=np.int64)
    normal = normal_at(seeds, 0, (1000,), device="cpu").double().numpy()
    uniform = uniform_at(seeds, 0, (1000,), device="cpu").double().numpy()
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert uniform.min() >= 0
    assert uniform.max() < 1
    for values in (normal, uniform - 0.5):
        variance = values.var()
        # Neighbouring elements, and neighbouring seeds, are uncorrelated: |r| < 4 / sqrt(N).
        assert abs((values[:, 1:] * values[:, :-1]).mean()) / variance < 4 / math.sqrt(values.size)
        assert abs((values[1:] * values[:-1]).mean()) / variance < 4 / math.sqrt(values.size)


def test_steps_are_uncorrelated():
    seeds = np.arange(500, dtype=np.int64)
    first, second = (normal_at(seeds, step, (300,), device="cpu").double() for step in (0, 1))
    assert abs(float((first * second).mean())) < 4 / math.sqrt(first.numel())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_words_are_the_same_on_every_device():
    here = bits_at(SEEDS, 3, 100, device="cpu")
    assert torch.equal(bits_at(SEEDS, 3, 100, device="cuda").cpu(), here)
    normal = normal_at(SEEDS, 3, (1000,), device="cuda").cpu()
    torch.testing.assert_close(normal, normal_at(SEEDS, 3, (1000,), device="cpu"), rtol=1e-6, atol=1e-7)


def test_float64_is_computed_where_there_is_any():
    """MPS has none: its normal numbers are made on the CPU."""
    assert exact_device("mps") == torch.device("cpu")
    assert exact_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
