"""What a network of Karras et al. 2022 is made of, nearly all read off its tensors' names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evalkit.errors import CheckpointError

PRECONDITIONINGS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
"""The pickled classes, which say how the network's output becomes a denoised image (table 1)."""

_FROM_ARGUMENTS = {
    "img_resolution": "resolution",
    "label_dim": "num_classes",
    "augment_dim": "augmentations",
    "model_type": "network",
    "embedding_type": "embedding",
    "encoder_type": "encoder",
    "decoder_type": "decoder",
    "sigma_data": "sigma_data",
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "beta_d": "beta_d",
    "beta_min": "beta_min",
    "M": "timesteps",
    "epsilon_t": "smallest_time",
    "label_dropout": "label_dropout",
}
_SHOWN_BY_TENSORS = {
    "img_channels",
    "model_channels",
    "channel_mult",
    "channel_mult_emb",
    "channel_mult_noise",
    "num_blocks",
    "attn_resolutions",
    "resample_filter",
}
_WITHOUT_EFFECT = {"use_fp16", "dropout", "C_1", "C_2"}  # C_1 and C_2 make the buffer u, which the file holds


@dataclass(frozen=True)
class EDMConfig:
    """The network and its preconditioning.

    Attributes:
        preconditioning: one of :data:`PRECONDITIONINGS`; a bare state dict does not say which.
        network: ``SongUNet`` (DDPM++ and NCSN++) or ``DhariwalUNet`` (ADM).
        resolution: height and width.
        num_classes: 0 where unconditional.
        augmentations: numbers that describe the augmentation; zero, hence without effect, at sampling.
        embedding: of the noise level: ``positional`` or ``fourier``.
        noise_width: width of that embedding.
        embedding_width: width of the hidden layers after it.
        stem: channels of the first convolution.
        channels: at each size, the finest first.
        blocks: at each size, on the way down; one more on the way up.
        attention: sizes with attention.
        encoder: ``standard``, ``skip`` or ``residual`` input beside the main path.
        decoder: ``standard``, or ``skip``: every size adds to the output.
        filter_size: taps of the resampling filter.
        out_channels: 3, or 6 where the variance is learned too.
        known_sigmas: entries of the buffer ``u`` (iDDPM), or 0.
        sigma_data: EDM's standard deviation of the data.
        sigma_min: smallest noise level of the network (EDM: 0, VE: 0.02); None is the class's default.
        sigma_max: largest; None is the class's default.
        beta_d: VP's slope.
        beta_min: VP's first beta.
        timesteps: VP's and iDDPM's M.
        smallest_time: VP's smallest time of training.
        label_dropout: share of training images without their class; more than 0 allows guidance.
    """

    preconditioning: str
    network: str
    resolution: int
    num_classes: int
    augmentations: int
    embedding: str
    noise_width: int
    embedding_width: int
    stem: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    encoder: str
    decoder: str
    filter_size: int
    out_channels: int
    known_sigmas: int
    sigma_data: float = 0.5
    sigma_min: float | None = None
    sigma_max: float | None = None
    beta_d: float = 19.9
    beta_min: float = 0.1
    timesteps: int = 1000
    smallest_time: float = 1e-5
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no such network is.

        Raises:
            CheckpointError: an unknown class, or parts that do not go together.
        """
        if self.preconditioning not in PRECONDITIONINGS:
            raise CheckpointError(
                f"unknown preconditioning {self.preconditioning!r}",
                hint=f"one of {', '.join(PRECONDITIONINGS)}",
            )
        if self.out_channels != (6 if self.preconditioning == "iDDPMPrecond" else 3):
            raise CheckpointError(f"{self.preconditioning} with {self.out_channels} output channels")
        if (self.preconditioning == "iDDPMPrecond") != (self.known_sigmas > 1):
            raise CheckpointError("the buffer 'u' belongs to iDDPMPrecond, and to it alone")
        if self.known_sigmas and self.timesteps != self.known_sigmas - 1:
            raise CheckpointError(f"M = {self.timesteps}, but the buffer 'u' has {self.known_sigmas} entries")
        if self.sigma_data <= 0 or self.beta_d <= 0 or self.beta_min <= 0:
            raise CheckpointError("sigma_data, beta_d and beta_min must be positive")


def described_by(class_name: str | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a pickle states: its class and the arguments of its constructor.

    Raises:
        CheckpointError: an argument that no network of the paper has.
    """
    unknown = sorted(set(arguments) - set(_FROM_ARGUMENTS) - _SHOWN_BY_TENSORS - _WITHOUT_EFFECT)
    if unknown:
        raise CheckpointError(f"unknown arguments of the pickled network: {', '.join(unknown)}")
    stated = {
        field: arguments[name]
        for name, field in _FROM_ARGUMENTS.items()
        # Infinity, EDM's default, is no JSON number; it means: no bound.
        if name in arguments and arguments[name] not in {None, float("inf")}
    }
    if class_name is not None:
        stated["preconditioning"] = class_name.rpartition(".")[2]
    return stated


def inferred_from(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields that names and shapes show.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        return _shown(tensors)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the tensors are not those of an EDM network: {type(error).__name__} {error}",
            hint="names begin with model.enc.32x32_conv or the like",
        ) from error


def _shown(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    encoder = {key.removeprefix("model.enc.") for key in tensors if key.startswith("model.enc.")}
    sizes = sorted({int(key.partition("x")[0]) for key in encoder}, reverse=True)
    first = f"{sizes[0]}x{sizes[0]}"
    adm = "model.out_conv.weight" in tensors
    last = "model.out_conv.weight" if adm else f"model.dec.{first}_aux_conv.weight"
    filters = {tensor.shape[-1] for key, tensor in tensors.items() if key.endswith(".resample_filter")}
    blocks = {int(found[1]) for key in encoder if (found := re.match(r"\d+x\d+_block(\d+)\.", key))}
    shown: dict[str, Any] = {
        "network": "DhariwalUNet" if adm else "SongUNet",
        "resolution": sizes[0],
        "num_classes": _inputs(tensors, "model.map_label.weight"),
        "augmentations": _inputs(tensors, "model.map_augment.weight"),
        "embedding": "fourier" if "model.map_noise.freqs" in tensors else "positional",
        "noise_width": _inputs(tensors, "model.map_layer0.weight"),
        "embedding_width": tensors["model.map_layer0.weight"].shape[0],
        "stem": tensors[f"model.enc.{first}_conv.weight"].shape[0],
        "channels": tuple(tensors[f"model.enc.{s}x{s}_block0.conv0.weight"].shape[0] for s in sizes),
        "blocks": 1 + max(blocks),
        "attention": tuple(s for s in sizes if f"model.enc.{s}x{s}_block0.qkv.weight" in tensors),
        "encoder": _encoder(encoder),
        "decoder": "skip" if sum(key.endswith("_aux_conv.weight") for key in tensors) > 1 else "standard",
        "filter_size": filters.pop() if len(filters) == 1 else 2,
        "out_channels": tensors[last].shape[0],
        "known_sigmas": len(tensors["u"]) if "u" in tensors else 0,
    }
    if "u" in tensors:
        shown |= {"timesteps": len(tensors["u"]) - 1, "preconditioning": "iDDPMPrecond"}
    return shown


def _encoder(names: set[str]) -> str:
    if any("_aux_skip." in name for name in names):
        return "skip"
    return "residual" if any("_aux_residual." in name for name in names) else "standard"


def _inputs(tensors: Mapping[str, Tensor], name: str) -> int:
    return tensors[name].shape[1] if name in tensors else 0
