"""BigGAN and what shares its generator. What there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = ()

LAYOUTS: tuple[LayoutFacts, ...] = ()
