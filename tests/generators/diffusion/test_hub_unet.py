"""diffusers folders of one UNet2DModel: the network is diffusers' own, the walk is its schedulers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.denoiser import NetworkDenoiser
from evalkit.generators.diffusion.hub.unet import build
from evalkit.generators.diffusion.samplers import ancestral, ddim
from evalkit.generators.loading import load_generator
from evalkit.generators.sampling import SamplingOptions
from evalkit.seeding import normal_per_image, per_image_generators
from tests.generators.diffusion.waves import strided

CIFAR = {
    "_class_name": "UNet2DModel",
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "variance_type": "fixed_large",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
SEEDS = np.array([3, 4, 5], dtype=np.int64)


def test_the_public_layout_is_read_to_the_last_tensor_and_sampled() -> None:
    """The names and shapes of google/ddpm-cifar10-32."""
    state = strided("diffusers-ddpm-cifar10-32")
    generator = build(_checkpoint(state, CIFAR), SamplingOptions(sampler="ddim", steps=1))
    images = generator.generate(SEEDS[:1])
    assert images.shape == (1, 3, 32, 32)
    assert images.float().std() > 1
    assert generator.process.variance == "fixed-large"  # type: ignore[attr-defined]


def test_a_saved_folder_loads_by_name_and_by_itself(tmp_path: Path) -> None:
    """Both as a bare network with its scheduler, and as a whole pipeline of one network."""
    pipeline = DDPMPipeline(_unet(), DDPMScheduler(num_train_timesteps=20))
    pipeline.save_pretrained(tmp_path)
    for model in ("diffusers-unet", "auto"):
        generator = load_generator(model, tmp_path, options=SamplingOptions(steps=4))
        assert generator.resolution == 8
        assert generator.generate(SEEDS).shape == (3, 3, 8, 8)


@pytest.mark.parametrize("sampler", [None, "ddim", "dpm-solver++", "heun"])
def test_a_short_training_shortens_the_default_and_refuses_more(sampler: str | None) -> None:
    """What is walked is what the record says; the steps that a user names are never changed."""
    folder = _folder(DDPMScheduler(num_train_timesteps=12))
    generator = build(folder, SamplingOptions(sampler=sampler))
    assert dict(generator.spec.params)["steps"] == 12
    assert generator.generate(SEEDS).shape == (3, 3, 8, 8)
    walked = generator.evaluations_per_image  # type: ignore[attr-defined]
    assert walked == 12 if sampler != "heun" else 1 < walked <= 24
    named = build(folder, SamplingOptions(sampler=sampler, steps=12))
    assert named.spec == generator.spec
    with pytest.raises(UsageError, match="--steps must be at most 12, not 13"):
        build(folder, SamplingOptions(sampler=sampler, steps=13))


def test_ancestral_sampling_is_that_of_the_diffusers_scheduler() -> None:
    """All 8 steps from equal noise, for both fixed variances."""
    for variance in ("fixed_small", "fixed_large"):
        scheduler = DDPMScheduler(num_train_timesteps=8, variance_type=variance, beta_end=0.3)
        generator = build(_folder(scheduler), SamplingOptions(sampler="ancestral", steps=8))
        start, noises = _noise(0), [_noise(1 + k) for k in range(8)]
        x, scheduler_noise = start, iter(noises)
        scheduler.set_timesteps(8)
        network = _unet()
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "diffusers.schedulers.scheduling_ddpm.randn_tensor",
                lambda *_, given=scheduler_noise, **__: next(given),
            )
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
            found = ancestral(
                _denoiser(generator),
                start,
                generator.process.levels(8),  # type: ignore[attr-defined]
                variance=generator.process.variance,  # type: ignore[attr-defined]
                noise=lambda k, noises=noises: noises[k],
            )
        torch.testing.assert_close(found, x, atol=2e-5, rtol=0)


def test_ddim_is_that_of_the_diffusers_pipeline() -> None:
    """Five of 20 steps from the same start, with its "leading" steps."""
    scheduler = DDIMScheduler(num_train_timesteps=20, beta_end=0.3)
    generator = build(_folder(scheduler), SamplingOptions(sampler="ddim", steps=5))
    start = normal_per_image(SEEDS, (3, 8, 8), device=torch.device("cpu"))
    pipeline = DDIMPipeline(_unet(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=3, generator=per_image_generators(SEEDS), num_inference_steps=5, output_type="np"
    ).images
    with torch.inference_mode():
        levels = generator.process.levels(5)  # type: ignore[attr-defined]
        found = ddim(_denoiser(generator), start, levels, eta=0.0, noise=lambda _: start)
    expected = torch.from_numpy(theirs).permute(0, 3, 1, 2) * 2 - 1
    torch.testing.assert_close(found.clamp(-1, 1), expected, atol=2e-5, rtol=0)


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Batches of 1 and 3 agree; four steps are four evaluations."""
    generator = build(_folder(DDPMScheduler(num_train_timesteps=20)), SamplingOptions(steps=4))
    three = generator.generate(SEEDS)
    assert int((generator.generate(SEEDS[1:2]).int() - three[1:2].int()).abs().max()) <= 1
    assert generator.evaluations_per_image == 4  # type: ignore[attr-defined]


