"""Diffusion networks of the community: pytorch-ddpm and the DDIM repository. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts, Published
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN, with_steps

PYTORCH_DDPM = "pytorch-ddpm"
DDIM_REPOSITORY = "ddim"

_LINEAR: dict[str, object] = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_diffusion_timesteps": 1000,
}
_LSUN: dict[str, object] = {**_LINEAR, "image_size": 256, "var_type": "fixedsmall"}
_PRESETS: dict[str, dict[str, object]] = {
    "ddim-cifar10": {**_LINEAR, "image_size": 32, "var_type": "fixedlarge"},
    "ddim-celeba": {**_LINEAR, "image_size": 64, "var_type": "fixedlarge"},
    "ddim-lsun-bedroom": _LSUN,
    "ddim-lsun-church": _LSUN,
    "ddim-lsun-cat": _LSUN,
}

_TABLE = "Song et al. 2021 (DDIM), table 1: eta 0"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="pytorch-ddpm",
        family="diffusion",
        title="DDPM of w86763777/pytorch-ddpm",
        factory="evalkit.generators.diffusion.community.sampling:build_pytorch_ddpm",
        samplers=(ANCESTRAL, DDIM, DPM_SOLVER, HEUN),
        layouts=(PYTORCH_DDPM,),
        presets=MappingProxyType(
            {
                "pytorch-ddpm-cifar10": {
                    "img_size": 32,
                    "beta_1": 1e-4,
                    "beta_T": 0.02,
                    "mean_type": "epsilon",
                    "var_type": "fixedlarge",
                }
            }
        ),
        published=(
            Published(
                "DDPM (pytorch-ddpm)", "CIFAR-10", "FID 3.249", 50_000, "README of w86763777/pytorch-ddpm"
            ),
            Published(
                "DDPM (pytorch-ddpm)", "CIFAR-10", "IS 9.475", 50_000, "README of w86763777/pytorch-ddpm"
            ),
        ),
    ),
    GeneratorFacts(
        name="ddim-pesser",
        family="diffusion",
        title="DDPM's own U-Net, as pesser/pytorch_diffusion converted it and ermongroup/ddim trains it",
        factory="evalkit.generators.diffusion.community.sampling:build_ddim",
        samplers=(with_steps(DDIM, 100), ANCESTRAL, DPM_SOLVER, HEUN),
        layouts=(DDIM_REPOSITORY,),
        presets=MappingProxyType(_PRESETS),
        published=(
            Published("DDIM, 100 steps", "ema_cifar10", "FID 4.16", 50_000, _TABLE),
            Published("DDIM, 50 steps", "ema_cifar10", "FID 4.67", 50_000, _TABLE),
            Published("DDIM, 100 steps", "CelebA 64", "FID 6.53", 50_000, _TABLE),
            Published("DDPM", "ema_cifar10", "FID 3.17", 50_000, "Ho et al. 2020, table 1"),
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=PYTORCH_DDPM,
        title="w86763777/pytorch-ddpm",
        fingerprint=("time_embedding.timembedding.0.weight", "head.weight"),
        averaged=("ema_model",),
        raw=("net_model",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name=DDIM_REPOSITORY,
        title="pesser/pytorch_diffusion (bare), ermongroup/ddim (list: model, optimiser, epoch, step, EMA)",
        fingerprint=("temb.dense.0.weight", "conv_in.weight", "down.0.block.0.norm1.weight"),
        averaged=("4",),
        raw=("0",),
        prefixes=("module.",),
    ),
)
