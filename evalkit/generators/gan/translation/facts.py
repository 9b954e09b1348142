"""Image-to-image generators: Pix2Pix and CycleGAN. What there is, without torch."""

from __future__ import annotations

from evalkit.generators.description import GeneratorFacts, LayoutFacts, SamplerFacts

TRANSLATE = SamplerFacts("translate", None, "one pass from image to image")

UNET = "junyanz-unet"
RESNET = "junyanz-resnet"

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="pix2pix",
        family="gan",
        title="Pix2Pix: U-Net from image to image, trained on pairs",
        factory="evalkit.generators.gan.translation.sampling:build_pix2pix",
        samplers=(TRANSLATE,),
        layouts=(UNET,),
    ),
    GeneratorFacts(
        name="cyclegan",
        family="gan",
        title="CycleGAN: residual network from image to image, trained without pairs",
        factory="evalkit.generators.gan.translation.sampling:build_cyclegan",
        samplers=(TRANSLATE,),
        layouts=(RESNET,),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name=UNET,
        title="U-Net of junyanz/pytorch-CycleGAN-and-pix2pix",
        fingerprint=("model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.weight"),
        prefixes=("module.",),
    ),
    LayoutFacts(
        name=RESNET,
        title="residual generator of junyanz/pytorch-CycleGAN-and-pix2pix",
        fingerprint=("model.1.weight", "model.4.weight", "model.7.weight", "model.10.conv_block.1.weight"),
        prefixes=("module.",),
    ),
)
