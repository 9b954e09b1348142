"""Autoregressive models. What there is, without torch."""

from __future__ import annotations

from types import MappingProxyType

from evalkit.generators.description import GeneratorFacts, LayoutFacts, SamplerFacts

RASTER = SamplerFacts("raster", None, "one position after the other, each drawn from its distribution")

FACTS: tuple[GeneratorFacts, ...] = (
    GeneratorFacts(
        name="gated-pixelcnn",
        family="autoregressive",
        title="class-conditional Gated PixelCNN, 256-way softmax for each channel",
        factory="evalkit.generators.autoregressive.sampling:build_gated",
        samplers=(RASTER,),
    ),
    GeneratorFacts(
        name="pixelcnn",
        family="autoregressive",
        title="PixelCNN, masked convolutions, 256-way softmax for each channel",
        factory="evalkit.generators.autoregressive.building:build_masked",
        samplers=(RASTER,),
    ),
    GeneratorFacts(
        name="pixelcnn++",
        family="autoregressive",
        title="PixelCNN++, shifted convolutions, mixture of discretised logistics",
        factory="evalkit.generators.autoregressive.building:build_plus",
        samplers=(RASTER,),
        layouts=("pixelcnn-pp",),
        presets=MappingProxyType({"pixelcnn-pp-cifar10": MappingProxyType({"resolution": 32})}),
    ),
)

LAYOUTS: tuple[LayoutFacts, ...] = (
    LayoutFacts(
        name="pixelcnn-pp",
        title="pclucas14/pixel-cnn-pp",
        fingerprint=("u_init.conv.weight_v", "nin_out.lin_a.weight_v"),
        prefixes=("module.",),
    ),
)
