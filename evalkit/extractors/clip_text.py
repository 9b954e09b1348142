"""Prompts to text features: open_clip's own byte-pair tokenizer, which ships with it and works offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.runtime import strict_numerics

_CHUNK: Final = 64
_MARKS: Final = 2  # a start and an end token around every prompt

Tokenizer = Any  # open_clip.tokenizer.SimpleTokenizer, which has no types


@cache
def tokenizer_of(architecture: str) -> Tokenizer:
    """Return the tokenizer of an architecture of open_clip.

    Raises:
        UsageError: the tokenizer would have to come from the hub.
    """
    import open_clip  # noqa: PLC0415 - heavy import

    text = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    if text.get("hf_tokenizer_name"):
        name = text["hf_tokenizer_name"]
        raise UsageError(
            f"{architecture!r} needs the tokenizer {name!r} of the hub, which is not pinned",
            hint="choose an architecture with CLIP's own tokenizer, such as clip-vit-b-32",
        )
    return open_clip.get_tokenizer(architecture)


def truncated_prompts(prompts: Sequence[str], *, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the positions of prompts with more tokens than the context holds; their ends are not seen."""
    room = tokenizer.context_length - _MARKS
    return tuple(i for i, prompt in enumerate(prompts) if len(tokenizer.encode(prompt)) > room)


def encode_in_chunks(
    prompts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    encode: Callable[[Tensor], Tensor],
    dimensions: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return float32 ``[n, dimensions]`` text features; each different prompt is encoded once.

    Args:
        prompts: n texts, each by itself: no row depends on the others.
        tokenizer: maps texts to int64 ``[n, context]``.
        encode: the text tower.
        dimensions: of its output.
        device: where it runs.
    """
    unique = list(dict.fromkeys(prompts))
    rows = np.empty((len(unique), dimensions), dtype=np.float32)
    with strict_numerics():
        for start in range(0, len(unique), _CHUNK):
            tokens = tokenizer(unique[start : start + _CHUNK]).to(device)
            rows[start : start + _CHUNK] = encode(tokens).float().cpu().numpy()
    position = {prompt: i for i, prompt in enumerate(unique)}
    return rows[[position[prompt] for prompt in prompts]]
