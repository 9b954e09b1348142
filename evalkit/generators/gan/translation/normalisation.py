"""Which normalisation a checkpoint of the translators has, and the layers for it.

The public code has three: BatchNorm (weights and statistics stored), InstanceNorm without either, and none.
Convolutions have a bias exactly where the normalisation is InstanceNorm.

Accepted trade-offs: the authors test Pix2Pix with BatchNorm in training mode (statistics of the one image)
and dropout on. Here statistics are the stored ones and dropout is off, so that an image depends on nothing
but its input: scores differ a little from those of the authors' test script without its ``--eval``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from evalkit.errors import CheckpointError

NORMALISATIONS = ("batch", "instance", "none")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def normalise(kind: str, channels: int) -> nn.Module:
    """Return the layer of that kind.

    Raises:
        ValueError: there is no such kind.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown normalisation {kind!r}; there are {', '.join(NORMALISATIONS)}")


def shown_normalisation(tensors: Mapping[str, Tensor], convolution: str, layer: str) -> str:
    """Return the kind, from the names at a normalised convolution and at the layer behind it."""
    if f"{layer}.weight" in tensors:
        return "batch"
    return "instance" if f"{convolution}.bias" in tensors else "none"


def without_stale_statistics(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return ``tensors`` without the running statistics that torch 0.3's InstanceNorm stored.

    Part of the layout: published CycleGAN files hold them, and their own code drops them when it loads, for
    InstanceNorm always takes the statistics of the image.
    """
    if kind != "instance":
        return dict(tensors)
    return {key: value for key, value in tensors.items() if not key.endswith(_STATISTICS)}


def needed(tensors: Mapping[str, Tensor], name: str, model: str) -> Tensor:
    """Return a convolution's weight.

    Raises:
        CheckpointError: there is none of that name, or it is no convolution's.
    """
    weight = tensors.get(name)
    if weight is None or weight.ndim != 4:
        raise CheckpointError(
            f"the checkpoint is no generator of {model!r}: no convolution {name}",
            hint="generators of junyanz/pytorch-CycleGAN-and-pix2pix: U-Net is pix2pix, resnet is cyclegan",
        )
    return weight
