"""Mergeable statistics of feature vectors. Every module of this package is imported, so one file adds one.

>>> sorted(ACCUMULATORS)
['bank', 'grouped', 'moments', 'probabilities']
"""

from __future__ import annotations

import importlib
import pkgutil

from evalkit.core import Accumulator
from evalkit.registry import Registry

ACCUMULATORS: Registry[type[Accumulator]] = Registry("accumulator")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ACCUMULATORS"]
