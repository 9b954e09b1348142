"""Energy of a whole GPU by NVML's total-energy counter; nothing where there is none.

The counter is the whole board's, so a window counts only where no other process computes on it, and one
below ten seconds is too short for the counter's steps (about 20 to 100 ms) and for the board's idle draw.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import torch

SHORTEST_SECONDS: Final = 10.0
"""A window below this gives no energy."""

Joules = Callable[[], float | None]


def nothing() -> float | None:
    """Read no counter: a CPU, or no NVML."""
    return None


def energy_counter(device: torch.device) -> Joules:
    """Return a function that reads the joules ``device`` has used so far, or None where nobody can say.

    Needs the package ``nvidia-ml-py`` (extra ``energy``) and a GPU of Volta or later.
    """
    if device.type != "cuda":
        return nothing
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        return nothing
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return nothing

    def joules() -> float | None:
        with suppress(pynvml.NVMLError):
            if _is_alone(pynvml, handle):
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0
        return None

    return joules


def energy_per_image(
    before: float | None, after: float | None, *, seconds: float, images: int
) -> float | None:
    """Return J/image of a window, or None where it was shorter than :data:`SHORTEST_SECONDS` or shared."""
    if before is None or after is None or seconds < SHORTEST_SECONDS or images < 1:
        return None
    return (after - before) / images


def _is_alone(pynvml: Any, handle: Any) -> bool:  # noqa: ANN401 - no types
    return {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)} <= {os.getpid()}
