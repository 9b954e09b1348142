"""BigGAN and what shares its generator. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts

FACTS: tuple[GeneratorFacts, ...] = (
    # BigGAN-PyTorch samples with batch norm in training mode unless it is started with --G_eval_mode: an
    # image then depends on its batch. evalkit always uses the stored statistics, as --G_eval_mode does.
    GeneratorFacts(
        name="biggan",
        family="gan",
        title="BigGAN, batch norm from the stored statistics (BigGAN-PyTorch's --G_eval_mode)",
        factory="evalkit.generators.gan.biggan.sampling:build",
        samplers=(FORWARD,),
        takes_truncation=True,
        layouts=("biggan-pytorch",),
        presets=MappingProxyType(
            {
                "biggan-pytorch": MappingProxyType({"norm_eps": 1e-5}),
            }
        ),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="biggan-pytorch",
        title="BigGAN-PyTorch: BigGAN, UNet-GAN, ADC-GAN, LOGAN (G_ema*.pth)",
        fingerprint=(
            "linear.weight",
            "blocks.0.0.conv1.weight",
            "blocks.0.0.bn1.stored_mean",
            "output_layer.2.weight",
        ),
        prefixes=("module.",),
    ),
)
