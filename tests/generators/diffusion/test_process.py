"""Schedules, chosen steps, and what predictions mean."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import UsageError
from evalkit.generators.diffusion.karras import (
    KarrasProcess,
    edm_preconditioning,
    iddpm_known_sigmas,
    karras_ratios,
    rounded_levels,
    ve_preconditioning,
    vp_preconditioning,
)
from evalkit.generators.diffusion.process import CLEAN, DiscreteProcess, Level, discrete_process
from evalkit.generators.diffusion.schedules import SCHEDULES, chosen_steps, cosine_betas, linear_betas


def test_linear_is_that_of_ho_and_ends_alike_for_every_length():
    assert linear_betas(1000)[[0, -1]] == pytest.approx([1e-4, 0.02])
    assert linear_betas(4000)[[0, -1]] == pytest.approx([0.25e-4, 0.005])
    kept = [np.prod(1 - linear_betas(steps)) for steps in (1000, 4000)]
    assert kept[0] == pytest.approx(4.0358e-5, rel=1e-4)  # a known value of the DDPM of 1000 steps
    assert kept[1] == pytest.approx(kept[0], rel=0.12)


def test_cosine_is_equation_17_until_the_cap():
    process = DiscreteProcess(cosine_betas(4000), prediction="epsilon")
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for t in (0, 1, 777, 2000, 3900):
        expected = math.cos(((t + 1) / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        assert process.alpha_bars[t] == pytest.approx(expected, rel=1e-9)
    assert max(process.betas) == 0.999


def test_scaled_linear_is_linear_in_the_root():
    betas = SCHEDULES["scaled-linear"](1000)
    assert np.diff(np.sqrt(betas)).std() < 1e-12
    assert betas[[0, -1]] == pytest.approx([0.00085, 0.012])


def test_sigmoid_by_its_definition():
    """denoising-diffusion-pytorch's defaults: from -3 to 3, temperature 1."""
    process = DiscreteProcess(SCHEDULES["sigmoid"](500), prediction="v")
    low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    for t in (0, 100, 400):
        u = (t + 1) / 500
        expected = (high - 1 / (1 + math.exp(-(6 * u - 3)))) / (high - low)
        assert process.alpha_bars[t] == pytest.approx(expected, rel=1e-9)


def test_unknown_schedule_and_impossible_betas():
    with pytest.raises(UsageError, match="unknown noise schedule 'cosin'"):
        discrete_process("cosin", 10, prediction="epsilon")
    with pytest.raises(UsageError, match="betas in"):
        DiscreteProcess((0.1, 1.5), prediction="epsilon")


# Written out by hand from the definitions of the public code named in chosen_steps.
STEPS = [
    ("fractional", 300, 10, [0, 33, 66, 100, 133, 166, 199, 233, 266, 299]),
    ("fractional", 10, 1, [0]),
    ("fractional", 4, 4, [0, 1, 2, 3]),
    ("ddim", 1000, 4, [0, 250, 500, 750]),
    ("ddim", 4000, 3, [0, 1334, 2668]),
    ("leading", 1000, 3, [0, 333, 666]),
    ("trailing", 1000, 4, [249, 499, 749, 999]),
    ("trailing", 1000, 3, [332, 666, 999]),
    ("trailing-floor", 1000, 3, [332, 665, 999]),
    ("linspace", 1000, 3, [0, 500, 999]),
    ("quadratic", 1000, 5, [0, 50, 200, 450, 800]),
]


@pytest.mark.parametrize(("spacing", "total", "count", "expected"), STEPS)
def test_chosen_steps(spacing, total, count, expected):
    assert chosen_steps(total, count, spacing) == expected


@given(total=st.integers(1, 300), data=st.data())
def test_chosen_steps_ascend_without_repeats(total, data):
    count = data.draw(st.integers(1, total))
    for spacing in ("fractional", "leading", "trailing", "trailing-floor", "linspace"):
        steps = chosen_steps(total, count, spacing)
        assert len(steps) == count
        assert all(0 <= a < b < total for a, b in zip(steps, [*steps[1:], total - 0.5], strict=True))


def test_all_steps_are_all_steps():
    for spacing in ("fractional", "ddim", "leading", "trailing", "trailing-floor", "linspace"):
        assert chosen_steps(50, 50, spacing) == list(range(50))


@pytest.mark.parametrize(
    ("spacing", "total", "count", "message"),
    [
        ("ddim", 1000, 999, "no integer stride"),
        ("trailing", 10, 11, "at most 10"),
        ("trailing", 10, 0, "at most 10"),
        ("quadratic", 100, 90, "twice"),
        ("even", 10, 3, "unknown spacing"),
    ],
)
def test_impossible_choices(spacing, total, count, message):
    with pytest.raises(UsageError, match=message):
        chosen_steps(total, count, spacing)


