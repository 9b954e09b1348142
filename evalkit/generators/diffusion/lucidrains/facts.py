"""Models of the package denoising-diffusion-pytorch, version 2 and later. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="lucidrains",
        family="diffusion",
        title="U-Net of denoising-diffusion-pytorch 2.x; schedule and objective are read off its buffers",
        factory="evalkit.generators.diffusion.lucidrains.sampling:build",
        samplers=(ANCESTRAL, DDIM, DPM_SOLVER, HEUN),
        layouts=("lucidrains-ddpm-2.x",),
        # The package's own defaults for everything that its files do not say but the resolution.
        presets=MappingProxyType(
            {
                f"lucidrains-{resolution}": MappingProxyType(
                    {"resolution": resolution, "theta": 10000, "auto_normalize": True}
                )
                for resolution in (32, 64, 128, 256)
            }
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="lucidrains-ddpm-2.x",
        title="lucidrains/denoising-diffusion-pytorch >= 2.0.0",
        fingerprint=("betas", "loss_weight", "model.init_conv.weight", "model.mid_attn.mem_kv"),
        averaged=("ema",),
        raw=("model",),
        prefixes=("ema_model.",),
    ),
)
