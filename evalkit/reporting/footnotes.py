"""What stands under a table: the legend, and warnings as numbered footnotes, each sentence once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evalkit.record import MetricResult

_FRECHET = {"fid", "fd", "sfid"}
_KERNEL = {"kid", "kd"}
_REGIONS = {"inside", "outside"}
_MEAN, _JACKKNIFE = "mean-t", "jackknife standard error"
_SMALL_SAMPLE = re.compile(r"small[ -]sample|\bfew(er)?\b.*\bimages\b", re.IGNORECASE)


@dataclass(slots=True)
class Footnotes:
    """Sentences and their marks; the same sentence gets the same mark, ``*`` is kept for small samples."""

    marks: dict[str, str] = field(default_factory=dict)

    def add(self, sentences: Iterable[str], *, small_sample: bool = False) -> str:
        """Return the marks of ``sentences``, each after a blank; ``*`` where ``small_sample`` rules them."""
        found = [
            self.marks.setdefault(
                sentence, "*" if small_sample and says_small_sample(sentence) else self._next()
            )
            for sentence in sentences
        ]
        return "".join(f" {mark}" for mark in dict.fromkeys(found))

    def notes(self) -> tuple[tuple[str, str], ...]:
        """Return (mark, sentence), the small-sample rule first."""
        return tuple(sorted(((m, s) for s, m in self.marks.items()), key=lambda pair: pair[0] != "*"))

    def _next(self) -> str:
        return f"[{sum(mark != '*' for mark in self.marks.values()) + 1}]"


def is_frechet(metric: str) -> bool:
    """Whether a printed label (``fid``, ``fd:efficientnet-lite0``) is a Fréchet distance."""
    return metric.partition(":")[0] in _FRECHET


def is_kernel(metric: str) -> bool:
    """Whether a printed label is a kernel distance, which has no bias at small samples."""
    return metric.partition(":")[0] in _KERNEL


def is_region(variant: str) -> bool:
    """Whether a variant is the masked part of an image, which a value must never be shown without."""
    return variant in _REGIONS


def says_small_sample(sentence: str) -> bool:
    """Whether a warning is about too few images."""
    return _SMALL_SAMPLE.search(sentence) is not None


def has_small_sample(result: MetricResult) -> bool:
    """Whether a result is a Fréchet distance of too few images: its kernel twin is then the one to read."""
    return is_frechet(result.metric) and any(map(says_small_sample, result.warnings))


def legend(results: Sequence[MetricResult], *, level: str | None = None) -> str:
    """Return how to read scores in one line; ``level`` names the interval where a table shows one."""
    parts = ["↓ lower is better, ↑ higher is better"]
    barred = [result for result in results if result.se is not None]
    means = list(dict.fromkeys(r.metric for r in barred if r.ci is not None and r.ci.method == _MEAN))
    if means:
        of_means = "standard error of the mean"
        others = any(result.metric not in means for result in barred)
        parts.append(f"± {of_means}" if not others else f"± {_JACKKNIFE} ({', '.join(means)}: {of_means})")
    elif barred:
        parts.append(f"± {_JACKKNIFE}")
    if level and any(result.ci is not None for result in results):
        parts.append(f"[low, high] {level}")
    return "; ".join(parts)
