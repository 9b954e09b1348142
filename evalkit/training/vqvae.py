"""VQ-VAE in one run: first the auto-encoder, then the Gated PixelCNN prior over its codes.

The auto-encoder is trained by the squared error over the variance of the pixels and the commitment term
(van den Oord et al. 2017, eq. 3, weight 0.25); the codebook follows as the moving mean of the vectors that
chose each code (appendix A.1). The first tenth of its steps goes without quantisation, and the codebook then
starts on vectors of one batch: an encoder whose outputs still grow leaves the codes behind, and a few of them
take everything. A code that few choose later is put on a vector of the current batch (Dhariwal et al. 2020).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.autoregressive import gated_cache
from evalkit.generators.autoregressive.sampling import draws
from evalkit.generators.vae.quantised import VQVAE, Codebook, VQVAEConfig
from evalkit.training.gated_pixelcnn import (
    BETAS,
    blend,
    descend,
    learning_rate,
    reproducible_dropout,
)
from evalkit.training.loop import MovingAverage

COMMITMENT = 0.25
CODE_DECAY = 0.97
PIXEL_VARIANCE = 0.25
"""About the variance of natural images in [-1, 1]: the error is measured in units of it."""
_RARELY, _FRESH = 0.5, 2.0
"""A code with a moving count below the first is put elsewhere, and has the second as its count there."""


class VQVAETask:
    """The first ``autoencoder_share`` of the steps train the auto-encoder, the others the prior."""

    architecture = "vq-vae"

    def __init__(  # noqa: PLR0913 - hyper-parameters, all by keyword
        self,
        *,
        config: VQVAEConfig,
        steps: int,
        device: str,
        autoencoder_share: float = 0.5,
        learning_rate: float = 1e-3,
        warmup: int = 100,
        dropout: float = 0.1,
        bfloat16: bool = True,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.learning_rate, self.warmup = config, learning_rate, warmup
        self.autoencoder_steps = max(1, round(autoencoder_share * steps))
        self.plain_steps = self.autoencoder_steps // 10
        self.prior_steps = max(1, steps - self.autoencoder_steps)
        self.dropout, self.bfloat16, self.device = dropout, bfloat16, torch.device(device)
        self.network = VQVAE(config).to(self.device).to(memory_format=torch.channels_last)
        self.coder_average = MovingAverage(self.network.autoencoder, math.inf)
        self.prior_average = MovingAverage(self.network.prior, math.inf)
        self._optimizers = {
            "autoencoder": torch.optim.Adam(self.network.autoencoder.parameters(), lr=learning_rate),
            "prior": torch.optim.Adam(self.network.prior.parameters(), lr=learning_rate, betas=BETAS),
        }

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Both networks and their averages."""
        return {
            "network": self.network,
            "autoencoder_average": self.coder_average.network,
            "prior_average": self.prior_average.network,
        }

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One for each network."""
        return self._optimizers

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """One step of the auto-encoder or of the prior; the log has the same columns for both."""
        logged = dict.fromkeys(("mse", "commitment", "codes_used", "prior_bits_per_code"), 0.0)
        if step < self.autoencoder_steps:
            return logged | self._autoencoder_step(images, step=step, rng=rng)
        return logged | self._prior_step(images, labels, step=step - self.autoencoder_steps, rng=rng)

    def _autoencoder_step(self, images: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        coder = self.network.autoencoder
        with self._autocast():
            encoded = coder.encode(images)
        quantised = step >= self.plain_steps
        with torch.no_grad():
            if step == self.plain_steps:
                restart_codes(coder.codebook, encoded, coder.codebook.counts < math.inf, rng)
            codes = coder.codebook.nearest(encoded)
            chosen = coder.codebook.look_up(codes) if quantised else encoded
        commitment = F.mse_loss(encoded, chosen)
        with self._autocast():
            # Straight through: the decoder sees the code's vector, the encoder gets the decoder's gradient.
            decoded = coder.decode(encoded + (chosen - encoded).detach())
        error = F.mse_loss(decoded.float(), images)
        rate = learning_rate(step, total=self.autoencoder_steps, peak=self.learning_rate, warmup=self.warmup)
        descend(self._optimizers["autoencoder"], error / PIXEL_VARIANCE + COMMITMENT * commitment, rate=rate)
        if quantised:
            follow(coder.codebook, encoded.detach(), codes, rng)
        blend(self.coder_average, coder, step=step, batch_size=len(images))
        return {
            "mse": float(error.detach()),
            "commitment": float(commitment.detach()),
            "codes_used": float(codes.unique().numel()),
        }

    def _prior_step(
        self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator
    ) -> dict[str, float]:
        with torch.no_grad():
            codes = self.coder_average.network.quantise(images)
        with reproducible_dropout(rng), self._autocast():
            loss = self.network.prior.nats(codes[:, None], labels, dropout=self.dropout)
        rate = learning_rate(step, total=self.prior_steps, peak=self.learning_rate, warmup=self.warmup)
        descend(self._optimizers["prior"], loss, rate=rate)
        blend(self.prior_average, self.network.prior, step=step, batch_size=len(images))
        bits = float(loss.detach()) / math.log(2.0)
        return {"codes_used": float(codes.unique().numel()), "prior_bits_per_code": bits}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Nothing: there are no batch statistics."""

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the averaged auto-encoder and prior."""
        averaged = {"autoencoder": self.coder_average.network, "prior": self.prior_average.network}
        tensors = {
            f"{name}.{key}": tensor
            for name, network in averaged.items()
            for key, tensor in network.state_dict().items()
        }
        # Moving sums grow with the batch and may not fit fp16; at sampling only the vectors count.
        tensors["autoencoder.codebook.counts"] = torch.ones(self.config.codes)
        tensors["autoencoder.codebook.sums"] = tensors["autoencoder.codebook.vectors"].clone()
        return dataclasses.asdict(self.config), tensors

    @torch.no_grad()
    def preview(self, rng: torch.Generator) -> Tensor:
        """Decode codes drawn from the averaged prior, label by column."""
        del rng  # the draws are keyed by the number of the image
        labels = (torch.arange(64) % max(self.config.num_classes, 1)).to(self.device)
        uniforms = draws(self.config.prior, np.arange(64, dtype=np.int64), self.device)
        codes = gated_cache.sample(self.prior_average.network, labels, uniforms)[:, 0]
        coder = self.coder_average.network
        return coder.decode(coder.codebook.look_up(codes))


@torch.no_grad()
def follow(codebook: Codebook, encoded: Tensor, codes: Tensor, rng: torch.Generator) -> None:
    """Move each code's vector to the moving mean of the vectors that chose it (appendix A.1, eq. 6 to 8).

    Args:
        codebook: changed in place.
        encoded: float32 ``[n, h, w, d]``.
        codes: int64 ``[n, h, w]``.
        rng: chooses where codes go that are chosen too rarely.
    """
    flat = codes.flatten()
    counts = torch.bincount(flat, minlength=len(codebook.counts)).to(encoded.dtype)
    sums = torch.zeros_like(codebook.sums).index_add_(0, flat, encoded.flatten(0, 2))
    codebook.counts.lerp_(counts, 1.0 - CODE_DECAY)
    codebook.sums.lerp_(sums, 1.0 - CODE_DECAY)
    restart_codes(codebook, encoded, codebook.counts < _RARELY, rng)
    codebook.vectors.copy_(codebook.sums / codebook.counts[:, None])


@torch.no_grad()
def restart_codes(codebook: Codebook, encoded: Tensor, which: Tensor, rng: torch.Generator) -> None:
    """Put the codes of boolean ``which`` ``[codes]`` on random vectors of ``encoded`` ``[n, h, w, d]``."""
    candidates = encoded.detach().flatten(0, 2)
    chosen = torch.randint(len(candidates), (len(codebook.counts),), generator=rng).to(encoded.device)
    fresh = candidates[chosen]
    codebook.counts.masked_fill_(which, _FRESH)
    codebook.sums.copy_(torch.where(which[:, None], _FRESH * fresh, codebook.sums))
    codebook.vectors.copy_(torch.where(which[:, None], fresh, codebook.vectors))
