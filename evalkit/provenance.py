"""Where a number came from: versions, machine and source revision; never part of a protocol."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from evalkit.spec import Scalar

_RECORDED = ("evalkit", "torch", "numpy", "scipy", "pillow", "diffusers")
_OPTIONAL = ("onnxruntime",)


def environment() -> dict[str, Scalar]:
    """Return versions, platform, threads, accelerator, and the commit where evalkit runs from a checkout."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _RECORDED},
        **{name: version_of(name) for name in _OPTIONAL},
        "commit": source_commit(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_commit() -> str | None:
    """Return the git commit of the checkout that evalkit runs from, or None where it is installed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
