"""A small model of every kind that evalkit builds itself, with seeded random weights.

Each is written in evalkit's own format and read again, as a trained one would be. The two whose buffers must
not be rounded to fp16 (lucidrains' schedule) or whose description is a folder (diffusers) stay in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.core import Generator
from evalkit.generators.autoregressive.gated import GatedPixelCNN, GatedPixelCNNConfig
from evalkit.generators.autoregressive.masked import PixelCNN, PixelCNNConfig
from evalkit.generators.autoregressive.plus import PixelCNNPlus, PixelCNNPlusConfig
from evalkit.generators.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from evalkit.generators.diffusion.community.pesser import DDIMConfig, DDIMUNet
from evalkit.generators.diffusion.community.pytorch_ddpm import (
    PytorchDDPMConfig,
    PytorchDDPMUNet,
    time_table,
)
from evalkit.generators.diffusion.edm.configuration import EDMConfig
from evalkit.generators.diffusion.edm.network import EDMNetwork
from evalkit.generators.diffusion.hub.unet import DiffusersUNet, DiffusersUNetConfig
from evalkit.generators.diffusion.lucidrains.network import LucidrainsConfig, LucidrainsDiffusion
from evalkit.generators.diffusion.openai.unet import OpenAIConfig, OpenAIUNet
from evalkit.generators.diffusion.schedules import SCHEDULES
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.generators.gan.biggan.network import BigGANConfig, BigGANGenerator
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.gan.convolutional.attentive import AttentiveConfig, AttentiveGenerator
from evalkit.generators.gan.convolutional.dcgan import DCGANConfig, DCGANGenerator
from evalkit.generators.gan.convolutional.dense import DenseConfig, DenseGenerator
from evalkit.generators.gan.convolutional.lsgan import LSGANConfig, LSGANGenerator
from evalkit.generators.gan.convolutional.residual import ResidualConfig, ResidualGenerator
from evalkit.generators.gan.progressive.network import ProgressiveConfig, ProgressiveGenerator
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.gan.stylegan2.network import StyleGAN2Generator
from evalkit.generators.gan.stylegan3.facts import DEFAULTS
from evalkit.generators.gan.stylegan3.network import StyleGAN3Config, StyleGAN3Generator
from evalkit.generators.loading import build_generator
from evalkit.generators.sampling import SamplingOptions
from evalkit.generators.vae.conditional import CVAE, CVAEConfig
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.generators.vae.deep import VDVAE, VDVAEConfig
from evalkit.generators.vae.quantised import VQVAE, VQVAEConfig
from tests.generators.gan.style_weights import TINY_STYLEGAN2, style_weights

CLASSES = 3


@dataclass(frozen=True)
class TinyModel:
    """A network of a small configuration; ``steps`` of its sampler where it has steps."""

    network: Callable[..., nn.Module]
    config: object
    steps: int | None = None
    in_memory: bool = False


def tiny_generator(name: str, folder: Path, *, variant: int = 0, config: object = None) -> Generator:
    """Build the registered model ``name`` at a tiny size; another ``variant`` has other weights."""
    model = TINY[name] if config is None else replace(TINY[name], config=config)
    options = SamplingOptions(steps=model.steps)
    built = build_generator(name, tiny_checkpoint(name, model, folder, variant=variant), options)
    assert isinstance(built, Generator)
    return built


def tiny_checkpoint(name: str, model: TinyModel, folder: Path, *, variant: int) -> Checkpoint:
    """Return its checkpoint, by way of a file in ``folder`` unless that cannot hold it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.network(model.config)
    held = network.unet if isinstance(network, DiffusersUNet) else network
    tensors = {
        key: _weight(key, tensor, family=name, variant=variant) for key, tensor in held.state_dict().items()
    }
    config = json.loads(json.dumps(dataclasses.asdict(model.config)))  # type: ignore[call-overload]
    if model.in_memory:
        digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors.values())).hexdigest()
        return Checkpoint(tensors=tensors, sha256=digest, format="evalkit", architecture=name, config=config)
    path = folder / f"{name}-{variant}.safetensors"
    save_checkpoint(path, tensors, architecture=name, config=config, training={})
    return read_checkpoint(path)


def _weight(key: str, tensor: Tensor, *, family: str, variant: int) -> Tensor:
    if family in {"stylegan2", "stylegan3"}:
        made = style_weights({key: tuple(tensor.shape)})[key]
        return made * (1.0 + 0.25 * variant) if key.endswith("weight") else made
    if family == "lucidrains" and key in {"betas", "loss_weight"}:
        return _schedule(len(tensor))[key]
    if not tensor.is_floating_point() or key.endswith(_KEPT):
        return tensor.clone()
    return _random(key, tensor, family=family, variant=variant)


