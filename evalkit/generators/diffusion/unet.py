"""Class-conditional denoising U-Net on patches (Ho et al. 2020; patching as in Hoogeboom et al. 2023).

The network itself is ``diffusers.UNet2DModel``; it sees the image after space-to-depth, which moves most
of the work to a quarter of the positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DDPMConfig:
    """Sizes of the U-Net, the noise schedule and what the network predicts."""

    resolution: int = 32
    patch: int = 2
    channels: tuple[int, ...] = (96, 128)
    attention: tuple[bool, ...] = (False, True)
    blocks: int = 1
    head_dim: int = 32
    groups: int = 16
    num_classes: int = 10
    schedule: str = "squaredcos_cap_v2"
    prediction: str = "v_prediction"
    train_timesteps: int = 1000


class DenoisingUNet(nn.Module):
    """Noisy image, time step and label to a prediction (velocity or noise); ``num_classes`` is no label."""

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.config = config
        down = tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in config.attention)
        up = tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention))
        depth = 3 * config.patch**2
        self.unet = UNet2DModel(
            sample_size=config.resolution // config.patch,
            in_channels=depth,
            out_channels=depth,
            layers_per_block=config.blocks,
            block_out_channels=config.channels,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=config.head_dim,
            norm_num_groups=config.groups,
            num_class_embeds=config.num_classes + 1,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Return the prediction ``[n, 3, h, w]`` for ``noisy [n, 3, h, w]`` at integer ``timesteps [n]``."""
        x = F.pixel_unshuffle(noisy, self.config.patch).contiguous(memory_format=torch.channels_last)
        out = self.unet(x, timesteps, class_labels=labels, return_dict=False)[0]
        return F.pixel_shuffle(out, self.config.patch)
