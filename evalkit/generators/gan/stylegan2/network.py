"""StyleGAN2's generator in NVIDIA's PyTorch layout, any resolution and all three architectures.

Karras, Laine, Aittala, Hellsten, Lehtinen & Aila 2020 (Analyzing and Improving the Image Quality of
StyleGAN); Karras, Aittala, Hellsten, Laine, Lehtinen & Aila 2020 (ADA) for labels and clamping. Parameters
and buffers carry the names of the public layout.

Accepted trade-offs: everything is computed in the type that the sampling options ask for, whatever number of
layers the checkpoint was trained in half precision; ``conv_clamp`` applies in every type, as its authors do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.gan.style_layers import EqualisedLinear, demodulation, leaky, modulated_conv
from evalkit.generators.gan.stylegan2.filters import smooth_doubled, upsample
from evalkit.generators.gan.stylegan2.mapping import MappingNetwork

ARCHITECTURES = ("skip", "resnet", "orig")
KERNEL = 3
_HALF = math.sqrt(0.5)
_UNUSED_FILTER = (4, 4)


@dataclass(frozen=True)
class StyleGAN2Config:
    """Sizes and constants of the network; ``channels`` starts at 4 pixels, each further entry doubles.

    Attributes:
        embed_dim: numbers in the embedding of a label; 0 where unconditional.
        mapping_rate: learning rate of the mapping network relative to the synthesis network.
        architecture: ``skip``, ``resnet`` or ``orig``: how the resolutions make one image.
        noise_inputs: whether layers add noise.
        filter_shape: shape of the resampling filter.
        tracked_centre: whether the checkpoint holds the mean of w.
        conv_clamp: bound of every activation; None where there is none.
        truncation_cutoff: layers, from the first, that truncation reaches; all where None.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    embed_dim: int
    mapping_widths: tuple[int, ...]
    mapping_rate: float
    channels: tuple[int, ...]
    image_channels: int
    architecture: str
    noise_inputs: bool
    filter_shape: tuple[int, ...]
    tracked_centre: bool
    conv_clamp: float | None
    truncation_cutoff: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no network has.

        Raises:
            ValueError: an unknown architecture, or a size below 1.
        """
        sizes = (self.z_dim, self.w_dim, self.image_channels, len(self.channels), *self.channels)
        if min(sizes) < 1 or self.c_dim < 0 or self.architecture not in ARCHITECTURES:
            raise ValueError(f"impossible sizes or architecture: {self}")

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 4 << (len(self.channels) - 1)

    @property
    def layer_count(self) -> int:
        """Copies of w: one for each convolution and one for the last conversion to colours."""
        return 2 * len(self.channels)

    @property
    def noise_sizes(self) -> tuple[int, ...]:
        """Height of the noise image of each convolution: one at 4 pixels, two at every later size."""
        if not self.noise_inputs:
            return ()
        return (4, *(4 << i for i in range(1, len(self.channels)) for _ in range(2)))


class SynthesisLayer(nn.Module):
    """Modulated, demodulated convolution, noise, bias, leaky rectifier, clamp."""

    noise_const: Tensor | None

    def __init__(self, config: StyleGAN2Config, inputs: int, outputs: int, size: int, *, up: bool) -> None:
        super().__init__()
        self.up, self.clamp, self.fan_in = up, config.conv_clamp, inputs * KERNEL**2
        self.affine = EqualisedLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(())) if config.noise_inputs else None
        self.register_buffer("noise_const", torch.randn(size, size) if config.noise_inputs else None)
        # A layer that does not up-sample holds the usual filter whatever the others hold, and never uses it.
        self.register_buffer("resample_filter", torch.zeros(config.filter_shape if up else _UNUSED_FILTER))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, *, gain: float = 1.0) -> Tensor:
        """Map ``[n, i, h, w]`` by styles from ``w`` ``[n, d_w]``; ``noise`` is ``[n or 1, 1, h', w']``."""
        style, weight, factor = self._modulation(x, w)
        x = self._convolve(x, weight, style)
        x = x * factor[:, :, None, None].to(x.dtype)
        if noise is not None and self.noise_strength is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        x = leaky(x + self.bias.to(x.dtype)[:, None, None])
        return bounded(x * gain if gain != 1.0 else x, self.clamp, gain)

    def _modulation(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # No 1 / sqrt(fan_in): demodulation takes any such factor out again.
        with torch.autocast(x.device.type, enabled=False):
            style, weight = self.affine(w.float()), self.weight
            if _is_half(x):
                # Keeps activations within the range of float16; the same images but for the epsilon.
                weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * self.fan_in**0.5)
                style = style / style.abs().amax(dim=1, keepdim=True)
            return style, weight, demodulation(weight, style)

    def _convolve(self, x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        if not self.up:
            return modulated_conv(x, weight, style)
        x = x * style[:, :, None, None].to(x.dtype)
        doubled = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return smooth_doubled(doubled, self.get_buffer("resample_filter"), kernel=KERNEL)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to colours, not demodulated."""

    def __init__(self, config: StyleGAN2Config, inputs: int) -> None:
        super().__init__()
        self.clamp = config.conv_clamp
        self.affine = EqualisedLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.scale = 1.0 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return float32 ``[n, c, h, w]``."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w.float()) * self.scale
        y = modulated_conv(x, self.weight, style).float()
        return bounded(y + self.bias[:, None, None], self.clamp)


