"""Where the published ImageNet weights of AlexNet, VGG16 and SqueezeNet 1.1 are, without torch.

The files are torchvision's. Their names carry the first eight digits of the digest; the other digits and
the sizes are as many independent projects pinned them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from evalkit.assets import Asset

BACKBONE_WEIGHTS: Final[Mapping[str, Asset]] = {
    "alexnet": Asset(
        name="AlexNet ImageNet-1k (torchvision)",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        filename="alexnet-owt-7be5be79.pth",
        size=244_408_911,
    ),
    "vgg16": Asset(
        name="VGG16 ImageNet-1k (torchvision)",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        filename="vgg16-397923af.pth",
        size=553_433_881,
    ),
    "squeezenet1_1": Asset(
        name="SqueezeNet 1.1 ImageNet-1k (torchvision)",
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        filename="squeezenet1_1-b8a52dc0.pth",
        size=4_958_839,
    ),
}
