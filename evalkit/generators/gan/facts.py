"""The bundled generative adversarial networks: what there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="cgan",
        family="gan",
        title="class-conditional convolutional GAN, projection discriminator",
        factory="evalkit.generators.gan.sampling:build",
        samplers=(FORWARD,),
    ),
    GeneratorFacts(
        name="stylegan",
        family="gan",
        title="class-conditional style-based GAN, mapping network z to w, modulated convolutions",
        factory="evalkit.generators.gan.style_sampling:build",
        samplers=(FORWARD,),
        takes_truncation=True,
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = ()
