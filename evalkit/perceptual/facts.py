"""What each pair measure is, without torch: for lists, for planning and for refusing in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from evalkit.registry import Registry
from evalkit.spec import Better

# The fifth scale of MS-SSIM needs 11 pixels: ceil(161 / 2**4).
MS_SSIM_MINIMUM: Final = 161
SSIM_WINDOW: Final = 11


@dataclass(frozen=True, slots=True)
class PairMeasureFacts:
    """What can be known of a measure before it is built.

    Attributes:
        name: registered name, and the name of the value that it returns.
        metric: name of the metric (in ``evalkit.metrics``) that averages its values.
        title: for lists and tables.
        better: which direction means more alike.
        values: the range in words.
        identity: its value for two equal images.
        minimum_size: least height and width of the images in pixels.
        factory: ``pkg.mod:obj`` of the :class:`~evalkit.perceptual.PairMeasureFactory`.
        network: name of the network whose weights it needs, or None.
        downloads: whether those weights are fetched at first use (and not shipped by a dependency).
        from_floats: whether it is an :class:`~evalkit.perceptual.ImageDistance`, for a path length.
    """

    name: str
    metric: str
    title: str
    better: Better
    values: str
    identity: float
    minimum_size: int
    factory: str
    network: str | None = None
    downloads: bool = False
    from_floats: bool = False


PAIR_MEASURES: Registry[PairMeasureFacts] = Registry("pair measure")

_MINIMUM: Final = {"alexnet": 31, "vgg16": 16, "squeezenet1_1": 17, "efficientnet-lite0": 1}
_LPIPS: Final = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
_NETWORKS: Final = ("efficientnet-lite0", "vgg16", "alexnet", "squeezenet1_1")


def _add(facts: PairMeasureFacts) -> None:
    PAIR_MEASURES.register(facts.name)(facts)


def _add_signal_measures() -> None:
    for suffix, what in (("", ""), ("-y", " of luma")):
        _add(
            PairMeasureFacts(
                name=f"psnr{suffix}",
                metric="psnr",
                title=f"PSNR{what} [dB]",
                better="higher",
                values="above 0 dB for most pictures; infinite for equal images",
                identity=float("inf"),
                minimum_size=1,
                factory="evalkit.perceptual.signal:build_psnr",
            )
        )
        _add(
            PairMeasureFacts(
                name=f"ssim{suffix}",
                metric="ssim",
                title=f"SSIM{what}",
                better="higher",
                values="-1 to 1; 1 for equal images",
                identity=1.0,
                minimum_size=SSIM_WINDOW,
                factory="evalkit.perceptual.structure:build_ssim",
            )
        )
    _add(
        PairMeasureFacts(
            name="ms-ssim",
            metric="ms-ssim",
            title="MS-SSIM",
            better="higher",
            values="0 to 1; 1 for equal images",
            identity=1.0,
            minimum_size=MS_SSIM_MINIMUM,
            factory="evalkit.perceptual.structure:build_ms_ssim",
        )
    )


def _add_network_measure(metric: str, variant: str, network: str, *, title: str, factory: str) -> None:
    _add(
        PairMeasureFacts(
            name=f"{metric}-{variant}",
            metric=metric,
            title=title,
            better="lower",
            values="0 to infinity; 0 for equal images",
            identity=0.0,
            minimum_size=_MINIMUM[network],
            factory=f"evalkit.perceptual.{factory}",
            network=network,
            downloads=network != "efficientnet-lite0",
            from_floats=metric != "style",
        )
    )


_add_signal_measures()
for _variant, _network in _LPIPS.items():
    _add_network_measure(
        "lpips", _variant, _network, title=f"LPIPS v0.1 ({_variant})", factory="distance:build_lpips"
    )
for _network in _NETWORKS:
    _title = f"Perceptual distance ({_network})"
    _add_network_measure("pd", _network, _network, title=_title, factory="distance:build_distance")
for _network in _NETWORKS[:2]:
    _title = f"Style distance ({_network})"
    _add_network_measure("style", _network, _network, title=_title, factory="style:build_style")
