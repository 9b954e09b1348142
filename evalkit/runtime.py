"""Device choice and strict numerics: the switches that must not move a score.

    device = resolve_device("auto")
    with strict_numerics():
        features = network(images.to(device))

Accepted trade-offs: :func:`strict_numerics` changes process-wide switches of torch, so it is not for
threads that need different settings at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from threadpoolctl import threadpool_limits

from evalkit.errors import UsageError

_DEVICE_TYPES: Final = ("cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    ``auto`` is the first of cuda, mps and cpu that this machine has.

    Raises:
        UsageError: the name is malformed, or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if _count("cuda") else "mps" if _count("mps") else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _DEVICE_TYPES:
        raise UsageError(f"unknown device {name!r}", hint="use auto, cpu, cuda, cuda:N or mps")
    available = _count(device.type)
    if (device.index or 0) >= available:
        raise UsageError(
            f"device {name!r} is not available: this machine has {available} of type {device.type!r}",
            hint="--device auto picks one that exists",
        )
    return device


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def _precision_switches() -> tuple[Any, ...]:
    """Everything that may silently run float32 operations as TF32 or bfloat16."""
    backends: Any = torch.backends
    return (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,  # bfloat16 on CPUs with AMX once matmul precision is "medium"
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    )


@contextmanager
def strict_numerics() -> Iterator[None]:
    """Run the block in IEEE float32, without autocast or gradients, with deterministic cuDNN algorithms.

    Every switch is put back on exit, also after an error.
    """
    with ExitStack() as restore:
        for switch in _precision_switches():
            restore.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = "ieee"
        cudnn: Any = torch.backends.cudnn
        for flag, value in (("deterministic", True), ("benchmark", False)):
            restore.callback(setattr, cudnn, flag, getattr(cudnn, flag))
            setattr(cudnn, flag, value)
        for kind in _DEVICE_TYPES:
            if torch.amp.is_autocast_available(kind):
                restore.enter_context(torch.autocast(kind, enabled=False))
        restore.enter_context(torch.inference_mode())
        yield


@contextmanager
def fast_numerics(device: torch.device) -> Iterator[None]:
    """Inside :func:`strict_numerics`: run the block in bfloat16 autocast, and in TF32 what that leaves out.

    Weights and sums stay float32; inputs and outputs of convolutions and products are rounded to 8 bits of
    mantissa. What :func:`strict_numerics` switched off is off again on exit.
    """
    backends: Any = torch.backends
    with ExitStack() as restore:
        for switch in (backends.cuda.matmul, backends.cudnn.conv):
            restore.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = "tf32"
        restore.enter_context(torch.autocast(device.type, torch.bfloat16))
        yield


def is_bitwise() -> bool:
    """Return whether the same bits are asked for on every run: inside :func:`bitwise_numerics`."""
    return torch.are_deterministic_algorithms_enabled()


@contextmanager
def bitwise_numerics() -> Iterator[None]:
    """As :func:`strict_numerics`, on one thread, numpy's and scipy's too, and by deterministic algorithms.

    The number of threads decides how sums are split, so the last bits depend on it. On CUDA an operation
    that has no deterministic algorithm raises a RuntimeError.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    # cuBLAS is deterministic only with a fixed work space, which it reads when its handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        with strict_numerics(), threadpool_limits(limits=1):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
