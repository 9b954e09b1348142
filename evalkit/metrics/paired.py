"""Metrics of image pairs: the mean over pairs of PSNR, SSIM, MS-SSIM, LPIPS, perceptual and style distance.

    score = METRICS["lpips"](network="vgg", region="inside").compute(values, None, rng=rng)

The values come from the measures of :mod:`evalkit.perceptual`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evalkit.core import About
from evalkit.metrics import METRICS
from evalkit.metrics.pair_metric import ChannelPairMetric, NetworkPairMetric, PairMetric
from evalkit.spec import Better

_COST = "one mean over n values; the measure itself reads every pixel of both images"


@METRICS.register("psnr")
@dataclass(frozen=True, slots=True)
class PeakSignalToNoise(ChannelPairMetric):
    """Mean PSNR in decibels on the data range 255.

    Attributes:
        channels: ``rgb``, or ``y`` for BT.601 luma.
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "psnr"
    title: ClassVar[str] = "PSNR [dB]"
    better: ClassVar[Better] = "higher"
    unbounded: ClassVar[bool] = True
    about: ClassVar[About] = About(
        meaning="How small the squared pixel error of each image is against its own reference: above 40 dB"
        " the two can hardly be told apart, below 20 dB anyone sees the difference.",
        values="decibels, higher is better; infinite for equal images, which are counted and left out",
        pitfalls="Rewards blur: the mean of all plausible images scores best. A shift by one pixel costs"
        " 10 dB and is invisible. The mean of decibels is not the decibels of the mean error. Papers on"
        " super-resolution report luma only (channels=y), often with a cropped border.",
        cost=_COST,
        source="Huynh-Thu and Ghanbari 2008, eq. 1 and 2",
    )

    channels: str = "rgb"
    region: str | None = None


@METRICS.register("ssim")
@dataclass(frozen=True, slots=True)
class StructuralSimilarity(ChannelPairMetric):
    """Mean SSIM, gaussian window of 11x11 pixels, data range 255.

    Attributes:
        channels: ``rgb``, or ``y`` for BT.601 luma.
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "ssim"
    title: ClassVar[str] = "SSIM"
    better: ClassVar[Better] = "higher"
    about: ClassVar[About] = About(
        meaning="How well local brightness, contrast and structure agree with the reference, in windows of"
        " about 5 pixels: above .95 the images look alike, below .5 structure is lost.",
        values="-1 to 1; 1 for equal images; unrelated photographs score about .1 to .3",
        pitfalls="Depends on window, border, colour handling and data range, which programs set differently:"
        " compare within one. Flat regions dominate. Blind to small shifts of colour, hard on small shifts"
        " of position. Depends on the image's resolution.",
        cost=_COST,
        source="Wang et al. 2004, eq. 13",
    )

    channels: str = "rgb"
    region: str | None = None


@METRICS.register("ms-ssim")
@dataclass(frozen=True, slots=True)
class MultiScaleSimilarity(PairMetric):
    """Mean MS-SSIM over five scales.

    Attributes:
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "ms-ssim"
    title: ClassVar[str] = "MS-SSIM"
    better: ClassVar[Better] = "higher"
    about: ClassVar[About] = About(
        meaning="SSIM at five resolutions in one number; depends less on the viewing distance than SSIM.",
        values="0 to 1; 1 for equal images; good reconstructions lie above .95",
        pitfalls="Needs images of at least 161x161 pixels. Saturates near 1, so that small differences"
        " matter. Structure that is anti-correlated counts as 0. As a measure of diversity between samples"
        " it is another protocol.",
        cost=_COST,
        source="Wang, Simoncelli and Bovik 2003, eq. 7",
    )

    region: str | None = None

    @property
    def measure(self) -> str:
        """``ms-ssim``."""
        return self.name


@METRICS.register("lpips")
@dataclass(frozen=True, slots=True)
class LearnedPerceptualSimilarity(NetworkPairMetric):
    """Mean LPIPS v0.1.

    Attributes:
        network: ``alex`` (papers' default for evaluation), ``vgg`` or ``squeeze``.
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "lpips"
    title: ClassVar[str] = "LPIPS"
    about: ClassVar[About] = About(
        meaning="How different people would find each image from its reference, learned from their judgements"
        " on deep features: below .05 hardly different, above .5 unrelated.",
        values="0 to about 1; 0 for equal images",
        pitfalls="The three networks give three scales: never compare across them. Depends on resolution (the"
        " networks see the image at its own size; the judgements were on 64x64 patches). Can be fooled by"
        " adversarial noise, and by models trained on it as a loss.",
        cost=f"{_COST}; one pass of the network over both",
        source="Zhang et al. 2018, eq. 1; release 0.1",
    )

    network: str = "alex"
    region: str | None = None


@METRICS.register("pd")
@dataclass(frozen=True, slots=True)
class PerceptualDistance(NetworkPairMetric):
    """Mean perceptual distance: LPIPS without learned weights, on any network's stages.

    Attributes:
        network: ``efficientnet-lite0`` (embedded, no download), ``vgg16``, ``alexnet``, ``squeezenet1_1``.
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "pd"
    title: ClassVar[str] = "Perceptual distance"
    about: ClassVar[About] = About(
        meaning="How far apart the deep features of each image and its reference are, all channels alike;"
        " follows LPIPS without its downloads.",
        values="0 to 20 on the embedded network; 0 for equal images; unrelated photographs score about"
        " 8 to 10",
        pitfalls="A scale of its own: compare within one network only, and not with LPIPS. The embedded"
        " network resizes to 224x224, so that detail beyond that is not seen.",
        cost=f"{_COST}; one pass of the network over both",
        source="Zhang et al. 2018, section 4 (networks without calibration)",
    )

    network: str = "efficientnet-lite0"
    region: str | None = None


@METRICS.register("style")
@dataclass(frozen=True, slots=True)
class StyleDistance(NetworkPairMetric):
    """Mean Gram-matrix style distance.

    Attributes:
        network: ``efficientnet-lite0`` (embedded, no download) or ``vgg16``.
        region: a mask's name, or None.
    """

    name: ClassVar[str] = "style"
    title: ClassVar[str] = "Style distance"
    about: ClassVar[About] = About(
        meaning="How different texture and colour statistics are, whatever their place in the picture: the"
        " mean square difference of feature correlations. For style transfer, against the style image.",
        values="0 to infinity; 0 for equal images, and for equal textures in another arrangement nearly so",
        pitfalls="No natural scale: the network, its layers and the normalisation set it, and no two papers"
        " agree on them. Strong activations dominate. Says nothing about content.",
        cost=f"{_COST}; one pass of the network over both, and c^2 products for each of its pixels",
        source="Gatys et al. 2016, eq. 3 and 4",
    )

    network: str = "efficientnet-lite0"
    region: str | None = None
