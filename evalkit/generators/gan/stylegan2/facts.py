"""StyleGAN2 and what shares its generator. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts, Published, SamplerFacts

FORWARD_NOISE = SamplerFacts("forward", None, "one pass, layer noise from the seed of the image")
STORED_NOISE = SamplerFacts("stored-noise", None, "one pass, the checkpoint's own noise for every image")
NO_NOISE = SamplerFacts("no-noise", None, "one pass without layer noise")

NVIDIA = "nvidia-stylegan2"
ROSINALITY = "rosinality-stylegan2"

_ADA = "Karras et al. 2020, Training GANs with Limited Data, figure 11b"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="stylegan2",
        family="gan",
        title="StyleGAN2: mapping network, weight demodulation, skip or residual generator",
        factory="evalkit.generators.gan.stylegan2.sampling:build",
        samplers=(FORWARD_NOISE, STORED_NOISE, NO_NOISE),
        takes_truncation=True,
        layouts=(NVIDIA, ROSINALITY),
        presets=MappingProxyType(
            {
                "stylegan2-ada": MappingProxyType({"mapping_rate": 0.01, "conv_clamp": 256.0}),
                "stylegan2-float32": MappingProxyType({"mapping_rate": 0.01, "conv_clamp": None}),
            }
        ),
        published=(
            Published("StyleGAN2-ADA", "CIFAR-10, conditional", "FID 2.42", 50_000, _ADA),
            Published("StyleGAN2-ADA", "CIFAR-10, unconditional", "FID 2.92", 50_000, _ADA),
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=NVIDIA,
        title="NVIDIA's StyleGAN2-ADA and StyleGAN3 code, PyTorch",
        fingerprint=("synthesis.b4.const", "mapping.fc0.weight"),
        absent=("synthesis.input.freqs",),
        averaged=("G_ema",),
        raw=("G",),
    ),
    LayoutFacts(
        name=ROSINALITY,
        title="rosinality/stylegan2-pytorch",
        fingerprint=("style.1.weight", "input.input", "conv1.conv.weight"),
        averaged=("g_ema",),
        raw=("g",),
    ),
)