class ResidualConv(nn.Module):
    """Equalised 1x1 convolution and up-sampling: the short path of the residual architecture."""

    def __init__(self, config: StyleGAN2Config, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.scale = 1.0 / math.sqrt(inputs)
        self.register_buffer("resample_filter", torch.zeros(config.filter_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, i, h, w]`` to ``[n, o, 2h, 2w]``, times sqrt(1/2) so that the sum keeps its variance."""
        small = F.conv2d(x, self.weight * (self.scale * _HALF))
        return upsample(small, self.get_buffer("resample_filter"))


class SynthesisBlock(nn.Module):
    """Everything at one resolution; the first starts from a learned constant."""

    const: nn.Parameter
    conv0: SynthesisLayer
    skip: ResidualConv | None
    torgb: ToRGBLayer | None

    def __init__(self, config: StyleGAN2Config, index: int) -> None:
        super().__init__()
        size, outputs = 4 << index, config.channels[index]
        last = index == len(config.channels) - 1
        self.is_first, self.skip, self.torgb = index == 0, None, None
        self.register_buffer("resample_filter", torch.zeros(config.filter_shape))
        if self.is_first:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        else:
            inputs = config.channels[index - 1]
            self.conv0 = SynthesisLayer(config, inputs, outputs, size, up=True)
            if config.architecture == "resnet":
                self.skip = ResidualConv(config, inputs, outputs)
        self.conv1 = SynthesisLayer(config, outputs, outputs, size, up=False)
        if last or config.architecture == "skip":
            self.torgb = ToRGBLayer(config, outputs)

    def features(self, x: Tensor | None, styles: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Tensor:
        """Return this resolution's features from those of the one before (None at the first)."""
        if self.is_first:
            start = self.const.expand(len(styles[0]), -1, -1, -1)
            return cast("Tensor", self.conv1(start, styles[0], noise[0]))
        gain = 1.0 if self.skip is None else _HALF
        y = self.conv1(self.conv0(x, styles[0], noise[0]), styles[1], noise[1], gain=gain)
        return cast("Tensor", y if self.skip is None else y + self.skip(x))

    def image(self, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor | None:
        """Return the image so far, doubled, plus this resolution's contribution where it makes one."""
        if image is not None:
            image = upsample(image, self.get_buffer("resample_filter"))
        if self.torgb is None:
            return image
        own: Tensor = self.torgb(x, style)
        return own if image is None else image + own


class SynthesisNetwork(nn.Module):
    """Styles and noise to images."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.sizes = [4 << index for index in range(len(config.channels))]
        for index, size in enumerate(self.sizes):
            self.add_module(f"b{size}", SynthesisBlock(config, index))

    def forward(self, styles: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        """Map styles ``[n, layers, d_w]`` to float32 images; ``noise`` has one entry for each convolution."""
        rows = styles.unbind(dim=1)
        x: Tensor | None = None
        image: Tensor | None = None
        ends = [1, *range(3, 2 * len(self.sizes), 2)]
        for size, (start, end) in zip(self.sizes, pairwise([0, *ends]), strict=True):
            block = cast("SynthesisBlock", self.get_submodule(f"b{size}"))
            x = block.features(x, rows[start:end], noise[start:end])
            # The conversion to colours shares its copy of w with the first convolution of the next size.
            image = block.image(x, rows[end], image)
        return cast("Tensor", image)  # the last block always makes one


class StyleGAN2Generator(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config)

    def stored_noise(self) -> list[Tensor | None]:
        """Return the noise that the checkpoint holds, float32 ``[1, 1, h, h]`` for each convolution."""
        layers = [m for m in self.synthesis.modules() if isinstance(m, SynthesisLayer)]
        return [None if m.noise_const is None else m.noise_const[None, None] for m in layers]


def bounded(x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    """Return ``x`` within ``+- clamp * gain``; unchanged where there is no bound."""
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def _is_half(x: Tensor) -> bool:
    device = x.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
