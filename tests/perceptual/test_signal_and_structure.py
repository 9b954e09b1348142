"""PSNR, SSIM and MS-SSIM against scikit-image, torchmetrics, pytorch-msssim and definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import metrics as skimage_metrics

from evalkit.errors import InvalidInputError, UsageError
from evalkit.perceptual import build_pair_measure
from evalkit.perceptual.colour import compared_channels
from evalkit.perceptual.structure import SCALE_WEIGHTS, similarity_maps

from .conftest import noisy, photographs

ORACLE = 1e-9  # both sides compute in float64
WANG = {"gaussian_weights": True, "use_sample_covariance": False}  # scikit-image's switches to the paper


def values(name, generated, reference, **masks):
    return build_pair_measure(name, weights={}, device="cpu")(generated, reference, masks=masks)


def as_hwc(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("sigma", [2, 25, 120])
def test_psnr_agrees_with_scikit_image(sigma):
    a, b = noisy(photographs(), sigma), photographs()
    expected = [
        skimage_metrics.peak_signal_noise_ratio(y, x, data_range=255)
        for x, y in zip(as_hwc(a), as_hwc(b), strict=True)
    ]
    np.testing.assert_allclose(values("psnr", a, b)["psnr"].numpy(), expected, rtol=ORACLE)


def test_psnr_agrees_with_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio

    a, b = noisy(photographs(), 25), photographs()
    expected = peak_signal_noise_ratio(
        a.double(), b.double(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    # It takes the logarithm of the data range in float32.
    np.testing.assert_allclose(values("psnr", a, b)["psnr"].numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("size", [11, 37, 96, 139])
@pytest.mark.parametrize("sigma", [2, 120])
def test_ssim_agrees_with_scikit_image(size, sigma):
    """Sizes around the tile's, so that its edges are seen; 11 is the least that the window fits."""
    a, b = noisy(photographs(size), sigma), photographs(size)
    expected = [
        skimage_metrics.structural_similarity(x, y, channel_axis=2, data_range=255, **WANG)
        for x, y in zip(as_hwc(a), as_hwc(b), strict=True)
    ]
    np.testing.assert_allclose(values("ssim", a, b)["ssim"].numpy(), expected, rtol=ORACLE)


