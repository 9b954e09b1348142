"""A network, its process and its labels as the denoiser that samplers walk with; evaluations are counted."""

from __future__ import annotations

import torch
from torch import Tensor

from evalkit.generators.diffusion.guidance import classifier_free
from evalkit.generators.diffusion.process import Denoised, DenoisingNetwork, Level, Process


class CountingNetwork:
    """A network that counts how often it is called, and notices outputs that are not finite."""

    def __init__(self, network: DenoisingNetwork) -> None:
        self.network = network
        self.evaluations = 0
        self._finite: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether every output so far was finite; clipping hides infinity in the images themselves."""
        return self._finite is None or bool(self._finite)

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Return the network's output as float32, and count."""
        self.evaluations += 1
        output = self.network(x, t, labels).float()
        now = torch.isfinite(output).all()  # stays on the device: reading it would wait at every step
        self._finite = now if self._finite is None else self._finite & now
        return output


class NetworkDenoiser:
    """x at a level -> x0 and noise by a network, with classifier-free guidance where its scale is not 1.

    Args:
        network: any network of the contract, counting or not.
        process: says what its output means.
        labels: int64 ``[n]``, or None.
        null_labels: int64 ``[n]``, the labels of no class; None where the network knows none.
        guidance: see :func:`evalkit.generators.diffusion.guidance.classifier_free`; 1 evaluates once, and so
            does 0, without the labels; anything else twice.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        process: Process,
        *,
        labels: Tensor | None = None,
        null_labels: Tensor | None = None,
        guidance: float = 1.0,
    ) -> None:
        if guidance != 1 and null_labels is None:
            raise ValueError("classifier-free guidance needs null labels")
        self.network, self.process = network, process
        self.labels, self.null_labels, self.guidance = labels, null_labels, guidance

    def __call__(self, x: Tensor, level: Level) -> Denoised:
        """Return what ``x`` is made of at ``level``."""
        t = torch.full((len(x),), level.time, dtype=torch.float32, device=x.device)
        if self.guidance == 0:
            return self.process.denoised(self.network(x, t, self.null_labels), x, level)
        output = self.network(x, t, self.labels)
        if self.guidance != 1:
            without = self.network(x, t, self.null_labels)
            output = classifier_free(output, without, self.guidance, channels=x.shape[1])
        return self.process.denoised(output, x, level)
