"""The U-Nets of pytorch-ddpm and of the DDIM repository. What there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = ()

LAYOUTS: tuple[LayoutFacts, ...] = ()