def test_names_of_the_attention_before_diffusers_0_17_are_understood() -> None:
    """query, key, value, proj_attn: a pure renaming."""
    modern = _folder(DDPMScheduler(num_train_timesteps=20))
    renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old: dict[str, Tensor] = {}
    for name, tensor in modern.tensors.items():
        for new, before in renamed.items():
            name = name.replace(new, before) if ".attentions." in name else name  # noqa: PLW2901
        old[name] = tensor
    assert old.keys() != modern.tensors.keys()
    options = SamplingOptions(steps=2)
    ancient = Checkpoint(tensors=old, sha256="0" * 64, format="folder", config=modern.config)
    assert torch.equal(build(ancient, options).generate(SEEDS), build(modern, options).generate(SEEDS))


def test_a_conditional_network_takes_labels() -> None:
    """num_class_embeds is the number of classes."""
    checkpoint = _folder(DDPMScheduler(num_train_timesteps=20), num_class_embeds=4)
    generator = build(checkpoint, SamplingOptions(steps=2))
    assert generator.num_classes == 4
    one, two = (generator.generate(SEEDS, labels=np.full(3, label)) for label in (0, 3))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholding": True}, "thresholding"),
        ({"clip_sample_range": 2.0}, "thresholding"),
        ({"steps_offset": 1}, "steps_offset"),
        ({"use_karras_sigmas": True}, "discrete process"),
        ({"prediction_type": "flow"}, "'flow'"),
        ({"variance_type": "odd"}, "'odd'"),
        ({"beta_schedule": "odd"}, "betas cannot be made"),
        ({"trained_betas": "odd"}, "betas cannot be made"),
        ({"rescale_betas_zero_snr": True}, "pure noise"),
    ],
)
def test_schedulers_that_mean_something_else_are_refused(change: dict[str, Any], message: str) -> None:
    """What no sampler here does."""
    state = _unet().state_dict()
    config = {**json.loads(json.dumps(_config())), "scheduler": {**SCHEDULER, **change}}
    checkpoint = Checkpoint(tensors=state, sha256="0" * 64, format="folder", config=config)
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint, SamplingOptions(steps=2))


def test_a_network_that_diffusers_cannot_build_is_refused() -> None:
    """Blocks of unknown names, or not as many as widths."""
    for change in ({"down_block_types": ["Odd", "Odd"]}, {"block_out_channels": [32]}):
        config = {**_config(), **change, "scheduler": SCHEDULER}
        held = Checkpoint(tensors=_unet().state_dict(), sha256="0" * 64, format="folder", config=config)
        with pytest.raises(CheckpointError, match=r"config\.json describes no UNet2DModel") as refused:
            build(held, SamplingOptions(steps=2))
        assert refused.value.hint


def test_half_precision_computes_in_it_and_moves_little() -> None:
    """The walk stays in float32."""
    held = _folder(DDPMScheduler(num_train_timesteps=20))
    exact, half = (build(held, SamplingOptions(steps=3, dtype=d)) for d in ("float32", "bfloat16"))
    assert 0 < (exact.generate(SEEDS).float() - half.generate(SEEDS).float()).abs().mean() < 3


def test_a_folder_without_its_scheduler_must_be_told_the_process() -> None:
    """The missing fields are listed."""
    checkpoint = Checkpoint(tensors=_unet().state_dict(), sha256="0" * 64, format="folder", config=_config())
    with pytest.raises(CheckpointError, match="beta_end, beta_start, prediction, schedule, timesteps"):
        build(checkpoint, SamplingOptions(steps=2))


def _unet(**more: Any) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        **more,
    ).eval()


def _config(**more: Any) -> dict[str, Any]:
    return dict(json.loads(_unet(**more).to_json_string()))


def _folder(scheduler: DDPMScheduler | DDIMScheduler, **more: Any) -> Checkpoint:
    config = {**_config(**more), "scheduler": json.loads(scheduler.to_json_string())}
    return Checkpoint(tensors=_unet(**more).state_dict(), sha256="0" * 64, format="folder", config=config)


def _checkpoint(state: dict[str, Tensor], config: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        tensors=state,
        sha256="0" * 64,
        format="folder",
        layout="diffusers-unet",
        class_name="UNet2DModel",
        config={**config, "scheduler": SCHEDULER},
    )


def _denoiser(generator: Any) -> NetworkDenoiser:
    return NetworkDenoiser(generator.network, generator.process, labels=None, null_labels=None, guidance=1.0)


def _noise(seed: int) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
