"""Ancestral sampling and DDIM with learned variances, respaced steps and a classifier, against OpenAI's code.

The golden numbers are of ``p_sample_loop`` and ``ddim_sample_loop`` of guided-diffusion (package
guided-diffusion-sdk 1.0.0 on PyPI) on the formulas below in place of a network, of a classifier's gradient
and of noise: cosine schedule, T = 4000, ``rescale_timesteps``, learned range, ``timestep_respacing`` "25" and
"ddim25".
"""

from __future__ import annotations

import pytest
import torch

from evalkit.generators.diffusion.denoiser import NetworkDenoiser
from evalkit.generators.diffusion.guidance import classifier_guided
from evalkit.generators.diffusion.process import discrete_process
from evalkit.generators.diffusion.samplers import ancestral, ddim

GOLDEN = {
    ("ancestral", False): [-0.1308082, -0.3734296, -0.274694, -0.1333974, -0.1680306, -0.3792246],
    ("ddim", False): [-1.0, -1.0, -0.1119446, 0.561928, 1.0, 1.0],
    ("ddim eta", False): [-0.9340866, -1.0, -0.2712682, 0.4889371, 0.5385265, 0.5240973],
    ("ancestral", True): [-0.1764291, -0.2095509, -0.3545667, -0.2834421, -0.1543855, -0.2646527],
    ("ddim", True): [0.127047, 0.1491082, 0.1870777, 0.2082563, 0.2295917, 0.2510861],
    ("ddim eta", True): [0.0318452, 0.0151056, -0.0099852, 0.0182348, 0.03114, -0.0003288],
}

PROCESS = discrete_process(
    "cosine", 4000, prediction="epsilon", variance="learned-range", time_scale=1000 / 4000
)


def _network(x, t, labels):
    t = t.view(-1, 1, 1, 1)
    return torch.cat((torch.tanh(0.7 * x + torch.cos(t / 300)), torch.sin(x + t / 500)), dim=1)


def _gradient(x, level):
    return 0.4 * (0.3 - x) * (1 + level.time / 1000)


def _draw(step: int) -> torch.Tensor:
    return torch.cos(torch.arange(6.0) * 1.7 + step * 0.9).view(1, 3, 1, 2) * 1.2


@pytest.mark.parametrize(("kind", "guided"), GOLDEN)
def test_walks_are_those_of_guided_diffusion(kind, guided):
    start, denoiser = torch.linspace(-2, 2, 6).view(1, 3, 1, 2), NetworkDenoiser(_network, PROCESS)
    if kind == "ancestral":
        gradient = _gradient if guided else None
        levels = PROCESS.levels(25, spacing="fractional")
        images = ancestral(denoiser, start, levels, variance="learned-range", noise=_draw, gradient=gradient)
    else:
        eta = 0.6 if kind == "ddim eta" else 0.0
        towards = classifier_guided(denoiser, _gradient) if guided else denoiser
        images = ddim(towards, start, PROCESS.levels(25, spacing="ddim"), eta=eta, noise=_draw)
    torch.testing.assert_close(images.flatten(), torch.tensor(GOLDEN[kind, guided]), rtol=1e-5, atol=1e-5)
