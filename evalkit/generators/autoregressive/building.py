"""From checkpoints to autoregressive generators."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.counter_noise import ELEMENT_STREAM, uniform_at
from evalkit.generators.autoregressive import masked_cache, plus_cache
from evalkit.generators.autoregressive.masked import GROUPS, VALUES, PixelCNN, PixelCNNConfig
from evalkit.generators.autoregressive.plus import PixelCNNPlus, PixelCNNPlusConfig
from evalkit.generators.autoregressive.sampling import PixelGenerator, centred
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.sampling import SamplingOptions


class UnconditionalPixels(PixelGenerator):
    """What PixelCNN and PixelCNN++ share."""

    network: PixelCNN | PixelCNNPlus

    @property
    def num_classes(self) -> int:
        """Unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    def _uniforms(self, seeds: IndexArray, count: int) -> Tensor:
        shape = (self.resolution, self.resolution, count)
        return uniform_at(seeds, 0, shape, stream=ELEMENT_STREAM, device=self.device)


class MaskedPixelGenerator(UnconditionalPixels):
    """Samples a :class:`PixelCNN`: three evaluations of a position for each pixel, counted as such."""

    network: PixelCNN
    exact: PixelCNN

    @property
    def _positions(self) -> int:
        return GROUPS * self.resolution**2

    def _draw(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        del labels
        return centred(masked_cache.sample(self.exact, self._uniforms(seeds, GROUPS)), VALUES)


class PlusPixelGenerator(UnconditionalPixels):
    """Samples a :class:`PixelCNNPlus`; drawn values are fed back as they are, as in the public code."""

    network: PixelCNNPlus
    exact: PixelCNNPlus

    def _draw(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        del labels
        return plus_cache.sample(self.exact, self._uniforms(seeds, self.network.config.mixtures + 3))


def build_masked(checkpoint: Checkpoint, options: SamplingOptions) -> MaskedPixelGenerator:
    """Build PixelCNN from a checkpoint; the tensors show all but the resolution."""
    tensors, inferred = checkpoint.tensors, dict[str, object]()
    if "first.weight" in tensors and "hidden.weight" in tensors:
        inferred = {
            "features": tensors["first.weight"].shape[0] // 2,
            "head": tensors["hidden.weight"].shape[0],
            "blocks": _count(tensors, "blocks."),
        }
    config = configure(PixelCNNConfig, checkpoint, inferred=inferred, described=checkpoint.config or {})
    network = PixelCNN(config)
    load_weights(network, checkpoint, name="pixelcnn")
    return MaskedPixelGenerator(name="pixelcnn", network=network, checkpoint=checkpoint, options=options)


def build_plus(checkpoint: Checkpoint, options: SamplingOptions) -> PlusPixelGenerator:
    """Build PixelCNN++ from a checkpoint in the public layout; the tensors show all but the resolution."""
    tensors, inferred = checkpoint.tensors, dict[str, object]()
    if "u_init.conv.weight_v" in tensors and "nin_out.lin_a.weight_v" in tensors:
        inferred = {
            "width": tensors["u_init.conv.weight_v"].shape[0],
            "mixtures": tensors["nin_out.lin_a.weight_v"].shape[0] // 10,
            "blocks": _count(tensors, "up_layers.0.u_stream."),
        }
    config = configure(PixelCNNPlusConfig, checkpoint, inferred=inferred, described=checkpoint.config or {})
    network = PixelCNNPlus(config)
    load_weights(network, checkpoint, name="pixelcnn++")
    return PlusPixelGenerator(name="pixelcnn++", network=network, checkpoint=checkpoint, options=options)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)})