def _random(key: str, tensor: Tensor, *, family: str, variant: int) -> Tensor:
    rng = torch.Generator().manual_seed(zlib.crc32(f"{key} {variant}".encode()))
    drawn = torch.randn(tensor.shape, generator=rng)
    if key.endswith(("running_var", "stored_var")):
        return drawn.abs() + 0.5
    if key.endswith(("_u", "u0")):
        return drawn / drawn.norm()
    if key.endswith("weight_g"):
        return tensor + 0.5 * drawn.abs()
    if tensor.ndim > 1:
        scale = 150.0 if family == "stylegan" and key.startswith("mapping.") else 1.5
        scale = 0.3 if family == "vdvae" else scale  # its deviations are exponentials
        return drawn * (scale / tensor[0].numel() ** 0.5)
    return drawn * 0.3 + (1.0 if key.endswith(("weight", "gain", "gamma")) else 0.0)


_KEPT = ("resample_filter", "freqs", ".u", "timembedding.0.weight", "codebook.counts")
"""Buffers that are facts and no weights."""


def _schedule(steps: int) -> Mapping[str, Tensor]:
    betas = SCHEDULES["sigmoid"](steps)
    kept = torch.from_numpy(np.cumprod(1 - betas)).float()
    return {"betas": torch.from_numpy(betas).float(), "loss_weight": kept}  # v, without clipping


def _pytorch_ddpm(config: PytorchDDPMConfig) -> nn.Module:
    network = PytorchDDPMUNet(config)
    network.get_submodule("time_embedding.timembedding.0").weight.data.copy_(time_table(config.T, config.ch))  # type: ignore[operator, union-attr]
    return network


_RESIDUAL = ResidualConfig(
    latent_dim=12, num_classes=CLASSES, channels=(16, 8, 8), upsampling="nearest", attention=0,
    bottom_width=4, spectral_norm=False,
)  # fmt: skip
_BIGGAN = BigGANConfig(
    latent_dim=12, num_classes=CLASSES, channels=(16, 8, 8), attention=(True, False), bottom_width=4,
    shared_dim=6, hierarchical=True, spectral_norm=True, norm_eps=1e-5,
)  # fmt: skip
_DENSE = DenseConfig(
    latent_dim=12, num_classes=CLASSES, label_dim=4, widths=(16, 24), image_channels=3, resolution=8,
    batch_norm=True, norm_eps=0.8, leak=0.2, bounded=True,
)  # fmt: skip
_STYLEGAN = StyleGANConfig(latent_dim=8, style_dim=8, mapping_layers=2, num_classes=CLASSES, channels=(8, 8))
_STYLEGAN3 = StyleGAN3Config(
    z_dim=16, c_dim=CLASSES, w_dim=24, embed_dim=24, mapping_widths=(24, 24), tracked_centre=True,
    resolution=16, channels=(16, 16, 8, 3), kernel=3, radial=False, **(dict(DEFAULTS) | {"margin_size": 2}),
)  # fmt: skip
_VQVAE = VQVAEConfig(
    resolution=16, codes=16, code_dim=4, width=8, residual_width=4, residual_layers=1, num_classes=CLASSES,
    prior_features=8, prior_layers=2, prior_reach=1, prior_head=8,
)  # fmt: skip
_GATED = GatedPixelCNNConfig(
    resolution=4, features=8, layers=2, reach=1, head=8, num_classes=CLASSES,
)  # fmt: skip
_OPENAI = OpenAIConfig(
    num_channels=32, levels=(32, 32), num_res_blocks=1, attention_levels=(False, True),
    use_scale_shift_norm=True, resblock_updown=False, class_cond=True, num_classes=CLASSES, learn_sigma=True,
    image_size=8, diffusion_steps=1000, noise_schedule="linear", num_heads=4, use_new_attention_order=False,
)  # fmt: skip
_EDM = EDMConfig(
    preconditioning="EDMPrecond", network="SongUNet", resolution=8, num_classes=CLASSES, augmentations=9,
    embedding="positional", noise_width=8, embedding_width=32, stem=8, channels=(8, 16), blocks=1,
    attention=(4,), encoder="standard", decoder="standard", filter_size=2, out_channels=3, known_sigmas=0,
)  # fmt: skip
_DIFFUSERS = DiffusersUNetConfig(
    architecture=json.dumps(
        {
            "sample_size": 8,
            "layers_per_block": 1,
            "block_out_channels": [8, 16],
            "norm_num_groups": 4,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": 8,
            "num_class_embeds": CLASSES,
        }
    ),
    timesteps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02, prediction="epsilon",
)  # fmt: skip

