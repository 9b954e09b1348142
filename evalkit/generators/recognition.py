"""Which layout a checkpoint has, from the names of its tensors alone: recognised beyond doubt, or refused.

Averaged weights come first: samplers of the field use them, and the numbers that papers state are theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from evalkit.errors import CheckpointError
from evalkit.generators.description import LayoutFacts

AVERAGED = ("ema", "ema_model", "model_ema", "g_ema", "G_ema", "netG_ema", "avgG", "params_ema")
"""What averaged weights are called in training files, whoever wrote them."""
TRAINED = (
    *("state_dict", "model", "network", "generator", "model_state_dict", "net", "net_model"),
    *("netG", "g", "G", "params"),
)
"""What the weights as trained are called."""
_WRAPPERS = ("module.", "_orig_mod.")
"""Put before every name by DataParallel and by ``torch.compile``."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The layout, the sub-dictionary that was chosen (empty: the whole file) and the prefix to take off."""

    layout: LayoutFacts
    part: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Near:
    """A layout some of whose tell-tale names are there: ``share`` of them, without those ``missing``."""

    layout: LayoutFacts
    share: float
    missing: tuple[str, ...]


def recognise(
    parts: Mapping[str, Collection[str]],
    layouts: Collection[LayoutFacts],
    *,
    class_names: Mapping[str, str] | None = None,
    weights: str = "ema",
    prefer: Collection[str] = (),
) -> Recognised | None:
    """Return the one layout that fits, or None where none does.

    Args:
        parts: sub-dictionary name (empty: the whole file) -> names of its tensors.
        layouts: what is known.
        class_names: sub-dictionary name -> class of the pickled network, where the file says so.
        weights: ``ema`` takes averaged weights where there are any, ``raw`` the weights as trained.
        prefer: names of layouts that win where several fit: those of the model that was named.

    Raises:
        CheckpointError: several layouts fit, several parts do and none is known to be the one, or ``raw``
            weights are asked for and there are none.
    """
    found = [match for layout in layouts if (match := _fit(layout, parts, class_names or {}, weights))]
    if len(found) > 1 and any(match.layout.name in prefer for match in found):
        found = [match for match in found if match.layout.name in prefer]
    if not found:
        return None
    if len(found) > 1:
        raise CheckpointError(
            "several layouts fit these tensor names: " + ", ".join(m.layout.name for m in found),
            hint="name the model with --model",
        )
    return found[0]


def choose_part(available: Collection[str], *, weights: str, layout: LayoutFacts | None = None) -> str | None:
    """Return which of the ``available`` parts to use, or None where there is none.

    Raises:
        CheckpointError: the choice is open, or ``raw`` is asked for and there are averaged weights only.
    """
    averaged = (*(layout.averaged if layout else ()), *AVERAGED)
    trained = (*(layout.raw if layout else ()), "", *TRAINED)
    # A layout may know as trained weights what others call averaged (an EMA dict's online model).
    averaged = tuple(name for name in averaged if layout is None or name not in layout.raw)
    order = (*averaged, *trained) if weights == "ema" else trained
    chosen = next((part for part in order if part in available), None)
    if chosen is not None:
        return chosen
    others = [part for part in available if part not in averaged]
    if len(others) > 1:
        raise CheckpointError(
            f"the file holds several networks ({', '.join(others)}) and none is known to be the one",
            hint="save the state dict you mean alone",
        )
    if available and not others:
        raise CheckpointError(
            f"there are averaged weights only ({', '.join(available)})", hint="drop --weights raw"
        )
    return others[0] if others else None


def nearest_layouts(
    parts: Mapping[str, Collection[str]], layouts: Iterable[LayoutFacts], *, most: int = 3
) -> list[Near]:
    """Return the layouts of whose fingerprint some names are there, the largest share first."""
    found = []
    for layout in layouts:
        names = [_bare(part, layout) for part in parts.values()]
        best = max(names, key=lambda bare: len(bare.intersection(layout.fingerprint)), default=set())
        missing = tuple(name for name in layout.fingerprint if name not in best)
        if layout.fingerprint and len(missing) < len(layout.fingerprint):
            found.append(Near(layout, 1 - len(missing) / len(layout.fingerprint), missing))
    return sorted(found, key=lambda near: (-near.share, near.layout.name))[:most]


def common_prefix(names: Collection[str], prefixes: Iterable[str] = _WRAPPERS) -> str:
    """Return what wrappers have put before every one of ``names``."""
    known = tuple(prefixes)
    prefix = ""
    while names:
        more = next((p for p in known if p and all(name.startswith(prefix + p) for name in names)), "")
        if not more:
            break
        prefix += more
    return prefix


def _fit(
    layout: LayoutFacts, parts: Mapping[str, Collection[str]], class_names: Mapping[str, str], weights: str
) -> Recognised | None:
    if not (layout.fingerprint or layout.class_names):
        return None
    fitting: dict[str, str] = {}
    for part, names in parts.items():
        if layout.class_names and class_names.get(part) not in layout.class_names:
            continue
        for prefix in _prefixes(names, layout):
            bare = {name.removeprefix(prefix) for name in names}
            if bare.issuperset(layout.fingerprint) and not bare.intersection(layout.absent):
                fitting[part] = prefix
                break
    if not fitting:
        return None
    try:
        chosen = choose_part(fitting, weights=weights, layout=layout)
    except CheckpointError as error:
        raise CheckpointError(f"{layout.name}: {error.message}", hint=error.hint) from error
    return None if chosen is None else Recognised(layout, chosen, fitting[chosen])


def _prefixes(names: Collection[str], layout: LayoutFacts) -> list[str]:
    """Prefixes to try, none first: a name of the layout may itself begin like a wrapper."""
    tried = ["", common_prefix(names, _WRAPPERS), common_prefix(names, (*_WRAPPERS, *layout.prefixes))]
    tried += [prefix for prefix in layout.prefixes if all(name.startswith(prefix) for name in names)]
    return list(dict.fromkeys(tried))


def _bare(names: Collection[str], layout: LayoutFacts) -> set[str]:
    prefix = common_prefix(names, (*_WRAPPERS, *layout.prefixes))
    return {name.removeprefix(prefix) for name in names} | set(names)
