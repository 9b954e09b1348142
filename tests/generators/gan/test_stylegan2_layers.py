"""StyleGAN2's layers and filters against their definitions, written out the slow way in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, upfirdn

from evalkit.generators.gan.stylegan2.filters import resample, upsample
from evalkit.generators.gan.stylegan2.network import SynthesisLayer, ToRGBLayer
from tests.generators.gan.style_weights import TINY_STYLEGAN2 as TINY
from tests.generators.gan.style_weights import style_weights


def slow_layer(layer: SynthesisLayer, x: np.ndarray, w: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Karras et al. 2020, eq. 1 to 3, each image, output channel and step by itself, in float64."""
    state = {key: value.double().numpy() for key, value in layer.state_dict().items()}
    styles = w @ (state["affine.weight"].T / np.sqrt(w.shape[1])) + state["affine.bias"]
    out = []
    for image, style, own_noise in zip(x, styles, noise, strict=True):
        planes = []
        for o, filters in enumerate(state["weight"]):
            own = filters * style[:, None, None]
            own = own / np.sqrt((own**2).sum() + 1e-8)
            plane = sum(slow_conv(p, f, state, up=layer.up) for p, f in zip(image, own, strict=True))
            y = plane + own_noise[0] * state["noise_strength"] + state["bias"][o]
            planes.append(np.where(y > 0, y, 0.2 * y) * np.sqrt(2.0))
        out.append(np.stack(planes))
    return np.stack(out)


def slow_conv(plane: np.ndarray, kernel: np.ndarray, state: dict[str, np.ndarray], *, up: bool) -> np.ndarray:
    if not up:
        return convolve2d(np.pad(plane, 1), kernel[::-1, ::-1], mode="valid")  # a correlation
    inserted = np.zeros((2 * len(plane), 2 * len(plane)))
    inserted[::2, ::2] = plane
    full = convolve2d(inserted, kernel)  # a convolution: up-sampling layers are stored the other way round
    smooth = convolve2d(full, 4.0 * state["resample_filter"])
    return smooth[2 : 2 + 2 * len(plane), 2 : 2 + 2 * len(plane)]


@pytest.mark.parametrize("up", [False, True])
def test_a_layer_is_the_convolution_of_each_image_by_itself(up):
    layer = SynthesisLayer(TINY, 5, 4, 8, up=up)
    shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    layer.load_state_dict(style_weights(shapes))
    rng = np.random.default_rng(0)
    size = 4 if up else 8
    x, w, noise = rng.normal(size=(3, 5, size, size)), rng.normal(size=(3, 24)), rng.normal(size=(3, 1, 8, 8))
    with torch.no_grad():
        own = layer(torch.tensor(x).float(), torch.tensor(w).float(), torch.tensor(noise).float())
    expected = slow_layer(layer, x, w, noise)
    assert own.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_colours_are_modulated_but_not_demodulated():
    layer = ToRGBLayer(TINY, 6)
    layer.load_state_dict(style_weights({key: tuple(v.shape) for key, v in layer.state_dict().items()}))
    x, w = torch.randn(2, 6, 4, 4), torch.randn(2, 24)
    style = w @ layer.affine.weight.T / np.sqrt(24) + layer.affine.bias
    expected = torch.einsum("oi,ni,nihw->nohw", layer.weight[:, :, 0, 0], style / np.sqrt(6), x)
    torch.testing.assert_close(layer(x, w), expected + layer.bias[:, None, None])


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("padding", [(3, 2, 4, 1), (-1, 2, 0, -1), (9, 12, 7, 8)])
def test_resampling_is_zero_insertion_padding_and_a_filter(up, down, padding):
    rng = np.random.default_rng(1)
    x, taps = rng.normal(size=(2, 3, 7, 9)), rng.normal(size=6)
    own = resample(torch.tensor(x), torch.tensor(taps), up=up, down=down, padding=padding)
    expected = x
    for axis, (before, after) in ((3, padding[:2]), (2, padding[2:])):
        full = upfirdn(taps * up, expected, up=up, axis=axis)
        full = np.moveaxis(full, axis, -1)
        wanted = x.shape[axis] * up + before + after - 5
        start = 5 - before
        grid = np.zeros((*full.shape[:-1], wanted))
        inside = [i for i in range(wanted) if 0 <= i + start < full.shape[-1]]
        grid[..., inside] = full[..., [i + start for i in inside]]
        expected = np.moveaxis(grid[..., ::down], -1, axis)
    assert own.numpy() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    square = resample(torch.tensor(x), torch.tensor(np.outer(taps, taps)), up=up, down=down, padding=padding)
    assert square.numpy() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("taps", [[1.0, 3.0, 3.0, 1.0], [1.0, 1.0], [1.0, 2.0, 1.0]])
def test_up_sampling_keeps_a_constant_inside(taps):
    kernel = torch.tensor(taps, dtype=torch.float64)
    doubled = upsample(
        torch.ones(1, 2, 6, 6, dtype=torch.float64), torch.outer(kernel, kernel) / kernel.sum() ** 2
    )
    assert doubled.shape == (1, 2, 12, 12)
    assert doubled[:, :, 3:-3, 3:-3].numpy() == pytest.approx(1.0, abs=1e-12)
