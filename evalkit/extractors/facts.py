"""What each extractor offers, without torch: for planning and for ``evalkit list extractors``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from evalkit.errors import UsageError
from evalkit.registry import Registry, did_you_mean
from evalkit.spec import Scalar

T = TypeVar("T")

Backend = Literal["auto", "torch", "onnxruntime", "compiled"]
"""What runs a network; see :mod:`evalkit.extractors.engine`."""

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Preset:
    """One published way to prepare images: a named resizer, then ``((x - offset) / divisor - mean) / std``.

    ``mean`` and ``std`` are per channel (red, green, blue); their defaults change nothing.
    """

    resizer: str
    offset: float
    divisor: float
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)

    @property
    def scaling(self) -> dict[str, Scalar]:
        """Everything but the resizer, as parameters of an extractor's spec."""
        return {
            "offset": self.offset,
            "divisor": self.divisor,
            "mean": " ".join(map(str, self.mean)),
            "std": " ".join(map(str, self.std)),
        }


@dataclass(frozen=True, slots=True)
class ExtractorFacts:
    """What can be known of an extractor before its network is built.

    Attributes:
        name: registered name.
        summary: one sentence for lists.
        heads: ``(head name, feature dimensions)`` pairs, shallowest first.
        roles: ``(role, head name)`` pairs: which head a metric that asks for ``features``, ``logits`` or
            ``spatial`` gets by default.
        presets: ``(preset name, preset)`` pairs; the first is the default.
        downloads: whether its weights are fetched at first use (and not shipped by a dependency).
        assets: names in :mod:`evalkit.asset_catalogue` of its published weights, any one of which will do;
            none where it needs ``--weights``, or nothing.
        encodes_text: whether it also maps prompts to features that compare with its ``image`` head.
    """

    name: str
    summary: str
    heads: tuple[tuple[str, int], ...]
    roles: tuple[tuple[str, str], ...]
    presets: tuple[tuple[str, Preset], ...]
    downloads: bool = False
    assets: tuple[str, ...] = ()
    encodes_text: bool = False

    def dimensions(self, head: str) -> int:
        """Return the number of feature dimensions of ``head``.

        Raises:
            UsageError: there is no such head.
        """
        return self._find(self.heads, "head", head)

    def head_for(self, role: str) -> str:
        """Return the head that plays ``role``.

        Raises:
            UsageError: none does.
        """
        return self._find(self.roles, "role", role)

    def preset(self, name: str | None) -> tuple[str, Preset]:
        """Return ``(name, preset)``; None asks for the default.

        Raises:
            UsageError: there is no such preset.
        """
        wanted = self.presets[0][0] if name is None else name
        return wanted, self._find(self.presets, "preset", wanted)

    def _find(self, pairs: tuple[tuple[str, T], ...], what: str, name: str) -> T:
        table = dict(pairs)
        if name not in table:
            raise UsageError(
                f"extractor {self.name!r} has no {what} {name!r}", hint=did_you_mean(name, table)
            )
        return table[name]


EFFICIENTNET_LITE0 = ExtractorFacts(
    name="efficientnet-lite0",
    summary="EfficientNet-Lite0 on ImageNet-1k at 224x224; weights ship with a dependency, no download",
    heads=(("block", 320), ("pooled", 1280), ("logits", 1000)),
    roles=(("features", "pooled"), ("logits", "logits")),
    # Mean 127 and divisor 128 are the constants of the TPU EfficientNet-Lite release.
    presets=(("default", Preset("torch-bicubic-aa", 127.0, 128.0)),),
)

PIXELS = ExtractorFacts(
    name="pixels",
    summary="Area-averaged pixels and a fixed random projection: no network; for tests and quick runs",
    heads=(("thumbnail", 48), ("pixels", 192), ("logits", 10)),
    roles=(("features", "pixels"), ("logits", "logits")),
    presets=(("default", Preset("area", 0.0, 255.0)),),
)

INCEPTION_V3 = ExtractorFacts(
    name="inception-v3",
    summary="The 2015 TensorFlow InceptionV3 that FID, KID, IS and sFID were published with",
    heads=(
        ("64", 64),
        ("192", 192),
        ("spatial", 2023),
        ("768", 768),
        ("2048", 2048),
        ("logits_unbiased", 1008),
        ("logits", 1008),
    ),
    roles=(("features", "2048"), ("logits", "logits_unbiased"), ("spatial", "spatial")),
    presets=(
        ("fid", Preset("tf1-bilinear", 128.0, 128.0)),
        ("adm", Preset("tf1-bilinear", 128.0, 128.0)),
        # 2x/255 - 1 = (x - 127.5) / 127.5
        ("pytorch-fid", Preset("torch-bilinear", 127.5, 127.5)),
        ("clean-fid", Preset("pil-bicubic-float", 128.0, 128.0)),
    ),
    downloads=True,
    assets=("inception-v3", "inception-v3-torch-fidelity"),
)

