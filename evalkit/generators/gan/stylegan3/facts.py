"""StyleGAN3. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts

NVIDIA = "nvidia-stylegan3"

DEFAULTS = MappingProxyType(
    {
        "mapping_rate": 0.01,
        "num_critical": 2,
        "first_cutoff": 2.0,
        "first_stopband": 2**2.1,
        "last_stopband_rel": 2**0.3,
        "margin_size": 10,
        "output_scale": 0.25,
        "filter_size": 6,
        "lrelu_upsampling": 2,
        "conv_clamp": 256.0,
    }
)
"""What NVIDIA's code takes unless told otherwise; configurations T and R differ in shapes only."""

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="stylegan3",
        family="gan",
        title="StyleGAN3, configurations T and R: Fourier features, filtered leaky rectifiers, no noise",
        factory="evalkit.generators.gan.stylegan3.sampling:build",
        samplers=(FORWARD,),
        takes_truncation=True,
        layouts=(NVIDIA,),
        presets=MappingProxyType({"stylegan3": DEFAULTS}),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=NVIDIA,
        title="NVIDIA's StyleGAN3 code, PyTorch",
        fingerprint=("synthesis.input.freqs", "mapping.fc0.weight"),
        absent=("synthesis.b4.const",),
        averaged=("G_ema",),
        raw=("G",),
    ),
)
