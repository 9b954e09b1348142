"""Where the published weights of `inception-v3` are, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evalkit.asset_catalogue import ASSETS, cached_any, fetch_any
from evalkit.extractors.facts import INCEPTION_V3

# Both releases serve the same bytes.
PYTORCH_FID_WEIGHTS: Final = ASSETS["inception-v3"].asset
TORCH_FIDELITY_WEIGHTS: Final = ASSETS["inception-v3-torch-fidelity"].asset
PUBLISHED_SHA256: Final = PYTORCH_FID_WEIGHTS.sha256


def cached_weights() -> Path | None:
    """Return the published weights file if either release's is in the cache (verified), else None.

    Raises:
        InvalidInputError: a file of that name is in the cache with other contents.
    """
    return cached_any(INCEPTION_V3.assets)


def published_weights() -> Path:
    """Return the published weights file: cached from either release, else downloaded from pytorch-fid's.

    Raises:
        OfflineError: neither is cached and there is no network.
        InvalidInputError: a cached file or the download has another hash.
    """
    return fetch_any(INCEPTION_V3.assets)
