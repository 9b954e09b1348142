"""The networks of Karras et al. 2022 (EDM). What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts, Published
from evalkit.generators.diffusion.sampler_facts import DDIM, DPM_SOLVER, HEUN

NVIDIA_EDM = "nvidia-edm"

_TABLE = "Karras et al. 2022, table 2, deterministic sampling; lowest of three sets of samples"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="edm",
        family="diffusion",
        title="DDPM++, NCSN++ or ADM under the preconditioning EDM, VP, VE or iDDPM",
        factory="evalkit.generators.diffusion.edm.sampling:build",
        samplers=(HEUN, DDIM, DPM_SOLVER),
        takes_guidance=True,
        layouts=(NVIDIA_EDM,),
        # A pickle states its class; a state dict taken out of it does not.
        presets=MappingProxyType(
            {
                "edm": MappingProxyType({"preconditioning": "EDMPrecond"}),
                "edm-baseline-vp": MappingProxyType({"preconditioning": "VPPrecond"}),
                "edm-baseline-ve": MappingProxyType({"preconditioning": "VEPrecond"}),
                "edm-baseline-iddpm": MappingProxyType({"preconditioning": "iDDPMPrecond"}),
            }
        ),
        published=(
            Published("EDM", "edm-cifar10-32x32-cond-vp, 35 evaluations", "FID 1.79", 50_000, _TABLE),
            Published("EDM", "edm-cifar10-32x32-cond-ve, 35 evaluations", "FID 1.79", 50_000, _TABLE),
            Published("EDM", "edm-cifar10-32x32-uncond-vp, 35 evaluations", "FID 1.97", 50_000, _TABLE),
            Published("EDM", "edm-cifar10-32x32-uncond-ve, 35 evaluations", "FID 1.98", 50_000, _TABLE),
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=NVIDIA_EDM,
        title="NVlabs/edm: EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond",
        fingerprint=("model.map_layer0.weight", "model.map_layer1.weight"),
        absent=("betas", "mapping.fc0.weight"),
        averaged=("ema",),
        raw=("net", "model"),
    ),
)
