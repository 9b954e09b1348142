"""Pix2Pix and CycleGAN as translators: uint8 image to uint8 image.

Accepted trade-offs: results are quantised by evalkit's one rule, where the authors' test script truncates
``127.5 (x + 1)``: half a grey level brighter on average.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.gan.translation.normalisation import without_stale_statistics
from evalkit.generators.gan.translation.resnet import ResNetTranslator, resnet_config
from evalkit.generators.gan.translation.unet import UNetTranslator, unet_config
from evalkit.generators.sampling import QUANTISATION, SamplingOptions, quantise
from evalkit.spec import Spec, sha256_of

_COLOURS = 3


class NetworkTranslator:
    """One pass of a network from an image in [-1, 1] to an image in [-1, 1]; it has no noise."""

    family = "gan"

    def __init__(
        self,
        *,
        name: str,
        network: UNetTranslator | ResNetTranslator,
        checkpoint: Checkpoint,
        options: SamplingOptions,
    ) -> None:
        self.name = name
        self.options = options
        self.sampler, _ = options.resolve(name)
        self.device = torch.device(options.device)
        self.checkpoint_format = checkpoint.layout or checkpoint.format
        self.checkpoint_part = checkpoint.part
        self.checkpoint_sha256 = checkpoint.sha256
        self.network = network.eval().requires_grad_(requires_grad=False).to(self.device)
        self.evaluations_per_image = 0
        self.parameter_count = sum(p.numel() for p in network.parameters())

    @property
    def spec(self) -> Spec:
        """Name, settings and checkpoint digest."""
        return Spec.of(
            "translator",
            self.name,
            sha256=self.checkpoint_sha256,
            sampler=self.sampler,
            dtype=self.options.dtype,
            quantisation=QUANTISATION,
            configuration=sha256_of(dataclasses.asdict(self.network.config))[:16],
            part=self.checkpoint_part,
        )

    @torch.inference_mode()
    def translate(self, images: Tensor, *, seeds: IndexArray) -> Tensor:
        """Return uint8 ``[n, 3, h, w]`` of uint8 ``[n, 3, h, w]``; the seeds do nothing.

        Raises:
            UsageError: images of another type, or of a size that the network cannot halve often enough.
        """
        self._check(images, seeds)
        self.evaluations_per_image = 1
        x = images.to(self.device, torch.float32) / 127.5 - 1.0
        dtype = getattr(torch, self.options.dtype)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            y = self.network(x)
        return quantise(y.float())

    def _check(self, images: Tensor, seeds: IndexArray) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != _COLOURS:
            raise UsageError(
                f"{self.name!r} takes uint8 [n, 3, h, w], not {images.dtype} {list(images.shape)}"
            )
        if len(seeds) != len(images):
            raise UsageError(f"{len(seeds)} seeds for {len(images)} images")
        multiple = self.network.config.multiple
        height, width = images.shape[2:]
        if min(height, width) < 1 or height % multiple or width % multiple:
            raise UsageError(
                f"{self.name!r} takes images whose height and width are multiples of {multiple}, "
                f"not {height}x{width}",
                hint="resize or crop the inputs first",
            )


def build_pix2pix(checkpoint: Checkpoint, options: SamplingOptions) -> NetworkTranslator:
    """Build Pix2Pix's U-Net from a checkpoint.

    Raises:
        CheckpointError: it does not fit.
    """
    config = unet_config(checkpoint)
    return _translator("pix2pix", UNetTranslator(config), checkpoint, options)


def build_cyclegan(checkpoint: Checkpoint, options: SamplingOptions) -> NetworkTranslator:
    """Build CycleGAN's residual generator from a checkpoint.

    Raises:
        CheckpointError: it does not fit.
    """
    config = resnet_config(checkpoint)
    return _translator("cyclegan", ResNetTranslator(config), checkpoint, options)


def _translator(
    name: str, network: UNetTranslator | ResNetTranslator, checkpoint: Checkpoint, options: SamplingOptions
) -> NetworkTranslator:
    config = network.config
    if (config.inputs, config.outputs) != (_COLOURS, _COLOURS):
        raise CheckpointError(
            f"this {name} maps {config.inputs} to {config.outputs} channels; evalkit translates RGB to RGB"
        )
    kept = without_stale_statistics(checkpoint.tensors, config.normalisation)
    load_weights(network, dataclasses.replace(checkpoint, tensors=kept), name=name)
    return NetworkTranslator(name=name, network=network, checkpoint=checkpoint, options=options)
