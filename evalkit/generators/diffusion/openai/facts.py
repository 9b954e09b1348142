"""The U-Nets of improved-diffusion and guided-diffusion. What there is, without torch.

Preset values are the flags that the repositories' READMEs give for each checkpoint, or the programs' own
defaults.
"""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts, Published
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN, with_steps

IMPROVED = "improved-diffusion"
GUIDED = "guided-diffusion"
CLASSIFIER = "guided-diffusion-classifier"

_SAMPLERS = (with_steps(ANCESTRAL, 250), DDIM, DPM_SOLVER, HEUN)

_IMPROVED_DEFAULTS: dict[str, object] = {"num_heads": 4, "rescale_timesteps": True}
_COSINE_4000: dict[str, object] = {"diffusion_steps": 4000, "noise_schedule": "cosine"}
_LINEAR_1000: dict[str, object] = {"diffusion_steps": 1000, "noise_schedule": "linear"}
_PLAIN: dict[str, object] = {
    "rescale_timesteps": False,
    "use_new_attention_order": False,
    "num_heads": 4,
    "num_head_channels": -1,
}
_LSUN: dict[str, object] = {**_PLAIN, **_LINEAR_1000, "image_size": 256, "num_head_channels": 64}

_IMPROVED_PRESETS: dict[str, dict[str, object]] = {
    "improved-diffusion-cifar10": {**_IMPROVED_DEFAULTS, **_COSINE_4000, "image_size": 32},
    "improved-diffusion-imagenet64": {**_IMPROVED_DEFAULTS, **_COSINE_4000, "image_size": 64},
    "improved-diffusion-imagenet64-cond": {
        **_COSINE_4000,
        "image_size": 64,
        "num_heads": 4,
        "rescale_timesteps": False,
    },
    "improved-diffusion-lsun-bedroom": {
        **_LINEAR_1000,
        "image_size": 256,
        "num_heads": 1,
        "rescale_timesteps": False,
    },
}

_GUIDED_PRESETS: dict[str, dict[str, object]] = {
    "guided-diffusion-imagenet64": {
        "image_size": 64,
        "diffusion_steps": 1000,
        "noise_schedule": "cosine",
        "rescale_timesteps": False,
        "num_heads": 4,
        "num_head_channels": 64,
        "use_new_attention_order": True,
        "classifier_scale": 1.0,
    },
    "guided-diffusion-imagenet128": {
        **_PLAIN,
        **_LINEAR_1000,
        "image_size": 128,
        "classifier_scale": 0.5,
    },
    "guided-diffusion-imagenet256": {**_LSUN, "classifier_scale": 1.0},
    "guided-diffusion-imagenet256-uncond": {**_LSUN, "classifier_scale": 10.0},
    "guided-diffusion-imagenet512": {**_LSUN, "image_size": 512, "classifier_scale": 4.0},
    "guided-diffusion-lsun": _LSUN,
}

_IDDPM = "Nichol & Dhariwal 2021, table 2 (4000 steps)"
_ADM = "Dhariwal & Nichol 2021, table 5; README of openai/guided-diffusion"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="improved-diffusion",
        family="diffusion",
        title="U-Net of improved DDPM: learned variance, cosine schedule",
        factory="evalkit.generators.diffusion.openai.sampling:build_improved",
        samplers=_SAMPLERS,
        layouts=(IMPROVED,),
        presets=MappingProxyType(_IMPROVED_PRESETS),
        published=(
            Published("Improved DDPM", "CIFAR-10, L_hybrid, cosine, 500K", "FID 3.19", 50_000, _IDDPM),
            Published("Improved DDPM", "CIFAR-10, L_vlb, cosine, 500K", "FID 11.47", 50_000, _IDDPM),
        ),
    ),
    GeneratorFacts(
        name="guided-diffusion",
        family="diffusion",
        title="ADM: U-Net of guided-diffusion, with classifier guidance where a classifier is given",
        factory="evalkit.generators.diffusion.openai.sampling:build_guided",
        samplers=_SAMPLERS,
        takes_guidance=True,
        layouts=(GUIDED, IMPROVED),
        presets=MappingProxyType(_GUIDED_PRESETS),
        published=(
            Published("ADM", "64x64_diffusion.pt", "FID 2.07", 50_000, _ADM),
            Published("ADM-G", "128x128_diffusion.pt + 128x128_classifier.pt", "FID 2.97", 50_000, _ADM),
            Published("ADM-G", "256x256_diffusion.pt + 256x256_classifier.pt", "FID 4.59", 50_000, _ADM),
            Published("ADM-G", "512x512_diffusion.pt + 512x512_classifier.pt", "FID 7.72", 50_000, _ADM),
            Published("ADM", "lsun_bedroom.pt", "FID 1.90", 50_000, _ADM),
            Published("ADM", "lsun_cat.pt", "FID 5.57", 50_000, _ADM),
            Published("ADM", "lsun_horse.pt", "FID 2.57", 50_000, _ADM),
        ),
    ),
)

_BASE = ("time_embed.0.weight", "input_blocks.0.0.weight")
_POSITIONS = range(1, 12)  # an upsampler stands behind at most this many blocks in any U-Net of this kind

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=IMPROVED,
        title="openai/improved-diffusion: convolutions resample (guided-diffusion: resblock_updown False)",
        fingerprint=(*_BASE, "output_blocks.0.0.in_layers.0.weight"),
        # No residual block that upsamples: it would stand behind another one (and attention, if any).
        absent=tuple(f"output_blocks.{i}.{k}.in_layers.0.weight" for i in _POSITIONS for k in (1, 2)),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name=GUIDED,
        title="openai/guided-diffusion: residual blocks resample (resblock_updown True)",
        fingerprint=(*_BASE, "output_blocks.0.0.in_layers.0.weight"),
        absent=tuple(f"input_blocks.{i + 1}.0.op.weight" for i in _POSITIONS),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name=CLASSIFIER,
        title="openai/guided-diffusion: classifier of noisy images (guides a model; not a generator itself)",
        fingerprint=(*_BASE, "out.2.positional_embedding"),
        prefixes=("module.",),
    ),
)
