"""What layers compute from their weights alone, computed once where the weights do not change any more."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

DerivedT = TypeVar("DerivedT")


class WeightLayer(nn.Module, Generic[DerivedT]):
    """A layer that uses something derived from its weights: scaled, normalised or rearranged ones.

    It is derived anew in every pass until :meth:`freeze` keeps it, as a generator does once the weights are
    read. A frozen layer that goes to another device or type derives once more; one that is written to goes on
    with what it kept.
    """

    _kept: DerivedT | None = None

    @abstractmethod
    def derive(self) -> DerivedT:
        """Return what depends on the weights alone."""

    @property
    def derived(self) -> DerivedT:
        """What :meth:`derive` returns, or returned when the layer was frozen."""
        return self.derive() if self._kept is None else self._kept

    @torch.no_grad()
    def freeze(self) -> None:
        """Keep what the weights give now."""
        self._kept = self.derive()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._kept is not None:
            self.freeze()
        return self

    def thaw(self) -> None:
        """Derive anew in every pass again."""
        self._kept = None


def freeze(network: nn.Module) -> None:
    """Freeze every layer of ``network`` that can be frozen."""
    for module in network.modules():
        if isinstance(module, WeightLayer):
            module.freeze()