VGG_16 = ExtractorFacts(
    name="vgg16",
    summary="VGG16 on ImageNet-1k at 224x224, torchvision's weights: the open variant of precision/recall's",
    heads=(("fc2", 4096), ("logits", 1000)),
    roles=(("features", "fc2"), ("logits", "logits")),
    # Pixels to 0..1; the network then normalises by the mean and deviation of ImageNet.
    presets=(
        ("default", Preset("torch-bicubic-aa", 0.0, 255.0)),
        ("bilinear", Preset("torch-bilinear", 0.0, 255.0)),
    ),
    downloads=True,
    assets=("vgg16",),
)

# The constants of the published CLIP and ImageNet preprocessing, on the scale 0..1.
_CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


def clip_presets(mean: Channels = _CLIP_MEAN, std: Channels = _CLIP_STD) -> tuple[tuple[str, Preset], ...]:
    """Return the ways in which published tools prepare images for CLIP; they differ on oblong images only."""
    return (
        ("openai", Preset("pil-bicubic-uint8-crop", 0.0, 255.0, mean, std)),
        ("cmmd", Preset("crop-pil-bicubic-uint8", 0.0, 255.0, mean, std)),
        ("torch", Preset("torch-bicubic-aa-crop", 0.0, 255.0, mean, std)),
    )


def _clip(name: str, network: str, dimensions: int, *, preset: str) -> ExtractorFacts:
    first = dict(clip_presets())[preset]
    return ExtractorFacts(
        name=name,
        summary=f"OpenAI's CLIP {network}: projected image embedding, not normalised; encodes prompts too",
        heads=(("image", dimensions),),
        roles=(("features", "image"),),
        presets=((preset, first), *(pair for pair in clip_presets() if pair[0] != preset)),
        downloads=True,
        assets=(name,),
        encodes_text=True,
    )


def _dinov2(name: str, network: str, dimensions: int) -> ExtractorFacts:
    return ExtractorFacts(
        name=name,
        summary=f"DINOv2 {network} at 224x224: class token after the last norm",
        heads=(("cls", dimensions),),
        roles=(("features", "cls"),),
        presets=(
            ("dgm", Preset("pil-bicubic-uint8", 0.0, 255.0, IMAGENET_MEAN, IMAGENET_STD)),
            ("edm2", Preset("torch-bicubic-aa", 0.0, 255.0, IMAGENET_MEAN, IMAGENET_STD)),
        ),
        downloads=True,
        assets=(name,),
    )


CLIP_VIT_B_32 = _clip("clip-vit-b-32", "ViT-B/32", 512, preset="openai")
CLIP_VIT_B_16 = _clip("clip-vit-b-16", "ViT-B/16", 512, preset="openai")
CLIP_VIT_L_14 = _clip("clip-vit-l-14", "ViT-L/14", 768, preset="openai")
CLIP_VIT_L_14_336 = _clip("clip-vit-l-14-336", "ViT-L/14 at 336 pixels", 768, preset="cmmd")
DINOV2 = _dinov2("dinov2", "ViT-L/14", 1024)
DINOV2_S = _dinov2("dinov2-s", "ViT-S/14", 384)

OPEN_CLIP_PREFIX = "open-clip:"


class _Facts(Registry[ExtractorFacts]):
    """The registry, which also knows every ``open-clip:ARCH[:TAG]`` without listing them."""

    def __getitem__(self, name: str) -> ExtractorFacts:
        if not name.startswith(OPEN_CLIP_PREFIX):
            return super().__getitem__(name)
        from evalkit.extractors.open_clip_names import open_clip_facts  # noqa: PLC0415 - heavy import

        return open_clip_facts(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(OPEN_CLIP_PREFIX))


FACTS: Registry[ExtractorFacts] = _Facts("extractor")

for _facts in (
    EFFICIENTNET_LITE0,
    PIXELS,
    INCEPTION_V3,
    VGG_16,
    CLIP_VIT_B_32,
    CLIP_VIT_B_16,
    CLIP_VIT_L_14,
    CLIP_VIT_L_14_336,
    DINOV2,
    DINOV2_S,
):
    FACTS.register(_facts.name)(_facts)
