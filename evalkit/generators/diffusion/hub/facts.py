"""Models in the folders of the diffusers library. What there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts, SamplerFacts
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN

DIFFUSERS_UNET = "diffusers-unet"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="diffusers-unet",
        family="diffusion",
        # google/ddpm-cifar10-32 is the best-known one. It holds the weights as trained, not their average:
        # the FID of the paper is not to be expected of it.
        title="diffusers folder of one UNet2DModel (google/ddpm-cifar10-32, whose weights are not averaged)",
        factory="evalkit.generators.diffusion.hub.unet:build",
        samplers=(ANCESTRAL, DDIM, DPM_SOLVER, HEUN),
        layouts=(DIFFUSERS_UNET,),
    ),
    GeneratorFacts(
        name="diffusers",
        family="diffusion",
        title="any pipeline of diffusers, from its folder or hub:OWNER/NAME@REVISION",
        factory="evalkit.generators.diffusion.hub.pipeline:open_pipeline",
        samplers=(
            SamplerFacts(
                "pipeline",
                50,
                "the pipeline's own scheduler, with the steps of its signature unless --steps says more",
                takes_eta=True,
            ),
        ),
        takes_guidance=True,
        opens_folders=True,
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=DIFFUSERS_UNET,
        title="diffusers folder: config.json of a UNet2DModel, scheduler_config.json",
        fingerprint=("conv_in.weight", "time_embedding.linear_1.weight"),
        class_names=("UNet2DModel",),
    ),
)
