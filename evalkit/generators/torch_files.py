"""Torch files read by ``torch.load(weights_only=True)``, whatever the environment says.

What public training scripts put beside their weights is allowed by name and kept as inert data: the
command's arguments (``argparse.Namespace``), numpy numbers, and the configuration object of the GAN zoo.
"""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import IO, Final, final

import torch

from evalkit.errors import CheckpointError, UnsafeCheckpointError
from evalkit.generators.numpy_pickles import STAND_INS
from evalkit.pickle_bounds import check_bounds

_ASKED_FOR = re.compile(
    r"GLOBAL ([\w.]+)|(?:global|function|class) [\"'`<]?(?:class |built-in function )?[\"'`]?([\w.]+)"
    r"|whose module ([\w.]+)"
)
_ONE_AT_A_TIME = threading.Lock()  # torch keeps allowed names in one place for the whole process


@final
class Inert:
    """Stands in for a class whose fields are data; ``fields`` are its attributes."""

    def __init__(self, *_arguments: object) -> None:
        self.fields: dict[str, object] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise pickle.UnpicklingError("an object whose state is no plain dict")
        self.fields = dict(state)


_ALLOWED: Final = (*STAND_INS, (Inert, "argparse.Namespace"), (Inert, "models.utils.config.BaseConfig"))


def load_torch(file: Path | IO[bytes], name: str) -> object:
    """Return what a torch file holds: tensors, plain containers and inert stand-ins.

    Args:
        file: a path, or a binary stream.
        name: how errors call it.

    Raises:
        UnsafeCheckpointError: its pickle asks for anything else; the error names it.
        CheckpointError: it is damaged, or an archive of code (TorchScript, ``torch.export``).
    """
    try:
        check_bounds(file)
        with _ONE_AT_A_TIME, warnings.catch_warnings(), torch.serialization.safe_globals([*_ALLOWED]):
            warnings.simplefilter("ignore")
            content: object = torch.load(file, weights_only=True, map_location="cpu", mmap=False)
    except Exception as error:  # a crafted file can raise anything; all of it is bad input
        raise explain(name, error) from error
    return content


def explain(name: str, error: Exception) -> CheckpointError:
    """Return the error that says what a pickle asked for, or that the file is damaged."""
    text = str(error)
    if "TorchScript" in text:
        return code_archive(name)
    found = _ASKED_FOR.search(text) if isinstance(error, pickle.UnpicklingError) else None
    if found is not None:
        asked = next(group for group in found.groups() if group)
        return unsafe(name, asked)
    # Torch wraps its reason into advice to switch its own protection off.
    reason = (text.partition("WeightsUnpickler error:")[2] or text).strip().partition("\n")[0] or repr(error)
    return CheckpointError(
        f"{name} could not be read as a torch file: {reason[:300]}",
        hint="was it cut short, or saved otherwise?",
    )


def unsafe(name: str, asked: str) -> UnsafeCheckpointError:
    """Return the error of a pickle that asks for the global ``asked``."""
    return UnsafeCheckpointError(
        f"{name} was not loaded: its pickle asks for {asked}, which could run code",
        hint="save it again as torch.save(model.state_dict(), path), or as safetensors",
    )


def code_archive(name: str) -> UnsafeCheckpointError:
    """Return the error of an archive that holds a program, not only weights."""
    return UnsafeCheckpointError(
        f"{name} is a TorchScript or torch.export archive: it holds a program, which evalkit does not run",
        hint="save the weights alone: torch.save(model.state_dict(), path)",
    )
