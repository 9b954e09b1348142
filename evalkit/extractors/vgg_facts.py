"""What the extractor `vgg16` offers, without torch."""

from __future__ import annotations

from evalkit.extractors.facts import ExtractorFacts, Preset

VGG_16 = ExtractorFacts(
    name="vgg16",
    summary="VGG16 on ImageNet-1k at 224x224, torchvision's weights: the open variant of precision/recall's",
    heads=(("fc2", 4096), ("logits", 1000)),
    roles=(("features", "fc2"), ("logits", "logits")),
    # Pixels to 0..1; then the mean and standard deviation of ImageNet, channel by channel.
    presets=(
        ("default", Preset("torch-bicubic-aa", 0.0, 255.0)),
        ("bilinear", Preset("torch-bilinear", 0.0, 255.0)),
    ),
    downloads=True,
)