def test_levels_run_from_noise_to_clean_and_carry_the_networks_time():
    process = discrete_process("cosine", 4000, prediction="epsilon", time_scale=1000 / 4000)
    levels = process.levels(5)
    assert [level.time for level in levels] == [999.75, 749.75, 500.0, 250.0, 0.0, 0.0]
    assert levels[-1] == CLEAN
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in levels)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("level", [Level(0.6, 0.8, 3.0), Level(1.0, 7.0, 7.0)])
def test_every_prediction_gives_back_image_and_noise(prediction, level):
    clean, noise = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1, torch.randn(2, 3, 4, 4).double()
    x = level.alpha * clean + level.sigma * noise
    output = {
        "epsilon": noise,
        "sample": clean,
        "v": level.alpha * noise - level.sigma * clean,
    }[prediction]
    process = DiscreteProcess((0.1,), prediction=prediction, variance="learned")
    raw = torch.randn(2, 3, 4, 4).double()
    seen = process.denoised(torch.cat((output, raw), dim=1), x, level)
    torch.testing.assert_close(seen.clean, clean)
    torch.testing.assert_close(seen.noise, noise)
    assert torch.equal(seen.variance, raw)
    assert process.denoised(output, x, level).variance is None


@pytest.mark.parametrize("rederive", [True, False])
def test_clipping_and_the_noise_with_it(rederive):
    level = Level(0.6, 0.8, 0.0)
    x, output = torch.full((1, 3, 1, 1), 2.0), torch.zeros(1, 3, 1, 1)
    process = DiscreteProcess((0.1,), prediction="epsilon", rederive_noise=rederive)
    seen = process.denoised(output, x, level)
    assert seen.clean.unique().item() == 1.0
    assert seen.noise.unique().item() == pytest.approx((2 - 0.6) / 0.8 if rederive else 0.0)


def test_the_process_of_karras():
    process = KarrasProcess()
    levels = process.levels(18)
    assert [levels[0].sigma, levels[17].sigma] == pytest.approx([80.0, 0.002])
    # Their equation 5 in 30 digits, by mpmath.
    assert levels[1].sigma == pytest.approx(57.585984721248158, rel=1e-12)
    assert levels[9].sigma == pytest.approx(1.923339837040050, rel=1e-12)
    assert levels[-1] == CLEAN
    assert process.start(levels[0]) == levels[0].sigma == levels[0].time
    with pytest.raises(UsageError, match="no steps to space"):
        process.levels(3, spacing="ddim")


def test_sigmas_that_a_network_knows():
    known = iddpm_known_sigmas()
    assert len(known) == 1000
    assert all(a > b > 0 for a, b in pairwise(known))
    # u_{M-1} = sqrt(a_M / a_{M-1} - 1), the cleanest.
    kept = [math.sin(math.pi / 2 * j / (1000 * 1.008)) ** 2 for j in (999, 1000)]
    assert known[-1] == pytest.approx(math.sqrt(kept[1] / kept[0] - 1), rel=1e-9)
    process = KarrasProcess(known=known, sigma_min=min(known))
    assert all(level.sigma in known for level in process.levels(20)[:-1])
    assert process.nearest(80.0).sigma == pytest.approx(80, rel=0.1)


def test_a_discrete_process_in_karras_steps():
    process = discrete_process("cosine", 1000, prediction="v")
    levels = rounded_levels(process, 40)
    wanted = karras_ratios(40, smallest=process.level(0).ratio, largest=process.nearest(80.0).ratio)
    assert levels[-1] == CLEAN
    assert levels[0].ratio == pytest.approx(80, rel=0.05)
    assert len(levels) <= 41
    for level in levels[:-1]:
        assert level in {process.nearest(ratio) for ratio in wanted}
    assert rounded_levels(process, 1)[0] == levels[0]
    with pytest.raises(UsageError, match="at most 1000"):
        rounded_levels(process, 1001)


def test_preconditionings_have_unit_variances():
    """Karras et al. 2022, app. B.6: input and target of F have variance 1 for data of sigma_data."""
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    edm = edm_preconditioning(sigma, sigma_data=0.5)
    torch.testing.assert_close(edm.scale_in**2 * (0.25 + sigma**2), torch.ones_like(sigma))
    target = ((1 - edm.skip) ** 2 * 0.25 + edm.skip**2 * sigma**2) / edm.out**2
    torch.testing.assert_close(target, torch.ones_like(sigma))
    torch.testing.assert_close(edm.noise, sigma.log() / 4)


def test_the_vp_preconditioning_inverts_its_schedule():
    time = torch.tensor([1e-3, 0.2, 1.0], dtype=torch.float64)
    sigma = ((19.9 / 2 * time**2 + 0.1 * time).exp() - 1).sqrt()
    vp = vp_preconditioning(sigma)
    torch.testing.assert_close(vp.noise, 999 * time)
    torch.testing.assert_close(vp.scale_in, (1 + sigma**2).rsqrt())
    torch.testing.assert_close(vp.out, -sigma)
    ve = ve_preconditioning(sigma)
    torch.testing.assert_close(ve.noise, (sigma / 2).log())
    torch.testing.assert_close(ve.out, sigma)
