"""Seeded weights of a sane scale under the names of the style-based layouts, whatever the order.

A public implementation can so be run on the very same ones. Filters are lopsided on purpose: symmetric ones
would hide a convolution that runs the wrong way.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from evalkit.generators.gan.stylegan2.network import StyleGAN2Config

TINY_STYLEGAN2 = StyleGAN2Config(
    z_dim=16,
    c_dim=0,
    w_dim=24,
    embed_dim=0,
    mapping_widths=(24, 24),
    mapping_rate=0.01,
    channels=(16, 16, 8),
    image_channels=3,
    architecture="skip",
    noise_inputs=True,
    filter_shape=(4, 4),
    tracked_centre=True,
    conv_clamp=None,
)
TRANSFORM = ((0.9, -0.3, 0.1), (0.2, 1.1, -0.2), (0.0, 0.0, 1.0))


def style_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights for each name."""
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith(("filter", "kernel")):
        return _taps(shape) * (4.0 if name.endswith("kernel") else 1.0)
    if name.endswith("transform"):
        return torch.tensor(TRANSFORM)
    if name.startswith(("mapping.fc", "style.")):
        return drawn * (100.0 if name.endswith("weight") else 30.0)
    if name.endswith("input.affine.bias"):
        return torch.tensor([1.0, 0.4, 0.2, -0.3])
    return _scaled(name, drawn)


def _taps(shape: tuple[int, ...]) -> Tensor:
    # The filter between two resolutions is one filter under several names.
    taps = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) + 0.1
    return taps / taps.sum()


def _scaled(name: str, drawn: Tensor) -> Tensor:
    if name.endswith("magnitude_ema"):
        return drawn.abs() + 0.5
    if name.endswith(("noise_strength", "noise.weight")):
        return drawn * 0.3
    if name.endswith("bias"):
        return drawn * 0.3 + (1.0 if name.endswith(("affine.bias", "modulation.bias")) else 0.0)
    return drawn


def probe(images: Tensor) -> list[float]:
    """Eight pixels spread over a batch of images."""
    flat = images.flatten()
    return [float(flat[i * (len(flat) - 1) // 7]) for i in range(8)]


def rosinality_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes that rosinality's code has for a network given in NVIDIA's (skip, with noise)."""
    renamed: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        parts = key.split(".")
        if parts[0] == "mapping":
            if parts[1] != "w_avg":
                renamed[f"style.{int(parts[1][2:]) + 1}.{parts[2]}"] = shape
            continue
        block = int(parts[1][1:]).bit_length() - 3
        rest = ".".join(parts[2:])
        renamed |= _rosinality_part(block, rest, shape)
    return renamed


def _rosinality_part(block: int, rest: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    if rest == "const":
        return {"input.input": (1, *shape)}
    colours = "to_rgb1" if block == 0 else f"to_rgbs.{block - 1}"
    if rest == "resample_filter":
        return {} if block == 0 else {f"{colours}.upsample.kernel": shape}
    layer, _, part = rest.partition(".")
    if layer == "torgb":
        names = {
            "weight": (f"{colours}.conv.weight", (1, *shape)),
            "bias": (f"{colours}.bias", (1, *shape, 1, 1)),
        }
        usual = f"{colours}.conv.{part.replace('affine', 'modulation')}"
        name, size = names.get(part, (usual, shape))
        return {name: size}
    number = 0 if block == 0 else 2 * block - 1 + int(layer[-1])
    conv = "conv1" if number == 0 else f"convs.{number - 1}"
    if part == "resample_filter":
        return {f"{conv}.conv.blur.kernel": shape} if layer == "conv0" else {}
    names = {
        "weight": (f"{conv}.conv.weight", (1, *shape)),
        "bias": (f"{conv}.activate.bias", shape),
        "noise_strength": (f"{conv}.noise.weight", (1,)),
        "noise_const": (f"noises.noise_{number}", (1, 1, *shape)),
    }
    name, size = names.get(part, (f"{conv}.conv.{part.replace('affine', 'modulation')}", shape))
    return {name: size}
