"""The bundled variational autoencoders: what there is, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts, SamplerFacts

_CIFAR10: Mapping[str, object] = MappingProxyType(
    {
        "enc_blocks": "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        "dec_blocks": "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        "bottleneck_multiple": 0.25,
        "image_size": 32,
        "no_bias_above": 64,
        "pixel_mean": 120.63838,
        "pixel_deviation": 64.16736,
    }
)
"""hps.py of openai/vdvae, cifar10, with the defaults of its arguments; pixel moments from its data.py."""

MIXTURE = SamplerFacts("mixture", None, "one pass, latents from the mixture that the checkpoint holds")
RASTER = SamplerFacts("raster", None, "one code after the other from the prior, then one pass of the decoder")

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="vae",
        family="vae",
        title="convolutional VAE, standard normal prior",
        factory="evalkit.generators.vae.sampling:build",
        samplers=(FORWARD, MIXTURE),
    ),
    GeneratorFacts(
        name="vq-vae",
        family="vae",
        title="VQ-VAE, 8x8 codes of 512, class-conditional Gated PixelCNN prior",
        factory="evalkit.generators.vae.quantised_sampling:build",
        samplers=(RASTER,),
    ),
    GeneratorFacts(
        name="cvae",
        family="vae",
        title="conditional VAE, label joined to image and latent, perceptrons",
        factory="evalkit.generators.vae.conditional_sampling:build",
        samplers=(FORWARD,),
    ),
    GeneratorFacts(
        name="vdvae",
        family="vae",
        title="very deep hierarchical VAE, pixels drawn from a mixture of logistics",
        factory="evalkit.generators.vae.deep_sampling:build",
        samplers=(FORWARD,),
        layouts=("vdvae",),
        presets=MappingProxyType({"vdvae-cifar10": _CIFAR10}),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="vdvae",
        title="openai/vdvae (*-model-ema.th)",
        fingerprint=("decoder.dec_blocks.0.prior.c1.weight",),
        prefixes=("module.",),
    ),
)
