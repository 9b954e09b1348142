"""Every published file that evalkit can use: where it is, its digest and size, and what it is for. No torch.

    path = fetch(published("clip-vit-b-32").asset)

A digest of 64 digits was confirmed by several independent projects that pin the file; a shorter one is the
prefix that the file's publisher put into its name, and the rest is recorded when the file is first used
(see :mod:`evalkit.assets`). None is invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evalkit.assets import Asset, cache_folder, cached, fetch
from evalkit.registry import Registry


@dataclass(frozen=True, slots=True)
class Published:
    """A published file.

    Attributes:
        asset: where it is and how it is checked.
        purpose: what reads it, in a few words.
        licence: under which terms its publisher gives it.
    """

    asset: Asset
    purpose: str
    licence: str


ASSETS: Registry[Published] = Registry("asset")


def published(name: str) -> Published:
    """Return a published file by its name.

    Raises:
        UsageError: there is none of that name.
    """
    return ASSETS[name]


def cached_any(names: tuple[str, ...]) -> Path | None:
    """Return the verified path of the first of ``names`` that the cache holds, else None.

    Raises:
        InvalidInputError: a file of that name is in the cache with other contents.
    """
    return next((path for name in names if (path := cached(ASSETS[name].asset))), None)


def present(names: tuple[str, ...]) -> bool:
    """Whether the cache has a file of any of ``names``; its digest is checked when it is used, not here."""
    return any((cache_folder() / ASSETS[name].asset.filename).exists() for name in names)


def fetch_any(names: tuple[str, ...]) -> Path:
    """Return any of ``names`` that the cache holds, else the first, downloaded.

    Raises:
        OfflineError: none is cached and downloads are not possible.
        InvalidInputError: a cached file or the download has another digest.
    """
    return cached_any(names) or fetch(ASSETS[names[0]].asset)


def _add(
    name: str, url: str, sha256: str, size: int | None, *, title: str, purpose: str, licence: str
) -> None:
    asset = Asset(name=title, url=url, sha256=sha256, filename=url.rpartition("/")[2], size=size)
    ASSETS.register(name)(Published(asset, purpose, licence))


# Both releases serve the same bytes under two names.
_INCEPTION: Final = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_add(
    "inception-v3",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    _INCEPTION,
    95_628_359,
    title="InceptionV3 2015-12-05 (pytorch-fid)",
    purpose="FID, KID, IS, sFID, precision and recall as published",
    licence="Apache-2.0",
)
_add(
    "inception-v3-torch-fidelity",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    _INCEPTION,
    95_628_359,
    title="InceptionV3 2015-12-05 (torch-fidelity)",
    purpose="the same weights as inception-v3, from another mirror",
    licence="Apache-2.0",
)

_OPENAI: Final = "https://openaipublic.azureedge.net/clip/models"
for _name, _file, _digest, _size, _purpose in (
    (
        "clip-vit-b-32",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        353_976_522,
        "CLIP-FID, CLIP score (Hessel et al.), CLIP directional similarity",
    ),
    (
        "clip-vit-b-16",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        None,
        "CLIP score",
    ),
    (
        "clip-vit-l-14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        None,
        "CLIP score (torchmetrics), CLIP directional similarity (InstructPix2Pix)",
    ),
    (
        "clip-vit-l-14-336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        None,
        "CMMD",
    ),
):
    _add(
        _name,
        f"{_OPENAI}/{_digest}/{_file}",
        _digest,
        _size,
        title=f"OpenAI CLIP {_file.removesuffix('.pt')}",
        purpose=_purpose,
        licence="MIT",
    )

_META: Final = "https://dl.fbaipublicfiles.com/dinov2"
_add(
    "dinov2",
    f"{_META}/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    1_217_586_395,
    title="DINOv2 ViT-L/14",
    purpose="FD-DINOv2 and the other metrics on DINOv2 features",
    licence="Apache-2.0",
)
_add(
    "dinov2-s",
    f"{_META}/dinov2_vits14/dinov2_vits14_pretrain.pth",
    "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    88_283_115,
    title="DINOv2 ViT-S/14",
    purpose="a small DINOv2, for quick runs; no published score uses it",
    licence="Apache-2.0",
)

_TORCHVISION: Final = "https://download.pytorch.org/models"
_add(
    "vgg16",
    f"{_TORCHVISION}/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    553_433_881,
    title="VGG16 ImageNet-1k (torchvision)",
    purpose="backbone of LPIPS (vgg) and of the perceptual path length; fc2 features",
    licence="BSD-3-Clause",
)
_add(
    "alexnet",
    f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    244_408_911,
    title="AlexNet ImageNet-1k (torchvision)",
    purpose="backbone of LPIPS (alex)",
    licence="BSD-3-Clause",
)
_add(
    "squeezenet1_1",
    f"{_TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
    "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    4_958_839,
    title="SqueezeNet 1.1 ImageNet-1k (torchvision)",
    purpose="backbone of LPIPS (squeeze)",
    licence="BSD-3-Clause",
)
