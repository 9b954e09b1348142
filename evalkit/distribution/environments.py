"""Where the parts of a run were computed, as the one environment of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalkit.spec import Scalar

Environment = Mapping[str, Scalar]
MERGED_WITH = "merged_with"


def common_environment(
    parts: Sequence[Environment], here: Environment
) -> tuple[Environment, tuple[str, ...]]:
    """Return the environment that the features of a run come from, and a warning where it is not one.

    Values that differ are all named, in the order of the parts. What differs ``here``, where the scores are
    computed, is told under ``merged_with``.
    """
    found = {name: _distinct(parts, name) for name in dict.fromkeys(name for part in parts for name in part)}
    common: dict[str, Scalar] = {
        name: values[0] if len(values) == 1 else ", ".join(map(_shown, values))
        for name, values in found.items()
    }
    differing = [
        f"{name} is {' and '.join(map(_shown, values))}" for name, values in found.items() if len(values) > 1
    ]
    ours = [f"{name} {_shown(value)}" for name, value in here.items() if value != common.get(name)]
    if ours:
        common[MERGED_WITH] = ", ".join(ours)
    if not differing:
        return common, ()
    return common, (f"the parts were computed in different environments: {'; '.join(differing)}",)


def _distinct(parts: Sequence[Environment], name: str) -> list[Scalar]:
    return list(dict.fromkeys(part.get(name) for part in parts))


def _shown(value: Scalar) -> str:
    return "none" if value is None else str(value)
