"""The mapping network z -> w of StyleGAN2 and StyleGAN3 in NVIDIA's layout (``fc0``, ``w_avg`` ..)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from evalkit.errors import CheckpointError
from evalkit.generators.gan.style_layers import EqualisedLinear, leaky, normalise_second_moment


class MappingSizes(Protocol):
    """What a configuration says about its mapping network."""

    @property
    def z_dim(self) -> int:
        """Numbers in z."""
        ...

    @property
    def c_dim(self) -> int:
        """Classes; 0 where unconditional."""
        ...

    @property
    def w_dim(self) -> int:
        """Numbers in w."""
        ...

    @property
    def embed_dim(self) -> int:
        """Numbers in the embedding of a label; 0 where unconditional."""
        ...

    @property
    def mapping_widths(self) -> tuple[int, ...]:
        """Outputs of each layer; the last are w."""
        ...

    @property
    def mapping_rate(self) -> float:
        """Learning rate relative to the synthesis network, which scales weights and biases."""
        ...

    @property
    def tracked_centre(self) -> bool:
        """Whether the checkpoint holds the mean of w."""
        ...


class MappingNetwork(nn.Module):
    """Normalised z, joined by the normalised embedding of the label, through equalised layers."""

    w_avg: Tensor | None

    def __init__(self, config: MappingSizes) -> None:
        super().__init__()
        self.classes = config.c_dim
        if self.classes:
            self.embed = EqualisedLinear(self.classes, config.embed_dim)
        widths = (config.z_dim + config.embed_dim, *config.mapping_widths)
        self.depth = len(widths) - 1
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(f"fc{index}", EqualisedLinear(inputs, outputs, rate=config.mapping_rate))
        self.register_buffer("w_avg", torch.zeros(widths[-1]) if config.tracked_centre else None)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Map z ``[n, d]`` and int64 labels ``[n]`` to w, float32 ``[n, d_w]``, not truncated."""
        with torch.autocast(z.device.type, enabled=False):
            x = normalise_second_moment(z.float())
            if self.classes and labels is not None:
                chosen = nn.functional.one_hot(labels, self.classes).float()
                x = torch.cat([x, normalise_second_moment(self.embed(chosen))], dim=1)
            for index in range(self.depth):
                x = leaky(self.get_submodule(f"fc{index}")(x))
            return x


def infer_mapping(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the fields of :class:`MappingSizes` that the tensors of NVIDIA's layout show.

    Raises:
        CheckpointError: there is no mapping network among them.
    """
    widths: list[int] = []
    while (weight := tensors.get(f"mapping.fc{len(widths)}.weight")) is not None and weight.ndim == 2:
        widths.append(weight.shape[0])
    if not widths:
        raise CheckpointError(
            "the checkpoint has no mapping network (no tensor mapping.fc0.weight)",
            hint="style-based generators only; --weights raw or ema picks another part of the file",
        )
    embed = tensors.get("mapping.embed.weight")
    outputs, classes = (0, 0) if embed is None or embed.ndim != 2 else embed.shape
    return {
        "z_dim": tensors["mapping.fc0.weight"].shape[1] - outputs,
        "c_dim": classes,
        "embed_dim": outputs,
        "w_dim": widths[-1],
        "mapping_widths": tuple(widths),
        "tracked_centre": "mapping.w_avg" in tensors,
    }
