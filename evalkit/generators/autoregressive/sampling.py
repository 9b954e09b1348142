"""What autoregressive generators over pixels share: uniforms of each position, arithmetic in float64."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.core import IndexArray
from evalkit.counter_noise import ELEMENT_STREAM, uniform_at
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.autoregressive import gated_cache
from evalkit.generators.autoregressive.gated import GatedPixelCNN, GatedPixelCNNConfig
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.sampling import NativeGenerator, SamplingOptions


class PixelGenerator(NativeGenerator):
    """Draws pixels in raster order; ``evaluations_per_image`` counts the positions that are drawn one by one.

    With cached activations all of them together cost about one evaluation of the whole network, but none can
    start before the one before it has ended: the number is the length of that chain.

    The arithmetic is float64 whatever the device: a rounding error that moves one draw moves everything after
    it, and in float32 the batch that an image is in would show in about one image of three hundred.
    """

    family = "autoregressive"

    def __init__(
        self, *, name: str, network: nn.Module, checkpoint: Checkpoint, options: SamplingOptions
    ) -> None:
        if options.dtype != "float32":
            raise UsageError(
                f"model {name!r} computes in float64 and takes no --dtype {options.dtype}",
                hint="a rounding error that moves one pixel moves the rest of the image; drop --dtype",
            )
        super().__init__(name=name, network=network, checkpoint=checkpoint, options=options)
        self.exact = copy.deepcopy(self.network).double()

    def _settings(self) -> dict[str, Any]:
        return {"arithmetic": "float64"}

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        self.evaluations_per_image = self._positions
        return self._draw(seeds, labels if self.num_classes else None)

    @property
    def _positions(self) -> int:
        return self.resolution**2

    @abstractmethod
    def _draw(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        """Return images ``[n, 3, h, w]`` in [-1, 1]."""


class GatedPixelGenerator(PixelGenerator):
    """Samples a :class:`GatedPixelCNN` over pixels; grey ones give three equal channels."""

    network: GatedPixelCNN
    exact: GatedPixelCNN

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where unconditional."""
        return self.network.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    def _draw(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        values = gated_cache.sample(self.exact, labels, draws(self.network.config, seeds, self.device))
        return centred(values, self.network.config.values).expand(-1, 3, -1, -1)


def draws(config: GatedPixelCNNConfig, seeds: IndexArray, device: torch.device) -> Tensor:
    """Return the uniforms ``[n, h, w, c]`` of each draw of each image, by its seed and the position alone."""
    size = config.resolution
    return uniform_at(seeds, 0, (size, size, config.channels), stream=ELEMENT_STREAM, device=device)


def centred(values: Tensor, levels: int) -> Tensor:
    """Map int64 ``0..levels-1`` to [-1, 1] so that :func:`quantise` gives 8-bit values back unchanged.

    A level k of 256 lies at ``(k + 0.5 - 128) / 127.5``, the middle of what is rounded to k.
    """
    return (values.double() * (255.0 / (levels - 1)) + 0.5 - 128.0) / 127.5


def build_gated(checkpoint: Checkpoint, options: SamplingOptions) -> GatedPixelGenerator:
    """Build the generator from a checkpoint.

    Raises:
        CheckpointError: it does not fit, or its positions are no pixels.
    """
    config = build_config(GatedPixelCNNConfig, checkpoint)
    if config.embedded or config.channels not in {1, 3}:
        raise CheckpointError(
            "this Gated PixelCNN draws neither grey nor RGB pixels",
            hint="the prior of a VQ-VAE is part of that model's checkpoint: --model vq-vae",
        )
    network = GatedPixelCNN(config)
    load_weights(network, checkpoint, name="gated-pixelcnn")
    return GatedPixelGenerator(name="gated-pixelcnn", network=network, checkpoint=checkpoint, options=options)
