"""Each named resizer against an independent account of what it reproduces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from evalkit.errors import InvalidInputError, UsageError
from evalkit.extractors.facts import Preset
from evalkit.extractors.resizers import RESIZERS, prepared

SIZES = [(32, 32, 299), (64, 48, 299), (512, 300, 299), (5, 7, 3), (1, 1, 8), (299, 120, 299)]


def noise(height: int, width: int, *, n: int = 2) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox([height, width]))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8))


def checkerboard(size: int) -> torch.Tensor:
    board = (np.indices((size, size)).sum(0) % 2 * 255).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(board, (1, 3, size, size)).copy())


@pytest.mark.parametrize("name", list(RESIZERS))
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_shape_dtype_purity(name: str, height: int, width: int, size: int) -> None:
    if name == "none":
        height = width = size
    images = noise(height, width)
    before = images.clone()
    resized = RESIZERS[name](images, size)
    assert resized.shape == (2, 3, size, size)
    assert resized.dtype == torch.float32
    assert torch.equal(images, before)
    alone = RESIZERS[name](images[1:], size)
    assert torch.equal(resized[1:], alone)


@pytest.mark.parametrize("name", list(RESIZERS))
def test_identity_at_equal_size(name: str) -> None:
    images = noise(24, 24)
    assert torch.equal(RESIZERS[name](images, 24), images.float())


@pytest.mark.parametrize("name", [name for name in RESIZERS if name != "none"])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_images_stay_constant(name: str, value: int) -> None:
    images = torch.full((1, 3, 20, 13), value, dtype=torch.uint8)
    assert torch.allclose(RESIZERS[name](images, 31), torch.tensor(float(value)), atol=1e-4, rtol=0)


def slow_tf1(image: np.ndarray, size: int) -> np.ndarray:
    """The formula of the published kernel, one pixel at a time, in float32."""
    channels, height, width = image.shape
    out = np.empty((channels, size, size), dtype=np.float32)
    one = np.float32
    for y in range(size):
        source_y = one(y) * one(height / size)
        top = math.floor(source_y)
        bottom, dy = min(top + 1, height - 1), one(source_y - one(top))
        for x in range(size):
            source_x = one(x) * one(width / size)
            left = math.floor(source_x)
            right, dx = min(left + 1, width - 1), one(source_x - one(left))
            pixel = image.astype(np.float32)
            upper = pixel[:, top, left] + (pixel[:, top, right] - pixel[:, top, left]) * dx
            lower = pixel[:, bottom, left] + (pixel[:, bottom, right] - pixel[:, bottom, left]) * dx
            out[:, y, x] = upper + (lower - upper) * dy
    return out


@pytest.mark.parametrize(("height", "width", "size"), [(6, 9, 14), (14, 11, 5), (3, 3, 7)])
def test_tf1_bilinear_is_the_formula_bit_for_bit(height: int, width: int, size: int) -> None:
    images = noise(height, width, n=1)
    expected = slow_tf1(images[0].numpy(), size)
    assert np.array_equal(RESIZERS["tf1-bilinear"](images, size)[0].numpy(), expected)


@pytest.mark.parametrize("size", [32, 64, 299, 512])
def test_tf1_bilinear_agrees_with_torch_fidelity(size: int) -> None:
    peer = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow", exc_type=ImportError)
    for images in (noise(size, size), checkerboard(size)):
        expected = peer.interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=(299, 299), align_corners=False
        )
        assert torch.equal(RESIZERS["tf1-bilinear"](images, 299), expected)


def test_tf1_bilinear_has_no_half_pixel_shift() -> None:
    images = noise(8, 8)
    assert torch.equal(RESIZERS["tf1-bilinear"](images, 16)[..., ::2, ::2], images.float())
    assert not torch.equal(RESIZERS["torch-bilinear"](images, 16)[..., ::2, ::2], images.float())


def test_torch_bilinear_is_what_pytorch_fid_calls() -> None:
    images = noise(40, 30)
    expected = F.interpolate(images.float(), size=(299, 299), mode="bilinear", align_corners=False)
    assert torch.equal(RESIZERS["torch-bilinear"](images, 299), expected)


def test_torch_bicubic_antialiases_and_is_not_clipped() -> None:
    board = checkerboard(64)
    small = RESIZERS["torch-bicubic-aa"](board, 16)
    assert (small - 127.5).abs().max() < 10
    edge = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    large = RESIZERS["torch-bicubic-aa"](edge, 64)
    assert large.min() < -1
    assert large.max() > 256


def test_pil_float_is_not_quantised_and_is_clipped() -> None:
    images = noise(32, 32)
    resized = RESIZERS["pil-bicubic-float"](images, 75)
    assert resized.min() >= 0
    assert resized.max() <= 255
    assert (resized != resized.round()).any()
    plane = Image.fromarray(images[1, 2].numpy().astype(np.float32))
    expected = np.asarray(plane.resize((75, 75), Image.Resampling.BICUBIC)).clip(0, 255)
    assert np.array_equal(resized[1, 2].numpy(), expected)


def test_pil_uint8_is_whole_numbers_and_is_pillow() -> None:
    images = noise(32, 20)
    resized = RESIZERS["pil-bicubic-uint8"](images, 17)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((17, 17), Image.Resampling.BICUBIC)
    assert np.array_equal(resized[0].permute(1, 2, 0).numpy(), np.asarray(picture))


def test_pil_float_and_torch_antialias_are_one_kernel() -> None:
    images = noise(96, 96)
    torch_way = RESIZERS["torch-bicubic-aa"](images, 40).clamp(0, 255)
    assert (RESIZERS["pil-bicubic-float"](images, 40) - torch_way).abs().max() < 0.01


OBLONG = [(80, 60, 32), (60, 81, 33), (40, 97, 64), (97, 40, 64), (33, 32, 32), (224, 300, 224)]


@pytest.mark.parametrize(("height", "width", "size"), OBLONG)
def test_shorter_side_and_crop_are_torchvisions_on_pillow(height: int, width: int, size: int) -> None:
    from torchvision import transforms

    official = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
        ]
    )
    images = noise(height, width)
    resized = RESIZERS["pil-bicubic-uint8-crop"](images, size)
    for image, ours in zip(images, resized, strict=True):
        expected = official(Image.fromarray(image.permute(1, 2, 0).numpy()))
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize(("height", "width", "size"), OBLONG)
def test_shorter_side_and_crop_are_torchvisions_on_tensors(height: int, width: int, size: int) -> None:
    from torchvision.transforms import functional as peer

    images = noise(height, width)
    bicubic = peer.InterpolationMode.BICUBIC
    expected = peer.center_crop(
        peer.resize(images.float(), [size], interpolation=bicubic, antialias=True), [size, size]
    )
    assert torch.equal(RESIZERS["torch-bicubic-aa-crop"](images, size), expected)


@pytest.mark.parametrize(("height", "width"), [(61, 40), (40, 61), (50, 50)])
def test_crop_before_the_resize_is_the_cmmd_reference_code(height: int, width: int) -> None:
    images = noise(height, width)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    picture = Image.fromarray(images[1].permute(1, 2, 0).numpy()).crop((left, top, left + side, top + side))
    expected = np.asarray(picture.resize((33, 33), Image.Resampling.BICUBIC))
    assert np.array_equal(
        RESIZERS["crop-pil-bicubic-uint8"](images, 33)[1].permute(1, 2, 0).numpy(), expected
    )


def test_on_square_images_all_pillow_ways_are_one() -> None:
    images = noise(50, 50)
    plain = RESIZERS["pil-bicubic-uint8"](images, 32)
    assert torch.equal(RESIZERS["pil-bicubic-uint8-crop"](images, 32), plain)
    assert torch.equal(RESIZERS["crop-pil-bicubic-uint8"](images, 32), plain)


def test_prepared_images_are_scaled_by_channel() -> None:
    from torchvision.transforms import functional as peer

    preset = Preset("none", 0.0, 255.0, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    images = noise(16, 16)
    expected = peer.normalize(images.float() / 255, list(preset.mean), list(preset.std))
    assert torch.equal(prepared(images, 16, preset), expected)
    assert torch.equal(prepared(images, 16, Preset("none", 128.0, 64.0)), (images.float() - 128) / 64)
    assert preset.scaling == {"offset": 0.0, "divisor": 255.0, "mean": "0.1 0.2 0.3", "std": "0.5 0.25 2.0"}


def test_none_refuses_another_size() -> None:
    with pytest.raises(InvalidInputError, match="32x20") as caught:
        RESIZERS["none"](noise(32, 20), 32)
    assert "tf1-bilinear" in (caught.value.hint or "")


def test_a_misspelt_resizer_is_explained() -> None:
    with pytest.raises(UsageError) as caught:
        RESIZERS["tf-bilinear"]
    assert "tf1-bilinear" in (caught.value.hint or "")
