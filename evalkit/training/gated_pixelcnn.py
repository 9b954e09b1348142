"""Gated PixelCNN on 8-bit pixels: maximum likelihood, Adam, averaged weights; logs bits per dimension."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.generators.autoregressive import gated_cache
from evalkit.generators.autoregressive.gated import GatedPixelCNN, GatedPixelCNNConfig
from evalkit.generators.autoregressive.sampling import centred, draws
from evalkit.training.loop import MovingAverage, NetworkT

POLYAK = 0.9995
"""Decay of the averaged weights with each step (Salimans et al. 2017)."""
BETAS = (0.95, 0.9995)
"""Adam's decays of PixelCNN++ (its public code)."""


class GatedPixelCNNTask:
    """Minimises the negative log likelihood; the rate warms up, then falls as a cosine to a twentieth."""

    architecture = "gated-pixelcnn"

    def __init__(
        self,
        *,
        config: GatedPixelCNNConfig,
        steps: int,
        device: str,
        learning_rate: float = 1e-3,
        warmup: int = 30,
        dropout: float = 0.0,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.total, self.warmup = config, steps, warmup
        self.learning_rate, self.dropout, self.bfloat16 = learning_rate, dropout, bfloat16
        self.device = torch.device(device)
        self.network = GatedPixelCNN(config).to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, half_life_images=math.inf)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate, betas=BETAS)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The network and its average."""
        return {"network": self.network, "average": self.average.network}

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The one optimizer."""
        return {"network": self.optimizer}

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """Mean negative log likelihood of the values of all channels of all pixels."""
        rate = learning_rate(step, total=self.total, peak=self.learning_rate, warmup=self.warmup)
        values = images.add(1.0).mul(127.5).round().long()
        with (
            reproducible_dropout(rng),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            loss = self.network.nats(values, labels, dropout=self.dropout)
        norm = descend(self.optimizer, loss, rate=rate)
        blend(self.average, self.network, step=step, batch_size=len(images))
        nats = float(loss.detach())
        return {"bits_per_dim": nats / math.log(2.0), "grad_norm": norm}

    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Nothing: the network has no batch statistics."""

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged network."""
        return dataclasses.asdict(self.config), self.average.network.state_dict()

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Sample the averaged network, label by column."""
        del rng  # the draws are keyed by the number of the image
        labels = (torch.arange(64) % max(self.config.num_classes, 1)).to(self.device)
        uniforms = draws(self.config, np.arange(64, dtype=np.int64), self.device)
        return centred(gated_cache.sample(self.average.network, labels, uniforms), self.config.values)


def learning_rate(step: int, *, total: int, peak: float, warmup: int) -> float:
    """Return the rate of ``step``: linear warm-up, then half a cosine from ``peak`` to a twentieth."""
    fall = 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total)))
    return peak * min(1.0, (step + 1) / warmup) * fall


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, *, rate: float) -> float:
    """Take one step of ``optimizer`` with gradients of norm at most 1; return the norm before that."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    return float(norm)


def blend(average: MovingAverage[NetworkT], source: NetworkT, *, step: int, batch_size: int) -> None:
    """Blend ``source`` into ``average`` with decay :data:`POLYAK`, and faster in the first steps."""
    average.half_life_images = batch_size * math.log(0.5) / math.log(POLYAK)
    average.update(source, images_seen=(step + 1) * batch_size, batch_size=batch_size)


@contextmanager
def reproducible_dropout(rng: torch.Generator) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, by ``rng``; restore it afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        yield
