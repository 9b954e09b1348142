"""StyleGAN3's generator in NVIDIA's layout, configurations T and R.

Karras, Aittala, Laine, Härkönen, Hellsten, Lehtinen & Aila 2021 (Alias-Free Generative Adversarial Networks).
Filters, frequencies, phases and magnitudes are buffers of the layout and used as stored.

Accepted trade-offs: the authors divide the styles of a batch by their common root mean square before
demodulation takes the scale out again; here each image by its own, so that no image knows its batch. What
remains of the difference is the epsilon of demodulation, 1e-8 of a sum of many ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.gan.style_layers import GAIN, SLOPE, EqualisedLinear, demodulation
from evalkit.generators.gan.stylegan2.filters import Padding, resample
from evalkit.generators.gan.stylegan2.mapping import MappingNetwork
from evalkit.generators.gan.stylegan2.network import bounded
from evalkit.generators.gan.stylegan3.bands import Band, bands


@dataclass(frozen=True)
class StyleGAN3Config:
    """Sizes and constants of the network.

    Attributes:
        channels: outputs of each layer; the last are colours.
        kernel: size of the convolutions: 3 in configuration T, 1 in R.
        radial: whether filters that take samples away are round (R) or separable (T).
        filter_size: taps of a filter by its factor.
        lrelu_upsampling: rate of the leaky rectifier by the rate of its layer.
        truncation_cutoff: layers, from the first, that truncation reaches; all where None.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    embed_dim: int
    mapping_widths: tuple[int, ...]
    mapping_rate: float
    tracked_centre: bool
    resolution: int
    channels: tuple[int, ...]
    kernel: int
    radial: bool
    num_critical: int
    first_cutoff: float
    first_stopband: float
    last_stopband_rel: float
    margin_size: int
    output_scale: float
    filter_size: int
    lrelu_upsampling: int
    conv_clamp: float | None
    truncation_cutoff: int | None = None

    @property
    def layer_count(self) -> int:
        """Copies of w: one for the Fourier features and one for each layer."""
        return len(self.channels) + 1


class FourierFeatures(nn.Module):
    """Sines of fixed frequencies on a canvas that w turns and shifts, mixed by a learned matrix."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, config: StyleGAN3Config, band: Band) -> None:
        super().__init__()
        channels = config.channels[0]
        self.band = band
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualisedLinear(config.w_dim, 4)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.zeros(channels, 2))
        self.register_buffer("phases", torch.zeros(channels))

    def forward(self, w: Tensor) -> Tensor:
        """Return float32 ``[n, c, size, size]``: ``W sin(2 pi (f . p + phase)) / sqrt(c)``."""
        with torch.autocast(w.device.type, enabled=False):
            moved = self._moved(w.float())
            freqs = self.freqs @ moved[:, :2, :2]
            phases = self.phases + (self.freqs @ moved[:, :2, 2:]).squeeze(2)
            # A frequency that the transform pushes out of the band fades before the canvas would alias it.
            room = self.band.rate / 2 - self.band.cutoff
            strength = (1 - (freqs.norm(dim=2) - self.band.cutoff) / room).clamp(0, 1)
            size = self.band.size
            p = (torch.arange(size, device=w.device) + 0.5 - size / 2) / self.band.rate
            x, y = freqs[:, :, :, None, None].unbind(dim=2)
            waves = torch.sin(2 * math.pi * (x * p + y * p[:, None] + phases[:, :, None, None]))
            mixing = self.weight / math.sqrt(len(self.weight))
            return F.conv2d(waves * strength[:, :, None, None], mixing[:, :, None, None])

    def _moved(self, w: Tensor) -> Tensor:
        """Return ``[n, 3, 3]``: rotation after translation, both from w, after the stored transform."""
        t = self.affine(w)
        cos, sin, x, y = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rows = (
            (cos, -sin, sin * y - cos * x),
            (sin, cos, -sin * x - cos * y),
            (zero, zero, one),
        )
        moved: Tensor = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) @ self.transform
        return moved


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, then the leaky rectifier at a higher rate between two low-pass filters.

    The conversion to colours is neither demodulated nor filtered, and its rectifier has slope 1.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: StyleGAN3Config, index: int, before: Band, band: Band) -> None:
        super().__init__()
        count = len(config.channels) - 1
        inputs, outputs = config.channels[max(index - 1, 0)], config.channels[index]
        self.is_colour = index == count
        self.clamp, self.kernel = config.conv_clamp, 1 if self.is_colour else config.kernel
        inner = max(before.rate, band.rate) * (1 if self.is_colour else config.lrelu_upsampling)
        self.up, self.down = round(inner / before.rate), round(inner / band.rate)
        self.affine = EqualisedLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("magnitude_ema", torch.ones(()))
        up_taps, down_taps = (
            config.filter_size * factor if factor > 1 and not self.is_colour else 1
            for factor in (self.up, self.down)
        )
        is_round = config.radial and index < count - config.num_critical
        self.register_buffer("up_filter", torch.zeros(up_taps) if up_taps > 1 else None)
        shape = (down_taps, down_taps) if is_round else (down_taps,)
        self.register_buffer("down_filter", torch.zeros(shape) if down_taps > 1 else None)
        self.padding = self._padding(before.size, band.size, up_taps + down_taps)

    def _padding(self, before: int, size: int, taps: int) -> Padding:
        # Samples lie symmetrically about the centre of the canvas (appendix C.3).
        total = (size - 1) * self.down + 1 - (before + self.kernel - 1) * self.up + taps - 2
        low = (total + self.up) // 2
        return low, total - low, low, total - low

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map ``[n, i, h, h]`` by styles from ``w`` ``[n, d_w]`` to ``[n, o, h', h']``."""
        with torch.autocast(x.device.type, enabled=False):
            weight, style, factor = self._modulation(w.float())
        x = F.conv2d(x * style[:, :, None, None].to(x.dtype), weight, padding=self.kernel - 1)
        if factor is not None:
            x = x * factor[:, :, None, None].to(x.dtype)
        x = x + self.bias.to(x.dtype)[:, None, None]
        x = resample(x, self.up_filter, up=self.up, padding=self.padding)
        if not self.is_colour:
            x = F.leaky_relu(x, SLOPE) * GAIN
        return resample(bounded(x, self.clamp), self.down_filter, down=self.down)

    def _modulation(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return weights, the scale of each input channel, and of each output channel where demodulated."""
        style, inward = self.affine(w), self.magnitude_ema.rsqrt()
        if self.is_colour:
            return self.weight, style * (inward / math.sqrt(self.weight.shape[1])), None
        weight = self.weight * self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
        return weight, style * inward, demodulation(weight, style)


class SynthesisNetwork(nn.Module):
    """Styles to images: Fourier features, then one layer after another, named by index, size and channels."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        plan = bands(config)
        self.output_scale = config.output_scale
        self.input = FourierFeatures(config, plan[0])
        self.names = []
        for index, (before, band) in enumerate(pairwise((plan[0], *plan))):
            self.names.append(f"L{index}_{band.size}_{config.channels[index]}")
            self.add_module(self.names[-1], SynthesisLayer(config, index, before, band))

    def forward(self, styles: Tensor) -> Tensor:
        """Map styles ``[n, layers, d_w]`` to float32 images."""
        first, *rows = styles.unbind(dim=1)
        x: Tensor = self.input(first)
        for name, row in zip(self.names, rows, strict=True):
            x = self.get_submodule(name)(x, row)
        return x.float() * self.output_scale


class StyleGAN3Generator(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config)
