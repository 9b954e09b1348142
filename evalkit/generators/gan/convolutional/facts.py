"""Generators of plain, spectrally normalised and self-attentive GANs. What there is, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts, Published

_FOLDER = "evalkit.generators.gan.convolutional"
_MIMICRY = "torch-mimicry model zoo (Lee & Town 2020)"


def _mimicry(system: str, data: str, score: str) -> Published:
    return Published(system, f"torch-mimicry {data}", score, 50_000, _MIMICRY)


def _presets(**fields: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    return MappingProxyType(
        {name.replace("_", "-"): MappingProxyType(dict(known)) for name, known in fields.items()}
    )


FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="mlp-gan",
        family="gan",
        title="GAN and conditional GAN as multi-layer perceptrons",
        factory=f"{_FOLDER}.dense:build",
        samplers=(FORWARD,),
        layouts=("pytorch-gan-mlp", "wgan-mlp"),
        presets=_presets(
            pytorch_gan_mlp={"norm_eps": 0.8, "leak": 0.2, "bounded": True},
            wgan_mlp={"norm_eps": 1e-5, "leak": 0.0, "bounded": False},
        ),
    ),
    GeneratorFacts(
        name="dcgan",
        family="gan",
        title="transposed convolutions from z to the image",
        factory=f"{_FOLDER}.dcgan:build",
        samplers=(FORWARD,),
        layouts=("pytorch-examples-dcgan", "wgan-dcgan", "wgan-dcgan-dots"),
    ),
    GeneratorFacts(
        name="lsgan",
        family="gan",
        title="repeated pixels and convolutions, as PyTorch-GAN has LSGAN and DCGAN",
        factory=f"{_FOLDER}.lsgan:build",
        samplers=(FORWARD,),
        layouts=("pytorch-gan-conv", "pytorch-gan-conv-model"),
        presets=_presets(pytorch_gan_conv={"norm_eps": 0.8, "leak": 0.2}),
    ),
    GeneratorFacts(
        name="sngan",
        family="gan",
        title="residual generator of SNGAN, cGAN-PD and WGAN-GP; conditional batch norm where it has classes",
        factory=f"{_FOLDER}.residual_sampling:build",
        samplers=(FORWARD,),
        layouts=("mimicry-resnet",),
        presets=_presets(mimicry={"upsampling": "bilinear"}, nearest={"upsampling": "nearest"}),
        published=(
            _mimicry("WGAN-GP", "CIFAR-10 32", "FID 22.29, IS 7.33"),
            _mimicry("SNGAN", "CIFAR-10 32", "FID 16.77, IS 7.97"),
            _mimicry("cGAN-PD", "CIFAR-10 32", "FID 10.84, IS 8.25"),
            _mimicry("SNGAN", "CelebA 64", "FID 5.71, IS 2.68"),
        ),
    ),
    GeneratorFacts(
        name="sagan",
        family="gan",
        title="residual generator with spectral norm and self-attention",
        factory=f"{_FOLDER}.residual_sampling:build_attentive",
        samplers=(FORWARD,),
        layouts=("mimicry-sagan",),
        presets=_presets(
            mimicry_sagan_32={"upsampling": "bilinear", "attention": 16},
            mimicry_sagan_128={"upsampling": "bilinear", "attention": 32},
        ),
    ),
    GeneratorFacts(
        name="sagan-64",
        family="gan",
        title="transposed convolutions with spectral norm, self-attention at 16 and 32 pixels",
        factory=f"{_FOLDER}.attentive:build",
        samplers=(FORWARD,),
        layouts=("heykeetae-sagan",),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="pytorch-gan-mlp",
        title="PyTorch-GAN gan.py and cgan.py: a perceptron with batch norm",
        fingerprint=("model.0.weight", "model.2.weight", "model.3.running_mean", "model.5.weight"),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="wgan-mlp",
        title="WassersteinGAN mlp.py: a perceptron without batch norm",
        fingerprint=("main.0.bias", "main.2.bias", "main.4.bias", "main.6.bias"),
        absent=("main.1.weight", "main.8.weight"),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="pytorch-examples-dcgan",
        title="PyTorch examples DCGAN, and what follows it (netG_epoch_*.pth)",
        fingerprint=("main.0.weight", "main.1.running_mean", "main.3.weight", "main.6.weight"),
        absent=("main.0.bias",),
        prefixes=("module.",),
    ),
    # The names hold the widths: 64 at the end is the default, whatever the size of z and of the image.
    LayoutFacts(
        name="wgan-dcgan",
        title="WassersteinGAN dcgan.py: main.initial:100-512:convt.weight ... main.final:64-3:convt.weight",
        fingerprint=("main.final:64-3:convt.weight",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="wgan-dcgan-dots",
        title="WassersteinGAN dcgan.py of an older version: dots for the colons",
        fingerprint=("main.final.64-3.convt.weight",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="pytorch-gan-conv",
        title="PyTorch-GAN lsgan.py and dcgan.py",
        fingerprint=("l1.0.weight", "conv_blocks.2.weight"),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="pytorch-gan-conv-model",
        title="PyTorch-GAN lsgan.py of an older version",
        fingerprint=("l1.0.weight", "conv_model.2.weight"),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="mimicry-resnet",
        title="torch-mimicry: SNGAN, cGAN-PD, WGAN-GP, SSGAN, InfoMax-GAN",
        fingerprint=("l1.weight", "block2.c1.weight", "block4.c_sc.weight"),
        raw=("model_state_dict",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="mimicry-sagan",
        title="torch-mimicry: SAGAN",
        fingerprint=("l1.weight_orig", "block2.c1.weight_orig", "attn_block.gamma"),
        raw=("model_state_dict",),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name="heykeetae-sagan",
        title="heykeetae/Self-Attention-GAN at 64 pixels (*_G.pth)",
        fingerprint=("l1.0.module.weight_bar", "l4.0.module.weight_bar", "attn1.query_conv.weight"),
        prefixes=("module.",),
    ),
)
