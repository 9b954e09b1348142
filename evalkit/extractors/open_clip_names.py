"""``open-clip:ARCH[:TAG]``: any network of open_clip with a local weights file.

    build_extractor("open-clip:ViT-B-32:laion2b_s34b_b79k", weights=Path("open_clip_model.safetensors"))

ARCH names the network, TAG the training that open_clip knows it from: how its images are prepared and which
activation it has. Without a tag both are CLIP's own and the architecture's. open_clip pins no digests, so
nothing is downloaded but OpenAI's files, which the asset catalogue knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import open_clip

from evalkit.asset_catalogue import ASSETS
from evalkit.errors import OfflineError, UsageError
from evalkit.extractors.clip import OpenClip
from evalkit.extractors.facts import OPEN_CLIP_PREFIX, ExtractorFacts, Preset, clip_presets
from evalkit.registry import did_you_mean

if TYPE_CHECKING:
    from evalkit.extractors import NetworkOptions

_RESIZERS: Final = {"shortest": "pil-bicubic-uint8-crop", "squash": "pil-bicubic-uint8"}


def open_clip_facts(name: str) -> ExtractorFacts:
    """Return what is known of ``open-clip:ARCH[:TAG]`` before its network is built.

    Raises:
        UsageError: open_clip knows no such architecture or tag, or the tag's preprocessing is not offered.
    """
    architecture, tag = _parts(name)
    config = open_clip.get_model_config(architecture)
    training = _training(architecture, tag)
    # A digest in the address, as OpenAI's have, is in the catalogue.
    url = str(training.get("url", ""))
    assets = tuple(asset for asset in ASSETS if ASSETS[asset].asset.url == url)
    return ExtractorFacts(
        name=name,
        summary=f"{architecture} of open_clip" + (f", trained as {tag}" if tag else ""),
        heads=(("image", int(config["embed_dim"])),),
        roles=(("features", "image"),),
        presets=_presets(training, name),
        downloads=True,
        assets=assets,
        encodes_text=not config["text_cfg"].get("hf_tokenizer_name"),
    )


def build_open_clip(name: str, *, weights: Path | None, **options: Unpack[NetworkOptions]) -> OpenClip:
    """Build ``open-clip:ARCH[:TAG]``.

    Raises:
        UsageError: as :func:`open_clip_facts`, or no such preset or device.
        CheckpointError: the file does not fit the architecture, or holds NaN or infinity.
        OfflineError: no file was given, and none with a known digest can be had.
    """
    facts = open_clip_facts(name)
    architecture, tag = _parts(name)
    training = _training(architecture, tag)
    if weights is None and not facts.assets:
        repository = str(training.get("hf_hub", "")).rstrip("/")
        where = f"https://huggingface.co/{repository}" if repository else training.get("url", "its publisher")
        raise OfflineError(
            f"the weights of {name!r} must be given: no digest of them is published",
            hint=f"get them from {where} and add --weights {name}=FILE",
        )
    quick_gelu = bool(training["quick_gelu"]) if "quick_gelu" in training else None
    return OpenClip(facts, architecture, quick_gelu=quick_gelu, weights=weights, **options)


def _parts(name: str) -> tuple[str, str]:
    architecture, _, tag = name.removeprefix(OPEN_CLIP_PREFIX).partition(":")
    known = open_clip.list_models()
    if architecture not in known:
        raise UsageError(
            f"open_clip has no architecture {architecture!r}", hint=did_you_mean(architecture, known)
        )
    return architecture, tag


def _training(architecture: str, tag: str) -> dict[str, Any]:
    if not tag:
        return {}
    known = open_clip.list_pretrained_tags_by_model(architecture)
    found = open_clip.get_pretrained_cfg(architecture, tag)
    if not found:
        raise UsageError(
            f"open_clip knows no {architecture!r} trained as {tag!r}", hint=did_you_mean(tag, known)
        )
    return dict(found)


def _presets(training: dict[str, Any], name: str) -> tuple[tuple[str, Preset], ...]:
    if not training:
        return clip_presets()
    mode, kernel = training.get("resize_mode") or "shortest", training.get("interpolation") or "bicubic"
    if mode not in _RESIZERS or kernel != "bicubic":
        raise UsageError(f"{name!r} resizes images by {mode!r} with {kernel!r}, which evalkit does not offer")
    default = clip_presets()[0][1]
    mean, std = (
        tuple(float(v) for v in training.get(key) or fallback)
        for key, fallback in (("mean", default.mean), ("std", default.std))
    )
    own = Preset(_RESIZERS[mode], 0.0, 255.0, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    return (("own", own), *clip_presets(own.mean, own.std))
