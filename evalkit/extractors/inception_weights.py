"""Where the published weights of `inception-v3` are, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evalkit.assets import Asset, cached, fetch

# Both releases serve the same bytes. Their file names carry the first eight digits; the other digits and
# the size are as independent projects pinned them (for example genforce and MMGeneration forks).
PUBLISHED_SHA256: Final = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_PUBLISHED_SIZE: Final = 95_628_359
PYTORCH_FID_WEIGHTS: Final = Asset(
    name="InceptionV3 2015-12-05 (pytorch-fid)",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    sha256=PUBLISHED_SHA256,
    filename="pt_inception-2015-12-05-6726825d.pth",
    size=_PUBLISHED_SIZE,
)
TORCH_FIDELITY_WEIGHTS: Final = Asset(
    name="InceptionV3 2015-12-05 (torch-fidelity)",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256=PUBLISHED_SHA256,
    filename="weights-inception-2015-12-05-6726825d.pth",
    size=_PUBLISHED_SIZE,
)


def cached_weights() -> Path | None:
    """Return the published weights file if either release's is in the cache (verified), else None.

    Raises:
        InvalidInputError: a file of that name is in the cache with other contents.
    """
    return cached(PYTORCH_FID_WEIGHTS) or cached(TORCH_FIDELITY_WEIGHTS)


def published_weights() -> Path:
    """Return the published weights file: cached from either release, else downloaded from pytorch-fid's.

    Raises:
        OfflineError: neither is cached and there is no network.
        InvalidInputError: a cached file or the download has another hash.
    """
    return cached_weights() or fetch(PYTORCH_FID_WEIGHTS)
