"""`inception-v3`: the features that FID, KID, Inception Score, precision/recall and sFID were published with.

    extractor = InceptionV3(preset="fid", device="cuda")
    features = extractor(images, ["2048", "logits_unbiased"])

Presets reproduce how a published tool prepares images: ``fid`` (TensorFlow 1, torch-fidelity), ``adm``,
``pytorch-fid``, ``clean-fid``. Weights are the published conversion of the 2015 TensorFlow graph, or any
file of the same layout, whose scores then carry another digest and do not compare with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor

from evalkit.digests import file_sha256
from evalkit.extractors.engine import Engine, device_for, precision_params
from evalkit.extractors.facts import INCEPTION_V3, Backend
from evalkit.extractors.forward import run_in_chunks
from evalkit.extractors.inception_network import INPUT_SIZE, InceptionNetwork, expected_layout
from evalkit.extractors.inception_weights import PUBLISHED_SHA256, published_weights
from evalkit.extractors.resizers import RESIZERS
from evalkit.extractors.weights import check_layout, read_state_dict
from evalkit.protocol import Precision
from evalkit.spec import Spec

_TOLERANCE: Final = 2e-5  # of another runtime; 3e-6 in the head "64" was seen
_COUNTER: Final = ".num_batches_tracked"


@final
class InceptionV3:
    """The extractor; see the module's docstring.

    Args:
        weights: a torch checkpoint of the published layout; None gets the published file.
        preset: how images are prepared; None is ``fid``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend, precision: see :class:`~evalkit.extractors.engine.Engine`.

    Raises:
        UsageError: no such preset or device.
        UnsafeCheckpointError: the file's pickle asks for anything but tensors and plain containers.
        CheckpointError: it does not have the layout, or holds NaN or infinity.
        OfflineError: the published file must be downloaded and cannot be now.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        preset: str | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        precision: Precision = "exact",
    ) -> None:
        _, self._preset = INCEPTION_V3.preset(preset)
        self._resize = RESIZERS[self._preset.resizer]
        self.device: Final = device_for(str(device), precision)
        self._precision = precision
        path = published_weights() if weights is None else weights
        # Files saved by old and new releases of torch differ in these counters; nothing reads them.
        state = {name: t for name, t in read_state_dict(path).items() if not name.endswith(_COUNTER)}
        check_layout(state, expected_layout(), label=path.name)
        self.weights_sha256: Final = file_sha256(path)
        self.engine: Final = Engine(
            InceptionNetwork(state, self.device), self._prepared, device=self.device, backend=backend,
            precision=precision, tolerance=_TOLERANCE,
        )  # fmt: skip

    @property
    def published(self) -> bool:
        """Whether the weights are the published ones."""
        return self.weights_sha256 == PUBLISHED_SHA256

    @property
    def spec(self) -> Spec:
        """Name, resizer, input scaling and the SHA-256 of the weights file."""
        return Spec.of(
            "extractor",
            INCEPTION_V3.name,
            sha256=self.weights_sha256,
            resizer=self._preset.resizer,
            offset=self._preset.offset,
            divisor=self._preset.divisor,
            size=INPUT_SIZE,
            **precision_params(self._precision),
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(INCEPTION_V3.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images,
            heads,
            facts=INCEPTION_V3,
            device=self.device,
            chunk=self.engine.chunk,
            forward=self.engine,
        )

    def _prepared(self, images: Tensor) -> Tensor:
        return (self._resize(images, INPUT_SIZE) - self._preset.offset) / self._preset.divisor
