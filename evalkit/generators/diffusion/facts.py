"""The bundled diffusion models: what there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="ddpm",
        family="diffusion",
        title="class-conditional DDPM, cosine schedule, v-prediction",
        factory="evalkit.generators.diffusion.sampling:build",
        samplers=(DPM_SOLVER, DDIM, HEUN, ANCESTRAL),
        takes_guidance=True,
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = ()
