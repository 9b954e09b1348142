"""Style distance: how far apart the Gram matrices of two images are (Gatys et al. 2016).

    style = build_pair_measure("style-efficientnet-lite0", weights={}, device="cpu")
    values = style(generated, reference, masks={"inside": mask})

    G = F F^T / (h w),  distance = sum over stages of mean over channel pairs of (G_generated - G_reference)^2

for a stage's activations F ``[c, h w]``, not normalised. A stage's term is four times the paper's eq. 4
(which divides by 4 c^2 (h w)^2); all stages weigh 1, where the paper weighs five layers of a VGG19 with
rescaled weights 1/5. In a region, the mask is averaged down to the stage's size and weighs its pixels:
G = sum_p m_p f_p f_p^T / sum_p m_p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.perceptual.chunks import Masks
from evalkit.perceptual.facts import PairMeasureFacts
from evalkit.perceptual.networks import StageNetwork, build_stage_network
from evalkit.perceptual.passes import measure_stages
from evalkit.spec import Spec


def gram_matrix(stage: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``[n, c, c]`` Gram matrices of a stage ``[n, c, h, w]``: means over pixels of f f^T.

    Args:
        stage: activations.
        mask: bool ``[n, 1, height, width]`` of any size, averaged to the stage's; None weighs all pixels
            alike. An empty mask gives NaN.
    """
    vectors = stage.flatten(2)
    if mask is None:
        return vectors @ vectors.mT / vectors.shape[-1]
    weights = F.adaptive_avg_pool2d(mask.to(stage.dtype), (stage.shape[-2], stage.shape[-1])).flatten(2)
    return (vectors * weights) @ vectors.mT / weights.sum(-1, keepdim=True)


@final
class StyleDistance:
    """The measure; see the module's docstring.

    Args:
        name: of the value that it returns.
        network: gives the stages.
        minimum_size: least height and width of the images.
    """

    def __init__(self, *, name: str, network: StageNetwork, minimum_size: int) -> None:
        self._name = name
        self.network: StageNetwork = network
        self.minimum_size: int = minimum_size
        self.device: Final = network.device

    @property
    def published(self) -> bool:
        """Whether the weights are the ones that the name stands for."""
        return self.network.published

    @property
    def spec(self) -> Spec:
        """Name, network, its weights' digest and the normalisation."""
        return Spec.of(
            "pair-measure",
            self._name,
            sha256=self.network.sha256,
            gram="mean over pixels",
            difference="mean square",
            **self.network.parameters,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """One value."""
        return (self._name,)

    def __call__(self, generated: Tensor, reference: Tensor, *, masks: Masks) -> Mapping[str, Tensor]:
        """Return float64 distances; see :class:`~evalkit.perceptual.PairMeasure`."""
        return measure_stages([self], generated, reference, masks=masks)

    def compare(
        self,
        stages: Sequence[Tensor],
        masks: Masks,
        *,
        size: tuple[int, int],  # noqa: ARG002 - masks are brought to the stages
    ) -> dict[str, Tensor]:
        """Return the distances from stages; see :class:`~evalkit.perceptual.passes.StageMeasure`."""
        values = {self._name: _distance(stages, None)}
        return values | {f"{self._name}/{region}": _distance(stages, mask) for region, mask in masks.items()}


def _distance(stages: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Sum of the stages' terms, float64 ``[n]``; generated images come first, then as many references."""
    terms = []
    for stage in stages:
        generated, reference = (gram_matrix(half, mask) for half in stage.chunk(2))
        difference = generated - reference
        if difference.device.type == "mps":
            difference = difference.cpu()
        terms.append(difference.double().square().mean((1, 2)))
    return torch.stack(terms).sum(0)


def build_style(
    facts: PairMeasureFacts, *, weights: Path | None, device: str, network: StageNetwork | None = None
) -> StyleDistance:
    """Build ``style-NETWORK``, on ``network`` where it is there already."""
    network = network or build_stage_network(str(facts.network), weights=weights, device=device)
    return StyleDistance(name=facts.name, network=network, minimum_size=facts.minimum_size)
