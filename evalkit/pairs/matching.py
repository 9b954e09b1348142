"""Which generated image belongs to which reference image: by name, or by index. Pure functions.

Names match by their relative path without the extension, byte for byte; the extension's case never matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.sources.naming import name_bytes

Match = Literal["auto", "name", "index"]
_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Positions of the pairs on both sides.

    Attributes:
        rule: ``name``, ``index``, ``manifest`` or ``reconstruction``.
        generated: int64 ``[n]`` positions; ``reference`` those of their counterparts.
        masks: int64 ``[n]`` positions of their masks, or None.
        unmatched: images left out for want of a counterpart: of the generated side, of the reference side.
    """

    rule: str
    generated: IndexArray
    reference: IndexArray
    masks: IndexArray | None = None
    unmatched: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.generated)

    def take(self, chosen: IndexArray) -> Pairing:
        """Return the pairs at positions ``chosen``."""
        masks = None if self.masks is None else self.masks[chosen]
        return replace(self, generated=self.generated[chosen], reference=self.reference[chosen], masks=masks)


def match_by_index(generated: int, reference: int) -> Pairing:
    """Pair image i with image i.

    Raises:
        InvalidInputError: the counts differ.
    """
    if generated != reference:
        raise InvalidInputError(
            f"{generated} generated images and {reference} reference images cannot be paired by index",
            hint="give as many of one as of the other, or name them alike and use --match name",
        )
    positions = np.arange(generated, dtype=np.int64)
    return Pairing("index", positions, positions)


def match_by_name(
    generated: Sequence[str], reference: Sequence[str], *, allow_unmatched: bool = False
) -> Pairing:
    """Pair images whose relative paths without extension are equal, in the byte order of the reference.

    Raises:
        InvalidInputError: two images of one side differ in nothing but the extension, or an image has no
            counterpart (unless ``allow_unmatched``).
        NothingMeasuredError: no name occurs on both sides.
    """
    ours, theirs = _by_stem(generated, side="generated"), _by_stem(reference, side="reference")
    shared = [stem for stem in theirs if stem in ours]
    lonely = ([n for n in ours if n not in theirs], [n for n in theirs if n not in ours])
    if any(lonely) and not allow_unmatched:
        raise InvalidInputError(
            _one_sided([generated[ours[s]] for s in lonely[0]], [reference[theirs[s]] for s in lonely[1]]),
            hint="--match index pairs them by order; --allow-unmatched leaves these out and records how many",
        )
    if not shared:
        raise NothingMeasuredError(
            f"no name occurs on both sides (generated: {generated[0]!r}, …; reference: {reference[0]!r}, …)",
            hint="--match index pairs them by order",
        )
    return Pairing(
        "name",
        np.asarray([ours[stem] for stem in shared], dtype=np.int64),
        np.asarray([theirs[stem] for stem in shared], dtype=np.int64),
        unmatched=(len(lonely[0]), len(lonely[1])),
    )


def match_masks(
    pairing: Pairing, generated: Sequence[str], masks: Sequence[str], *, allow_unmatched: bool = False
) -> Pairing:
    """Give every pair the mask that is named like its generated image.

    Raises:
        InvalidInputError: a pair has no mask, or a mask no pair (unless ``allow_unmatched``).
    """
    found = _by_stem(masks, side="mask")
    wanted = [generated[position] for position in pairing.generated]
    if without := [name for name in wanted if stem(name) not in found]:
        raise InvalidInputError(
            "\n".join([f"{len(without)} pairs have no mask of the same name:", *_listed(without)]),
            hint="name the masks like the generated images, or list them in a --manifest",
        )
    used = {stem(name) for name in wanted}
    spare = [masks[position] for key, position in found.items() if key not in used]
    if spare and not allow_unmatched:
        raise InvalidInputError(
            "\n".join([f"{len(spare)} masks belong to no pair:", *_listed(spare)]),
            hint="leave them out, or add --allow-unmatched",
        )
    positions = np.asarray([found[stem(name)] for name in wanted], dtype=np.int64)
    return replace(pairing, masks=positions)


def choose_rule(match: Match, *, generated_named: bool, reference_named: bool) -> Literal["name", "index"]:
    """Return the rule of ``auto``: names where both sides have them.

    Raises:
        UsageError: names were asked for where a side has none.
    """
    named = generated_named and reference_named
    if match == "name" and not named:
        side = "reference" if generated_named else "generated"
        raise UsageError(
            f"the {side} images have no names of their own", hint="--match index pairs them by order"
        )
    if match == "auto":
        return "name" if named else "index"
    return match


def stem(name: str) -> str:
    """Return a relative path without its extension."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.rpartition(".")[0]


def _by_stem(names: Sequence[str], *, side: str) -> dict[str, int]:
    found: dict[str, int] = {}
    clashes: list[str] = []
    for position in sorted(range(len(names)), key=lambda p: name_bytes(names[p])):
        key = stem(names[position])
        if key in found:
            clashes.append(f"{names[found[key]]!r} and {names[position]!r}")
        else:
            found[key] = position
    if clashes:
        raise InvalidInputError(
            "\n".join([f"{side} images that differ only in their extension:", *_listed(clashes)]),
            hint="leave one of each, or pair by order: --match index",
        )
    return found


def _one_sided(generated: Sequence[str], reference: Sequence[str]) -> str:
    lines = []
    for names, side, other in (
        (generated, "generated", "reference"), (reference, "reference", "generated"),
    ):  # fmt: skip
        if names:
            plural = "s have" if len(names) > 1 else " has"
            lines.append(f"{len(names)} {side} image{plural} no {other} of the same name:")
            lines += _listed([repr(name) for name in names])
    return "\n".join(lines)


def _listed(texts: Sequence[str]) -> list[str]:
    more = [f"  and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [*(f"  {text}" for text in texts[:_SHOWN]), *more]
