"""What a reference is: moments (and some features) of real images, for each head of one extractor. No torch.

    reference.head("block").mean            # float64 [320]
    reference.check_extractor(extractor.spec)

Accepted trade-offs: ``Reference.sha256`` is what the protocol fingerprint holds. For evalkit's own references
it is the digest of what the statistics were made *from* (images, extractor, count, bank), not of the file:
the same images measured on another machine differ in the last bit of a sum, and must still compare. Labels
are part of what an image source is digested from, so moments by class follow from it too. A file's bytes are
guarded by a digest of its arrays in its header, and by the SHA-256 in INDEX.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError, NotComparableError, NothingMeasuredError
from evalkit.protocol import is_fast
from evalkit.references.heads import Bank, HeadStatistics
from evalkit.registry import did_you_mean
from evalkit.spec import Spec, sha256_of

if TYPE_CHECKING:
    from evalkit.core import Float64Array

TOLERANCE = 1e-6
"""Largest asymmetry relative to the largest entry, and lowest eigenvalue relative to the largest, as in
:mod:`evalkit.numerics`: the rounding of a covariance kept in float32 is about 6e-8."""


_TILE = 128


@dataclass(frozen=True, slots=True)
class Description:
    """What a reference was made from, as the header of its file tells.

    Attributes:
        name: how it is asked for.
        resolution: height and width of the images; None where they are mixed or unknown.
        count: number of images; 0 where unknown.
        images_sha256: digest of the image source; None where unknown.
        extractor: the network that made the features; None for files of other tools.
        class_names: names of the classes, where known.
        created_by: version of evalkit, or the format of a file of another tool.
        command: the command that built it.
    """

    name: str
    title: str
    dataset: str
    split: str | None = None
    resolution: int | None = None
    count: int = 0
    images_sha256: str | None = None
    extractor: Spec | None = None
    class_names: tuple[str, ...] = ()
    created_by: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Statistics of a set of real images; ``sha256`` is its identity in the fingerprint."""

    about: Description
    heads: Mapping[str, HeadStatistics]
    sha256: str
    path: Path | None = None

    @classmethod
    def of(cls, about: Description, heads: Mapping[str, HeadStatistics], *, path: Path | None = None) -> Self:
        """Make a reference whose identity is what it was made from."""
        return cls(about, dict(heads), identity(about, heads), path)

    @property
    def name(self) -> str:
        """How it is asked for."""
        return self.about.name

    @property
    def title(self) -> str:
        """One line for people."""
        return self.about.title

    @property
    def dataset(self) -> str:
        """Data set of the images."""
        return self.about.dataset

    @property
    def split(self) -> str | None:
        """Part of the data set."""
        return self.about.split

    @property
    def resolution(self) -> int | None:
        """Height and width of the images, where all are one square size."""
        return self.about.resolution

    @property
    def count(self) -> int:
        """Number of images; 0 where unknown."""
        return self.about.count

    @property
    def images_sha256(self) -> str | None:
        """Digest of the image source."""
        return self.about.images_sha256

    @property
    def extractor(self) -> Spec | None:
        """The network that made the features; None for files of other tools."""
        return self.about.extractor

    def head(self, name: str, *, dimension: int | None = None) -> HeadStatistics:
        """Return the statistics of head ``name``.

        A file of another tool does not name its heads; there ``dimension`` finds the one that fits.

        Raises:
            NothingMeasuredError: there is no such head.
            InvalidInputError: the head has another dimension.
        """
        found = self.heads.get(name)
        if found is None and self.extractor is None and dimension is not None:
            fitting = [head for head in self.heads.values() if head.dimension == dimension]
            found = fitting[0] if len(fitting) == 1 else None
        if found is None:
            raise NothingMeasuredError(
                f"reference {self.name!r} has no head {name!r}; it has {', '.join(self.heads)}",
                hint=did_you_mean(name, self.heads),
            )
        if dimension is not None and found.dimension != dimension:
            raise InvalidInputError(
                f"head {name!r} of reference {self.name!r} has {found.dimension} dimensions, not {dimension}"
            )
        return found

    def with_held_out(self, other: Reference) -> Self:
        """Return a copy whose heads hold those of ``other``, a reference of held-out images.

        Heads that ``other`` lacks stay without; ``sha256`` stays, as the identity of ``other`` is its own.

        Raises:
            NotComparableError: ``other`` was made with another extractor.
            InvalidInputError: a head has another dimension there, or both were made from the same images.
        """
        if self.extractor is not None:
            other.check_extractor(self.extractor)
        if self.images_sha256 is not None and self.images_sha256 == other.images_sha256:
            raise InvalidInputError(
                f"reference {self.name!r} and the held-out {other.name!r} were made from the same images",
                hint="held-out images are real images that the model was not trained on",
            )
        heads = {
            name: head.with_held_out(other.heads[name]) if name in other.heads else head
            for name, head in self.heads.items()
        }
        return replace(self, heads=heads)

    def with_banks(self, banks: Mapping[str, Bank]) -> Self:
        """Return a copy whose heads named in ``banks`` keep those features; moments stay as they are."""
        heads = {
            name: replace(head, kept=banks[name]) if name in banks else head
            for name, head in self.heads.items()
        }
        return replace(self, heads=heads)

    def with_factors(self) -> Self:
        """Return a copy whose heads hold the factors of their covariances, for many distances to it."""
        from evalkit.references.factor_arrays import factor_of  # noqa: PLC0415 - imports this module

        heads = {
            name: head if head.factor else replace(head, factor=factor_of(head.covariance))
            for name, head in self.heads.items()
        }
        return replace(self, heads=heads)

    def check_extractor(self, spec: Spec) -> None:
        """Check that the reference was made by the extractor in use; files of other tools cannot tell.

        Raises:
            NotComparableError: it was not; names what differs.
        """
        if self.extractor is None and is_fast(spec):
            raise NotComparableError(
                f"reference {self.name!r} of another tool was made in float32, and this run is fast",
                hint="leave out --precision fast, or build a fast reference: evalkit reference build IMAGES "
                f"--name NAME --extractor {spec.name} --precision fast",
            )
        if self.extractor is None or self.extractor == spec:
            return
        raise NotComparableError(
            f"reference {self.name!r} was made with another extractor: {_differences(self.extractor, spec)}",
            hint="use the protocol of the reference, or build it again: "
            f"evalkit reference build IMAGES --name {self.name} --extractor {spec.name}",
        )


