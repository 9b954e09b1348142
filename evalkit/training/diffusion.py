"""DDPM: v-prediction (Salimans & Ho 2022), cosine schedule (Nichol & Dhariwal 2021), label dropout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.diffusion.ddpm import ddim_sample
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.training.loop import MovingAverage


class DDPMTask:
    """Trains a :class:`DenoisingUNet`; AdamW, warm-up then cosine decay to zero, averaged weights."""

    architecture = "ddpm"

    def __init__(  # noqa: PLR0913 - hyper-parameters, all by keyword
        self,
        *,
        config: DDPMConfig,
        steps: int,
        device: str,
        learning_rate: float = 1e-3,
        warmup: int = 300,
        label_dropout: float = 0.1,
        half_life_images: float = 50_000.0,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.total, self.warmup = config, steps, warmup
        self.learning_rate, self.label_dropout, self.bfloat16 = learning_rate, label_dropout, bfloat16
        self.device = torch.device(device)
        self.network = DenoisingUNet(config).to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, half_life_images)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=learning_rate, weight_decay=1e-4)
        self.scheduler = DDIMScheduler(
            num_train_timesteps=config.train_timesteps,
            beta_schedule=config.schedule,
            prediction_type=config.prediction,
        )

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The network and its average."""
        return {"network": self.network, "average": self.average.network}

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The one optimizer."""
        return {"network": self.optimizer}

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """Mean squared error of the predicted velocity at uniform time steps."""
        n = len(images)
        self._set_learning_rate(step)
        t = torch.randint(0, self.config.train_timesteps, (n,), generator=rng).to(self.device)
        noise = torch.randn(images.shape, generator=rng).to(self.device)
        dropped = (torch.rand(n, generator=rng) < self.label_dropout).to(self.device)
        labels = labels.masked_fill(dropped, self.config.num_classes)
        target = self.scheduler.get_velocity(images, noise, t)
        if self.config.prediction == "epsilon":
            target = noise
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            predicted = self.network(self.scheduler.add_noise(images, noise, t), t, labels)
        loss = F.mse_loss(predicted.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.network, images_seen=(step + 1) * n, batch_size=n)
        return {"loss": float(loss.detach()), "grad_norm": float(norm)}

    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Nothing: the network has no batch statistics."""

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged network."""
        return dataclasses.asdict(self.config), self.average.network.state_dict()

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Sample with 25 DDIM steps, eight images a row, label by column."""
        shape = (64, 3, self.config.resolution, self.config.resolution)
        labels = (torch.arange(64) % max(self.config.num_classes, 1)).to(self.device)
        noise = torch.randn(shape, generator=rng).to(self.device)
        return ddim_sample(self.average.network, noise, labels, steps=25)

    def _set_learning_rate(self, step: int) -> None:
        ramp = min(1.0, (step + 1) / self.warmup)
        progress = torch.tensor(min(1.0, step / self.total) * torch.pi)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * ramp * 0.5 * (1.0 + float(torch.cos(progress)))
