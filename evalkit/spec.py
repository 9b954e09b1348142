"""Plain frozen facts: what a thing is (:class:`Spec`) and what was measured (:class:`Score`). No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["lower", "higher"]
Scalar = str | int | float | bool | None


def canonical_json(value: object) -> str:
    """Return ``value`` as JSON with sorted keys, no blanks, and no NaN or infinity.

    Raises:
        ValueError: a float is not finite.
        TypeError: a value is not JSON data.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: object) -> str:
    """Return the hexadecimal SHA-256 of ``value`` as canonical JSON (UTF-8)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Spec:
    """How to rebuild a thing: its kind, registered name, parameters, and the digest of its data.

    Frozen and hashable; ``params`` is a sorted tuple of pairs (use :meth:`of` to build one).
    """

    kind: str
    name: str
    params: tuple[tuple[str, Scalar], ...] = ()
    sha256: str | None = None

    @classmethod
    def of(cls, kind: str, name: str, *, sha256: str | None = None, **params: Scalar) -> Spec:
        """Build a spec from keyword parameters."""
        return cls(kind=kind, name=name, params=tuple(sorted(params.items())), sha256=sha256)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return {"kind": self.kind, "name": self.name, "params": dict(self.params), "sha256": self.sha256}

    def digest(self) -> str:
        """Return the SHA-256 that identifies this spec."""
        return sha256_of(self.to_json())


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval ``[low, high]`` at ``level``, and the method that made it."""

    low: float
    high: float
    level: float = 0.95
    method: str = "jackknife-t"


@dataclass(frozen=True, slots=True)
class Score:
    """One measured quantity with its error bar.

    Attributes:
        value: the estimate at this sample size, as the metric's protocol defines it.
        better: which direction is an improvement.
        n: number of generated images; ``n_reference``: number of reference images (0 where none is used).
        stderr: delete-one-block jackknife standard error, or None where fewer than two blocks exist.
        ci: 95 % interval of ``value``, Student t on B - 1 degrees of freedom.
        bias_corrected: jackknife bias-corrected value (N to infinity) where its conditions hold.
        blocks: leave-one-block-out values, in block order; ``block_sizes`` the images in each block.
        warnings: sentences that a reader must see beside the number.
        details: further finite numbers of the protocol (for example the mean over splits).
    """

    value: float
    better: Better
    n: int
    n_reference: int = 0
    stderr: float | None = None
    ci: Interval | None = None
    bias_corrected: float | None = None
    blocks: tuple[float, ...] = ()
    block_sizes: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, not {self.value}")
