"""Progressively grown GANs. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="progan",
        family="gan",
        title="progressively grown GAN, He's constant at run time",
        factory="evalkit.generators.gan.progressive.sampling:build",
        samplers=(FORWARD,),
        layouts=("gan-zoo-progressive", "gan-zoo-progressive-bare"),
        presets=MappingProxyType(
            {
                # Defaults of pytorch_GAN_zoo, whose WGAN-GP loss leaves the output linear.
                "gan-zoo": MappingProxyType(
                    {"equalised": True, "pixel_norm": True, "leak": 0.2, "bounded": False}
                ),
            }
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="gan-zoo-progressive",
        title="pytorch_GAN_zoo PGAN: {config, netG, netD, avgG}",
        fingerprint=("formatLayer.module.weight", "groupScale0.0.module.weight"),
        averaged=("avgG",),
        raw=("netG",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="gan-zoo-progressive-bare",
        title="pytorch_GAN_zoo PGAN of an older version: names without `module`",
        fingerprint=("formatLayer.weight", "groupScale0.0.weight"),
        averaged=("avgG",),
        raw=("netG",),
        prefixes=("module.",),
    ),
)
