"""The published heads of LPIPS v0.1: one non-negative weight for each channel of each stage.

They ship in the wheel of the package lpips, which is never imported: only its three small files are read.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from torch import Tensor

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError
from evalkit.extractors.weights import check_layout, read_state_dict

# Of the files in lpips 0.1.4, weights/v0.1.
HEADS_SHA256: Final = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
}
_CHANNELS: Final = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}


def published_heads(variant: str) -> tuple[Tensor, ...]:
    """Return float32 ``[c]`` weights for each stage of ``alex``, ``vgg`` or ``squeeze``.

    Raises:
        CheckpointError: the package lpips is not installed, or its file is another one.
    """
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise CheckpointError("the package lpips, which ships the LPIPS heads, is not installed")
    path = Path(spec.origin).parent / "weights" / "v0.1" / f"{variant}.pth"
    if not path.is_file() or file_sha256(path) != HEADS_SHA256[variant]:
        raise CheckpointError(
            f"{path} is not the published file of LPIPS v0.1 heads", hint="install lpips 0.1.4 again"
        )
    state = read_state_dict(path)
    keys = {f"lin{stage}.model.1.weight": (1, c, 1, 1) for stage, c in enumerate(_CHANNELS[variant])}
    check_layout(state, keys, label=path.name)
    return tuple(state[key].reshape(-1) for key in keys)
