"""The bundled diffusion models: what there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts, SamplerFacts

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="ddpm",
        family="diffusion",
        title="class-conditional DDPM, cosine schedule, v-prediction",
        factory="evalkit.generators.diffusion.sampling:build",
        samplers=(
            SamplerFacts("dpm-solver++", 20, "second-order multistep, deterministic (Lu et al. 2022)"),
            SamplerFacts("ddim", 50, "deterministic at eta 0 (Song et al. 2021)", takes_eta=True),
            SamplerFacts("ancestral", 1000, "the original stochastic sampler (Ho et al. 2020)"),
        ),
        takes_guidance=True,
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = ()
