"""The bundled variational autoencoders: what there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="vae",
        family="vae",
        title="convolutional VAE, standard normal prior",
        factory="evalkit.generators.vae.sampling:build",
        samplers=(FORWARD,),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = ()
