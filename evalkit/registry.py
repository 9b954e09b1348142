"""One small registry: a decorator, ``pkg.mod:obj`` names, and did-you-mean. No torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from evalkit.errors import UsageError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest of ``known``, or lists them all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"


def import_object(path: str) -> object:
    """Import ``pkg.mod:obj``.

    Raises:
        UsageError: the path is malformed, or the module or the object does not exist.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{path!r} is not of the form pkg.mod:obj")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"cannot import {module_name!r}: {error}", hint="is the package installed in this environment?"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise UsageError(
            f"module {module_name!r} has no {attribute!r}", hint=did_you_mean(attribute, vars(module))
        ) from error


class Registry(Generic[T]):
    """Named things of one kind. ``Registry("metric")`` iterates over names; a miss explains itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers an object under ``name``."""

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise UsageError(f"unknown {self.kind} {name!r}", hint=did_you_mean(name, self._items)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)
