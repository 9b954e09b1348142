"""What only a process that computes shards can see, beside what it notes in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from evalkit.core import Extractor, Generator
from evalkit.throughput import WarmUp, peak_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen while shards were computed.

    Attributes:
        warm_up: of the generator; None where images are read, or by a part that is not the first.
        nfe: evaluations of the network for one image, where they are counted.
        peak_memory_bytes: most memory in use since the warm-up.
        backends: what ran the networks that measure, each once; empty where no shard was computed.
        warnings: what the images met: pictures that a safety checker blacked out, for example.
    """

    warm_up: WarmUp | None
    nfe: int | None
    peak_memory_bytes: int
    backends: tuple[str, ...]
    warnings: tuple[str, ...]


def observe(
    generator: Generator | None, extractors: Iterable[Extractor], *, device: torch.device, warm: WarmUp | None
) -> Observed:
    """Return what was seen in this process so far."""
    engines = [engine for one in extractors if (engine := getattr(one, "engine", None))]
    met: tuple[str, ...] = getattr(generator, "warnings", ())
    return Observed(
        warm_up=warm,
        nfe=round(getattr(generator, "evaluations_per_image", None) or 0) or None,
        peak_memory_bytes=peak_memory(device),
        backends=tuple(dict.fromkeys(engine.backend for engine in engines if engine.backend)),
        warnings=(*met, *(text for engine in engines for text in engine.warnings)),
    )


def observed_by_all(parts: Iterable[Observed]) -> Observed:
    """Return what the parts of a run saw together; of facts that each has, those of the first."""
    seen = list(parts)
    return Observed(
        warm_up=next((part.warm_up for part in seen if part.warm_up is not None), None),
        nfe=next((part.nfe for part in seen if part.nfe is not None), None),
        peak_memory_bytes=max(part.peak_memory_bytes for part in seen),
        backends=tuple(dict.fromkeys(name for part in seen for name in part.backends)),
        warnings=tuple(dict.fromkeys(text for part in seen for text in part.warnings)),
    )