TINY: Mapping[str, TinyModel] = {
    "cgan": TinyModel(CGANGenerator, CGANConfig(latent_dim=8, num_classes=CLASSES, channels=(8, 8))),
    "stylegan": TinyModel(StyleGANGenerator, _STYLEGAN),
    "mlp-gan": TinyModel(DenseGenerator, _DENSE),
    "dcgan": TinyModel(
        DCGANGenerator,
        DCGANConfig(latent_dim=8, channels=(8, 8), image_channels=3, extra_layers=1, batch_norm=True),
    ),
    "lsgan": TinyModel(
        LSGANGenerator,
        LSGANConfig(
            latent_dim=8, channels=(8, 8), bottom_width=4, image_channels=1, first_norm=True, norm_eps=0.8,
            leak=0.2,
        ),
    ),
    "sngan": TinyModel(ResidualGenerator, _RESIDUAL),
    "sagan": TinyModel(ResidualGenerator, replace(_RESIDUAL, attention=8, spectral_norm=True)),
    "sagan-64": TinyModel(AttentiveGenerator, AttentiveConfig(latent_dim=8, channels=(8, 8, 8, 8))),
    "biggan": TinyModel(BigGANGenerator, _BIGGAN),
    "progan": TinyModel(
        ProgressiveGenerator,
        ProgressiveConfig(
            latent_dim=8, channels=(8, 8), image_channels=3, equalised=True, pixel_norm=True, leak=0.2,
            bounded=False,
        ),
    ),
    "stylegan2": TinyModel(StyleGAN2Generator, replace(TINY_STYLEGAN2, c_dim=CLASSES, embed_dim=24)),
    "stylegan3": TinyModel(StyleGAN3Generator, _STYLEGAN3),
    "vae": TinyModel(ConvVAE, VAEConfig(latent_dim=8, width=8, resolution=16)),
    "vq-vae": TinyModel(VQVAE, _VQVAE),
    "cvae": TinyModel(
        CVAE, CVAEConfig(resolution=8, channels=1, latent_dim=4, hidden=(16, 12), num_classes=CLASSES)
    ),
    "vdvae": TinyModel(
        VDVAE,
        VDVAEConfig(
            width=8, zdim=3, num_mixtures=2, enc_blocks="8x1,8d2,4x1,4d4,1x1", dec_blocks="1x1,4m1,8m4,8x1",
            bottleneck_multiple=0.5, image_size=8, no_bias_above=4, pixel_mean=120.0, pixel_deviation=60.0,
        ),
    ),
    "gated-pixelcnn": TinyModel(GatedPixelCNN, _GATED),
    "pixelcnn": TinyModel(PixelCNN, PixelCNNConfig(features=6, blocks=1, head=6, resolution=4)),
    "pixelcnn++": TinyModel(PixelCNNPlus, PixelCNNPlusConfig(blocks=1, width=4, mixtures=2, resolution=4)),
    "ddpm": TinyModel(
        DenoisingUNet,
        DDPMConfig(
            resolution=8, channels=(16, 16), groups=4, head_dim=8, num_classes=CLASSES, train_timesteps=40
        ),
        steps=2,
    ),
    "improved-diffusion": TinyModel(OpenAIUNet, _OPENAI, steps=2),
    "guided-diffusion": TinyModel(
        OpenAIUNet, replace(_OPENAI, resblock_updown=True, use_new_attention_order=True), steps=2
    ),
    "pytorch-ddpm": TinyModel(
        _pytorch_ddpm,
        PytorchDDPMConfig(
            ch=32, levels=(32, 32), num_res_blocks=1, attention_levels=(False, True), T=40, img_size=8,
            beta_1=1e-4, beta_T=0.02, mean_type="epsilon", var_type="fixedlarge",
        ),
        steps=2,
    ),
    "ddim-pesser": TinyModel(
        DDIMUNet,
        DDIMConfig(
            ch=32, levels=(32, 32), num_res_blocks=1, attention_levels=(False, True), image_size=8,
            var_type="fixedlarge", beta_schedule="linear", beta_start=1e-4, beta_end=0.02,
            num_diffusion_timesteps=1000,
        ),
        steps=2,
    ),
    "lucidrains": TinyModel(
        LucidrainsDiffusion,
        LucidrainsConfig(
            resolution=8, theta=10000, auto_normalize=True, objective="v", timesteps=20, embedding=8,
            time_width=32, channels=(8, 8, 16), attention=("linear", "full"), heads=(2, 2, 2),
            head_widths=(4, 4, 4), memories=4, out_channels=3,
        ),
        steps=2,
        in_memory=True,
    ),
    "edm": TinyModel(EDMNetwork, _EDM, steps=2),
    "diffusers-unet": TinyModel(DiffusersUNet, _DIFFUSERS, steps=2, in_memory=True),
}  # fmt: skip
"""One for each registered model that is built natively and samples by itself."""

UNCONDITIONAL: Mapping[str, object] = {
    "stylegan": replace(_STYLEGAN, num_classes=0),
    "mlp-gan": replace(_DENSE, num_classes=0, label_dim=0),
    "sngan": replace(_RESIDUAL, num_classes=0),
    "biggan": replace(_BIGGAN, num_classes=0, shared_dim=0, hierarchical=False),
    "stylegan2": TINY_STYLEGAN2,
    "stylegan3": replace(_STYLEGAN3, c_dim=0, embed_dim=0),
    "vq-vae": replace(_VQVAE, num_classes=0),
    "gated-pixelcnn": replace(_GATED, num_classes=0),
    "improved-diffusion": replace(_OPENAI, class_cond=False, num_classes=0),
    "edm": replace(_EDM, num_classes=0),
}
"""The same without classes, where a model may have none."""