def test_ssim_agrees_with_torchmetrics():
    """torchmetrics pads by reflection and averages all positions: its map is cut to ours."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = noisy(photographs(), 25), photographs()
    _, full = structural_similarity_index_measure(
        a.double(), b.double(), data_range=255.0, return_full_image=True, reduction="none"
    )
    luminance, contrast = similarity_maps(a.double(), b.double())
    np.testing.assert_allclose((luminance * contrast).numpy(), full[..., 5:-5, 5:-5].numpy(), atol=1e-9)
    expected = full[..., 5:-5, 5:-5].mean((1, 2, 3))
    np.testing.assert_allclose(values("ssim", a, b)["ssim"].numpy(), expected.numpy(), rtol=ORACLE)


def test_ssim_in_a_region_is_the_mean_of_scikit_images_map():
    a, b = noisy(photographs(), 25), photographs()
    mask = torch.zeros(3, 1, 96, 96, dtype=torch.bool)
    mask[:, :, 2:40, 30:] = True
    found = values("ssim", a, b, face=mask)["ssim/face"]
    for i, (x, y) in enumerate(zip(as_hwc(a), as_hwc(b), strict=True)):
        _, full = skimage_metrics.structural_similarity(
            x,
            y,
            channel_axis=2,
            data_range=255,
            **WANG,
            full=True,
        )
        inside = mask[i, 0].numpy().copy()
        inside[:5], inside[-5:], inside[:, :5], inside[:, -5:] = False, False, False, False
        assert float(found[i]) == pytest.approx(full[inside].mean(), rel=ORACLE)


def plain_terms(x, y):
    """Both terms of one plane from their definition: every window cut out, weighed and summed."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    cut = np.lib.stride_tricks.sliding_window_view

    def mean(p):
        return (cut(p, (11, 11)) * window).sum((2, 3))

    mx, my = mean(x), mean(y)
    variances = mean(x * x) - mx**2 + mean(y * y) - my**2
    luminance = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
    return luminance, (2 * (mean(x * y) - mx * my) + 58.5225) / (variances + 58.5225)


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(11, 83), st.integers(11, 83)),
    kind=st.sampled_from(["noise", "near", "flat", "white", "steps"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_position_is_its_definition(size, kind, seed):
    """At the edges of the blocks of 24 rows and 32 columns too, and where large squares cancel."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 1, *size), dtype=np.uint8)
    y = {
        "noise": rng.integers(0, 256, x.shape, dtype=np.uint8),
        "near": np.clip(x + rng.integers(-2, 3, x.shape), 0, 255).astype(np.uint8),
        "flat": np.full_like(x, rng.integers(0, 256)),
        "white": np.full_like(x, 255),
        "steps": x // 64 * 64,
    }[kind]
    if kind in ("flat", "white"):
        x = np.full_like(y, max(int(y.flat[0]) - 1, 0))
    found = similarity_maps(torch.from_numpy(x), torch.from_numpy(y))
    floats = similarity_maps(torch.from_numpy(x).double(), torch.from_numpy(y).double())
    for i in range(2):
        expected = plain_terms(x[i, 0].astype(float), y[i, 0].astype(float))
        for part in range(2):
            np.testing.assert_allclose(found[part][i, 0].numpy(), expected[part], atol=1e-10)
            assert torch.equal(found[part], floats[part])


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), level=st.integers(0, 255), seed=st.integers(0, 99)
)
def test_psnr_is_its_definition_to_the_last_bit(height, width, level, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (5, 3, height, width), dtype=np.uint8)
    y = np.clip(x.astype(int) + rng.integers(-level, level + 1, x.shape), 0, 255).astype(np.uint8)
    y[2] = x[2]
    squares = ((x.astype(np.int64) - y.astype(np.int64)) ** 2).sum((1, 2, 3))
    error = torch.from_numpy(squares / (3 * height * width))
    expected = 20 * math.log10(255) - 10 * torch.log10(error)
    assert torch.equal(values("psnr", torch.from_numpy(x), torch.from_numpy(y))["psnr"], expected)


def test_psnr_is_exact_where_every_byte_differs_as_far_as_bytes_can():
    """Sums of 255^2 are the largest; the size is no multiple of the pieces that they are made in."""
    x = torch.zeros(2, 3, 331, 301, dtype=torch.uint8)
    y = torch.full_like(x, 255)
    y[1, 2, -1, -1] = 254
    errors = torch.tensor([255**2, 255**2 - 509 / x[0].numel()], dtype=torch.float64)
    expected = 20 * math.log10(255) - 10 * torch.log10(errors)
    assert torch.equal(values("psnr", x, y)["psnr"], expected)
    everywhere = torch.ones(2, 1, 331, 301, dtype=torch.bool)
    assert torch.equal(values("psnr", y, x, all=everywhere)["psnr"], expected)


@pytest.mark.parametrize("size", [176, 240])
@pytest.mark.parametrize("sigma", [2, 120])
def test_ms_ssim_agrees_with_pytorch_msssim(size, sigma):
    """At sizes that halve evenly four times; at odd ones it pads zeros, where the authors mirror."""
    peer = pytest.importorskip("pytorch_msssim")
    a, b = noisy(photographs(size), sigma), photographs(size)
    # Its own gaussian is rounded to float32, which moves the value by 3e-6.
    window = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(3, 1, 1, 11)
    expected = peer.ms_ssim(a.double(), b.double(), data_range=255, size_average=False, win=window)
    np.testing.assert_allclose(values("ms-ssim", a, b)["ms-ssim"].numpy(), expected.numpy(), rtol=ORACLE)


def test_ms_ssim_is_near_torchmetrics():
    """torchmetrics averages channels before the powers and counts a reflected border at the last scale."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as peer

    grey = photographs(240)[:, :1].expand(-1, 3, -1, -1).contiguous()
    a = noisy(grey[:, :1], 25).expand(-1, 3, -1, -1).contiguous()
    expected = peer(a.double(), grey.double(), data_range=255.0, reduction="none", normalize="relu")
    np.testing.assert_allclose(values("ms-ssim", a, grey)["ms-ssim"].numpy(), expected.numpy(), rtol=5e-4)


def by_definition(x, y):
    """MS-SSIM of one channel as its authors' MATLAB code does it: window 'valid', mirrored 2x2 averages."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def smooth(p):
        return ndimage.correlate(p, window, mode="reflect")[5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        mx, my = smooth(x), smooth(y)
        vx, vy, c = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
        term = (2 * c + 58.5225) / (vx + vy + 58.5225)
        if scale == 4:
            term = term * (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
        product *= max(term.mean(), 0) ** weight
        x, y = (
            ndimage.correlate(p, np.full((2, 2), 0.25), mode="reflect", origin=-1)[::2, ::2] for p in (x, y)
        )
    return product


@pytest.mark.parametrize("size", [161, 163, 187])
def test_ms_ssim_at_odd_sizes_is_the_authors(size):
    a, b = noisy(photographs(size), 25)[:1], photographs(size)[:1]
    expected = np.mean(
        [by_definition(x.numpy(), y.numpy()) for x, y in zip(a[0].double(), b[0].double(), strict=True)]
    )
    assert float(values("ms-ssim", a, b)["ms-ssim"]) == pytest.approx(expected, rel=ORACLE)


def test_ms_ssim_counts_negative_structure_as_zero():
    a = photographs(176)
    assert values("ms-ssim", 255 - a, a)["ms-ssim"].eq(0).all()
    assert values("ssim", 255 - a, a)["ssim"].min() < 0


def test_ms_ssim_in_a_region_sees_only_the_region():
    a = photographs(256)
    b = a.clone()
    b[..., :40] = noisy(a, 60)[..., :40]
    left, right = torch.zeros(2, 3, 1, 256, 256, dtype=torch.bool)
    left[..., :128], right[..., 128:] = True, True
    found = values("ms-ssim", b, a, left=left, right=right)
    assert found["ms-ssim/right"].tolist() == pytest.approx([1.0] * 3)
    assert (found["ms-ssim/left"] < found["ms-ssim"]).all()


def test_constant_images_give_the_luminance_term():
    a, b = (torch.full((1, 3, 16, 16), level, dtype=torch.uint8) for level in (100, 140))
    expected = (2 * 100 * 140 + 6.5025) / (100**2 + 140**2 + 6.5025)
    assert float(values("ssim", a, b)["ssim"]) == pytest.approx(expected, rel=1e-12)
    assert float(values("psnr", a, b)["psnr"]) == pytest.approx(20 * math.log10(255 / 40), rel=1e-12)


def test_luma_is_studio_swing():
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [12, 200, 77]], dtype=torch.uint8)
    luma = compared_channels(colours.view(4, 3, 1, 1), "y").flatten()
    expected = [16.0, 235.0, 16 + 65.481, 16 + (65.481 * 12 + 128.553 * 200 + 24.966 * 77) / 255]
    assert luma.tolist() == pytest.approx(expected, rel=1e-12)


def test_luma_measures_read_luma_alone():
    from skimage.color import rgb2ycbcr

    a, b = noisy(photographs(), 25), photographs()
    planes = [[rgb2ycbcr(image)[..., 0] for image in as_hwc(side)] for side in (a, b)]
    for name, peer, options in (
        ("psnr", skimage_metrics.peak_signal_noise_ratio, {}),
        (
            "ssim",
            skimage_metrics.structural_similarity,
            WANG,
        ),
    ):
        expected = [peer(y, x, data_range=255, **options) for x, y in zip(*planes, strict=True)]
        found = values(f"{name}-y", a, b)
        assert set(found) == {f"{name}-y"}
        np.testing.assert_allclose(found[f"{name}-y"].numpy(), expected, rtol=ORACLE)


def test_psnr_of_regions_recombines():
    """Errors inside and outside, weighted by their pixels, are the error of the whole."""
    a, b = noisy(photographs(), 25), photographs()
    mask = torch.from_numpy(np.random.default_rng(1).random((3, 1, 96, 96)) < 0.3)
    found = values("psnr", a, b, inside=mask, outside=~mask)
    errors = {name: 255**2 / 10 ** (value / 10) for name, value in found.items()}
    share = mask.double().mean((1, 2, 3))
    whole = share * errors["psnr/inside"] + (1 - share) * errors["psnr/outside"]
    np.testing.assert_allclose(whole.numpy(), errors["psnr"].numpy(), rtol=1e-12)


def test_a_tiny_image_is_refused_with_the_minimum():
    for name, size in (("ssim", 10), ("ms-ssim", 160)):
        image = torch.zeros(1, 3, size, 300, dtype=torch.uint8)
        with pytest.raises(InvalidInputError, match=f"at least {size + 1}x{size + 1}"):
            values(name, image, image)


def test_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no weights"):
        build_pair_measure("psnr", weights={"psnr": tmp_path / "x.pth"}, device="cpu")