def identity(about: Description, heads: Mapping[str, HeadStatistics]) -> str:
    """Return the SHA-256 of what the statistics were made from; see the module's trade-offs.

    How features were kept counts, as it moves kd and precision; which heads there are does not: a reference
    with one head more gives the same scores.
    """
    banks = sorted({(head.kept.dtype, len(head.kept.index)) for head in heads.values() if head.kept})
    extractor = about.extractor.to_json() if about.extractor else None
    return sha256_of(
        {"images": about.images_sha256, "count": about.count, "extractor": extractor, "banks": banks}
    )


def checked_moments(
    mean: NDArray[np.generic], covariance: NDArray[np.generic], *, label: str
) -> tuple[Float64Array, Float64Array]:
    """Return float64 ``mean`` ``[d]`` and ``covariance`` ``[d, d]``, rounding asymmetry averaged away.

    Raises:
        InvalidInputError: wrong shape or dtype, non-finite, not symmetric or not positive semidefinite.
    """
    for part, array in (("mean", mean), ("covariance", covariance)):
        if array.dtype.kind not in "fiu":
            raise InvalidInputError(f"{label}: the {part} is {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            raise InvalidInputError(f"{label}: the {part} holds NaN or infinity")
    shapes = f"mean {list(mean.shape)}, covariance {list(covariance.shape)}"
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise InvalidInputError(f"{label}: wrong dimension, {shapes}", hint="expected [d] and [d, d]")
    wide = covariance.astype(np.float64)
    if not _is_symmetric(wide):
        scale, asymmetry = float(np.abs(wide).max()), float(np.abs(wide - wide.T).max())
        if asymmetry > TOLERANCE * scale:
            raise InvalidInputError(
                f"{label}: the covariance is not symmetric: entries differ by up to {asymmetry:.3g}"
            )
        wide = (wide + wide.T) / 2
    _check_semidefinite(wide, label=label)
    return mean.astype(np.float64), wide


def _is_symmetric(matrix: Float64Array) -> bool:
    # In tiles that stay in the cache, and without a copy. numerics.linalg has the same, but loads scipy.
    return all(
        np.array_equal(matrix[start : start + _TILE, start:], matrix[start:, start : start + _TILE].T)
        for start in range(0, len(matrix), _TILE)
    )


def _check_semidefinite(covariance: Float64Array, *, label: str) -> None:
    trace, squares = float(np.trace(covariance)), float(np.vdot(covariance, covariance))
    if squares == 0:
        return
    # sum(w^2) / sum(w) never exceeds the largest eigenvalue of a positive semidefinite matrix.
    shift = TOLERANCE * squares / trace if trace > 0 else 0.0
    from scipy.linalg import lapack  # noqa: PLC0415 - numpy's Cholesky takes twice as long

    shifted = covariance.copy()
    shifted.flat[:: len(shifted) + 1] += shift
    # The factor exists only where every eigenvalue is above -shift; ten times faster than finding them.
    _, failed = lapack.dpotrf(shifted.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        values = np.linalg.eigvalsh(covariance)
        if values[0] < -TOLERANCE * values[-1]:
            raise InvalidInputError(
                f"{label}: the covariance is not positive semidefinite: it has the eigenvalue {values[0]:.3g}"
            )


def _differences(reference: Spec, used: Spec) -> str:
    found: dict[str, tuple[Any, Any]] = {
        part: (getattr(reference, part), getattr(used, part)) for part in ("name", "sha256")
    }
    theirs, ours = dict(reference.params), dict(used.params)
    found |= {key: (theirs.get(key), ours.get(key)) for key in sorted(theirs.keys() | ours.keys())}
    differing = {part: pair for part, pair in found.items() if pair[0] != pair[1]}
    return (
        "; ".join(f"{part} {_short(a)}, in use {_short(b)}" for part, (a, b) in differing.items()) or "kind"
    )


def _short(value: object) -> str:
    text = repr(value)
    return f"{text[:17]}…'" if isinstance(value, str) and len(value) > 24 else text
