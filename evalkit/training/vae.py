"""VAE with the optimal shared decoder variance (sigma-VAE, Rybkin et al. 2021) and a KL warm-up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.training.loop import MovingAverage, restart_batch_norm


class VAETask:
    """Maximises the evidence lower bound; AdamW with cosine decay, averaged weights."""

    architecture = "vae"

    def __init__(  # noqa: PLR0913 - hyper-parameters, all by keyword
        self,
        *,
        config: VAEConfig,
        steps: int,
        device: str,
        learning_rate: float = 1e-3,
        beta: float = 1.0,
        warmup_fraction: float = 0.1,
        half_life_images: float = 50_000.0,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.total, self.bfloat16 = config, steps, bfloat16
        self.learning_rate, self.beta, self.warmup = learning_rate, beta, max(1, int(warmup_fraction * steps))
        self.device = torch.device(device)
        self.network = ConvVAE(config).to(self.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, half_life_images)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=learning_rate, weight_decay=1e-4)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The network and its average."""
        return {"network": self.network, "average": self.average.network}

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The one optimizer."""
        return {"network": self.optimizer}

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """Negative evidence lower bound in nats per image; ``labels`` are not used."""
        del labels
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / self.total))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            mean, log_variance = self.network.encode(images)
            noise = torch.randn(mean.shape, generator=rng).to(self.device)
            decoded = self.network.decode(mean + (0.5 * log_variance).exp() * noise)
        error = F.mse_loss(decoded.float(), images)
        dimensions = images[0].numel()
        # With the variance at its optimum, the Gaussian negative log likelihood is D/2 (log mse + const).
        reconstruction = 0.5 * dimensions * error.log()
        divergence = -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).sum(dim=1).mean()
        loss = reconstruction + self.beta * min(1.0, (step + 1) / self.warmup) * divergence
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1000.0)
        self.optimizer.step()
        self.average.update(self.network, images_seen=(step + 1) * len(images), batch_size=len(images))
        return {"loss": float(loss.detach()), "mse": float(error.detach()), "kl": float(divergence.detach())}

    @torch.no_grad()
    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Recompute the averaged network's batch-norm statistics on real images, then freeze them."""
        network = self.average.network
        restart_batch_norm(network)
        network.train()
        rng = torch.Generator().manual_seed(1)
        for images, _ in batches:
            mean, _ = network.encode(images)
            # The decoder's statistics must be those of prior samples, which is what it will be asked for.
            network.decode(torch.randn(mean.shape, generator=rng).to(self.device))
        network.eval()

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged network."""
        return dataclasses.asdict(self.config), self.average.network.state_dict()

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Decode 64 draws from the prior."""
        network = self.average.network
        return network.decode(torch.randn(64, self.config.latent_dim, generator=rng).to(self.device))
