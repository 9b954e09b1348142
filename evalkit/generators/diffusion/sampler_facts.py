"""The samplers of diffusion models, without torch: shared by every diffusion folder's ``facts``."""

from __future__ import annotations

from dataclasses import replace

from evalkit.generators.description import SamplerFacts

ANCESTRAL = SamplerFacts("ancestral", 1000, "the original stochastic sampler (Ho et al. 2020)")
DDIM = SamplerFacts("ddim", 50, "deterministic at eta 0 (Song et al. 2021)", takes_eta=True)
DPM_SOLVER = SamplerFacts("dpm-solver++", 20, "second-order multistep, deterministic (Lu et al. 2022)")
HEUN = SamplerFacts("heun", 18, "second-order, deterministic, two evaluations a step (Karras et al. 2022)")


def with_steps(sampler: SamplerFacts, default_steps: int) -> SamplerFacts:
    """Return ``sampler`` with another number of steps taken unless told otherwise."""
    return replace(sampler, default_steps=default_steps)
