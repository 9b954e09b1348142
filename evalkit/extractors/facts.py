"""What each extractor offers, without torch: for planning and for ``evalkit list extractors``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from evalkit.errors import UsageError
from evalkit.registry import Registry, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Preset:
    """One published way to prepare images: a named resizer, then ``(x - offset) / divisor``."""

    resizer: str
    offset: float
    divisor: float


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
    """

    name: str
    summary: str
    heads: tuple[tuple[str, int], ...]
    roles: tuple[tuple[str, str], ...]
    presets: tuple[tuple[str, Preset], ...]
    downloads: bool = False

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


FACTS: Registry[ExtractorFacts] = Registry("extractor")

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
)

for _facts in (EFFICIENTNET_LITE0, PIXELS, INCEPTION_V3):
    FACTS.register(_facts.name)(_facts)
