"""Which layout a checkpoint has, from the names of its tensors alone: recognised beyond doubt, or refused.

Averaged weights come first: samplers of the field use them, and the numbers that papers state are theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from evalkit.errors import CheckpointError
from evalkit.generators.description import LayoutFacts


@dataclass(frozen=True, slots=True)
class Recognised:
    """The layout, the sub-dictionary that was chosen (empty: the whole file) and the prefix to take off."""

    layout: LayoutFacts
    part: str
    prefix: str


def recognise(
    parts: Mapping[str, Collection[str]],
    layouts: Collection[LayoutFacts],
    *,
    class_names: Mapping[str, str] | None = None,
    weights: str = "ema",
) -> Recognised | None:
    """Return the one layout that fits, or None where none does.

    Args:
        parts: sub-dictionary name (empty: the whole file) -> names of its tensors.
        layouts: what is known.
        class_names: sub-dictionary name -> class of the pickled network, where the file says so.
        weights: ``ema`` takes averaged weights where there are any, ``raw`` the weights as trained.

    Raises:
        CheckpointError: several layouts fit, or ``raw`` weights are asked for and there are none.
    """
    found = [match for layout in layouts if (match := _fit(layout, parts, class_names or {}, weights))]
    if not found:
        return None
    if len(found) > 1:
        raise CheckpointError(
            "several layouts fit these tensor names: " + ", ".join(m.layout.name for m in found),
            hint="name the model with --model",
        )
    return found[0]


def _fit(
    layout: LayoutFacts, parts: Mapping[str, Collection[str]], class_names: Mapping[str, str], weights: str
) -> Recognised | None:
    fitting: dict[str, Recognised] = {}
    for part, names in parts.items():
        if layout.class_names and class_names.get(part) not in layout.class_names:
            continue
        for prefix in ("", *layout.prefixes):
            if prefix and not all(name.startswith(prefix) for name in names):
                continue
            bare = {name.removeprefix(prefix) for name in names}
            if bare.issuperset(layout.fingerprint) and not bare.intersection(layout.absent):
                fitting[part] = Recognised(layout, part, prefix)
                break
    order = (*layout.averaged, *layout.raw, "") if weights == "ema" else (*layout.raw, "")
    if fitting and weights == "raw" and not any(part in fitting for part in order):
        raise CheckpointError(
            f"{layout.name}: there are averaged weights only ({', '.join(fitting)})",
            hint="drop --weights raw",
        )
    return next((fitting[part] for part in order if part in fitting), None)
