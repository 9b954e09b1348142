"""`dinov2`: the class token of DINOv2, for FD-DINOv2 (Stein et al. 2023, "dgm-eval"; EDM2).

    features = build_extractor("dinov2", preset="dgm")(images, ["cls"])["cls"]  # float32 [n, 1024]

The network is timm's, with Meta's convention at 224 pixels: the 37 x 37 grid of position embeddings is
resampled to 16 x 16 by the bicubic kernel without antialias and with a scale of (16 + 0.1) / 37, as
``interpolate_pos_encoding`` of github.com/facebookresearch/dinov2 does. timm's own resampling antialiases and
has no such offset, which gives other features. A file whose grid is 16 x 16 already is used as it is.

Weights: Meta's published file, or timm's of the same layout without ``mask_token``; a torch state dict or
safetensors. Presets: ``dgm`` (Pillow, uint8), ``edm2`` (torch, float).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.asset_catalogue import ASSETS, fetch_any
from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError
from evalkit.extractors.engine import Engine, device_for, precision_params
from evalkit.extractors.facts import Backend, ExtractorFacts
from evalkit.extractors.forward import run_in_chunks
from evalkit.extractors.resizers import prepared
from evalkit.extractors.weights import check_layout, read_tensors
from evalkit.protocol import Precision
from evalkit.spec import Spec

INPUT_SIZE: Final = 224
_PATCH: Final = 14
_OFFSET: Final = 0.1  # interpolate_offset of the published hub entry points


@final
class DinoV2:
    """The extractor; see the module's docstring.

    Args:
        facts: name, heads and presets.
        architecture: timm's name of the network.
        weights: a local file; None gets Meta's.
        preset: how images are prepared; None is ``dgm``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend, precision: see :class:`~evalkit.extractors.engine.Engine`; torch is the only backend.

    Raises:
        UsageError: no such preset or device.
        UnsafeCheckpointError: the file's pickle asks for anything but tensors and plain containers.
        CheckpointError: the file does not fit the architecture, or holds NaN or infinity.
        OfflineError: the published file must be downloaded and cannot be now.
    """

    def __init__(
        self,
        facts: ExtractorFacts,
        architecture: str,
        *,
        weights: Path | None = None,
        preset: str | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        precision: Precision = "exact",
    ) -> None:
        _, self._preset = facts.preset(preset)
        self._facts = facts
        self.device: Final = device_for(str(device), precision)
        self._precision = precision
        path = weights if weights is not None else fetch_any(facts.assets)
        network = network_without_weights(architecture)
        state = read_tensors(path)
        state.pop("mask_token", None)  # of the training; no feature reads it
        if "pos_embed" in state:
            state["pos_embed"] = resampled_positions(state["pos_embed"], INPUT_SIZE // _PATCH)
        check_layout(state, {k: tuple(t.shape) for k, t in network.state_dict().items()}, label=path.name)
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        self.weights_sha256: Final = file_sha256(path)
        self._network = network.to(self.device).eval()
        self.engine: Final = Engine(
            self._features,
            self._prepared,
            device=self.device,
            backend=backend,
            precision=precision,
            runtimes=(),
        )

    @property
    def published(self) -> bool:
        """Whether the weights are Meta's."""
        return any(self.weights_sha256 == ASSETS[name].asset.sha256 for name in self._facts.assets)

    @property
    def spec(self) -> Spec:
        """Name, resizer, input scaling, position convention and the SHA-256 of the weights file."""
        return Spec.of(
            "extractor",
            self._facts.name,
            sha256=self.weights_sha256,
            positions="bicubic, offset 0.1, no antialias",
            resizer=self._preset.resizer,
            size=INPUT_SIZE,
            **self._preset.scaling,
            **precision_params(self._precision),
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(self._facts.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images,
            heads,
            facts=self._facts,
            device=self.device,
            chunk=self.engine.chunk,
            forward=self.engine,
        )

    def _prepared(self, images: Tensor) -> Tensor:
        return prepared(images, INPUT_SIZE, self._preset)

    def _features(self, pixels: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        return dict.fromkeys(wanted, self._network.forward_features(pixels)[:, 0])


def network_without_weights(architecture: str) -> Any:  # noqa: ANN401 - timm has no types
    """Build a DINOv2 of timm for 224 pixels whose tensors have shapes but no values yet."""
    import timm  # noqa: PLC0415 - heavy import

    with torch.device("meta"):
        return timm.create_model(architecture, pretrained=False, img_size=INPUT_SIZE, num_classes=0)


def resampled_positions(embedding: Tensor, grid: int) -> Tensor:
    """Resample position embeddings to ``grid`` x ``grid`` patches by Meta's convention.

    Args:
        embedding: ``[1, 1 + m * m, d]``, the class token first.
        grid: patches on a side.

    Returns:
        float32 ``[1, 1 + grid * grid, d]``.

    Raises:
        CheckpointError: the embedding is not of a square grid.
    """
    side = math.isqrt(max(embedding.shape[1] - 1, 0)) if embedding.ndim == 3 else 0
    if side < 1 or embedding.shape[:2] != (1, 1 + side * side):
        raise CheckpointError(f"'pos_embed' of shape {tuple(embedding.shape)} is not of a square grid")
    if side == grid:
        return embedding.float()
    patches = embedding[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + _OFFSET) / side
    resampled = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    rows = resampled.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)
    return torch.cat([embedding[:, :1].float(), rows], dim=1)
