"""Frozen dataclasses to and from JSON data, strictly: no unknown, missing or repeated key, no NaN. No torch.

    data = encode(Interval(low=1.0, high=2.0))
    assert decode(loads(dumps(data)), Interval) == Interval(low=1.0, high=2.0)

A field may name its JSON key: ``field(metadata={"key": "perf"})``, or be left out: ``{"key": None}``. Keys
come out in field order; those of free mappings are sorted.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

from evalkit.errors import InvalidInputError, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def dumps(data: object) -> str:
    """Return JSON data as indented text with a trailing newline; NaN and infinity are refused."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str) -> object:
    """Parse JSON text.

    Raises:
        InvalidInputError: not JSON, or it repeats a key, or it holds NaN or infinity.
    """
    try:
        parsed: object = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise InvalidInputError(f"not valid JSON: {error}", hint="was the file cut short?") from error
    return parsed


def encode_object(value: object, where: str = "") -> dict[str, Any]:
    """Return a dataclass or mapping as plain JSON data; see :func:`encode`."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where}: keys must be text")
        return {_text(key): encode(value[key], _join(where, key)) for key in sorted(value)}
    keys = _keys(cast(Hashable, type(value)))
    return {key: encode(getattr(value, field.name), _join(where, key)) for key, field in keys.items()}


def encode(value: object, where: str = "") -> object:
    """Return ``value`` (dataclasses, mappings, sequences, scalars, paths) as plain JSON data.

    Raises:
        InvalidInputError: a number is not finite.
        TypeError: a value has no JSON form.
    """
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        return encode_object(value, where)
    if isinstance(value, list | tuple):
        return [encode(item, f"{where}[{position}]") for position, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, where)
    if isinstance(value, str | PurePath):
        return _text(str(value))
    raise TypeError(f"{where}: {type(value).__name__} has no JSON form")


def decode(data: object, kind: type[T], where: str = "") -> T:
    """Rebuild the dataclass ``kind`` from JSON data.

    Raises:
        InvalidInputError: a key is unknown or missing, or a value has the wrong type or is not allowed.
    """
    hashable = cast(Hashable, kind)  # typeshed does not say that every class is
    keys, hints = _keys(hashable), _hints(hashable)
    found = _object(data, where)
    for key in found:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(keys)}"
            raise InvalidInputError(f"unknown key {_join(where, key)!r}", hint=hint)
    values = {}
    for key, field in keys.items():
        if key not in found:
            raise InvalidInputError(f"missing key {_join(where, key)!r}", hint="was it written by evalkit?")
        values[field.name] = _decode(found[key], hints[field.name], _join(where, key))
    try:
        return kind(**values)
    except (InvalidInputError, UsageError) as error:
        place = f"{where}: " if where else ""
        raise InvalidInputError(f"{place}{error.message}", hint=error.hint) from error


def _decode(data: object, hint: object, where: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return _decode_union(data, arguments, where)
    if origin is Literal:
        return data if data in arguments else _refuse(where, f"one of {', '.join(arguments)}", data)
    if origin is tuple:
        items = data if isinstance(data, list) else _refuse(where, "a list", data)
        return tuple(_decode(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(items))
    if origin is Mapping:
        entries = _object(data, where).items()
        return {_text(key): _decode(item, arguments[1], _join(where, key)) for key, item in entries}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return decode(data, hint, where)
    return encode(data, where) if hint is Any else _decode_scalar(data, hint, where)


def _decode_union(data: object, arguments: tuple[object, ...], where: str) -> object:
    if data is None and type(None) in arguments:
        return None
    options = [option for option in arguments if option is not type(None)]
    if len(options) == 1:
        return _decode(data, options[0], where)
    scalar = isinstance(data, str | int | float)  # the only union of several types is evalkit.spec.Scalar
    return encode(data, where) if scalar else _refuse(where, "text, a number, true, false or null", data)


def _decode_scalar(data: object, hint: object, where: str) -> object:
    if hint is str or hint is Path:
        text = _text(data) if isinstance(data, str) else _refuse(where, "text", data)
        return Path(text) if hint is Path else text
    if hint is bool:
        return data if isinstance(data, bool) else _refuse(where, "true or false", data)
    if isinstance(data, bool) or not isinstance(data, int | float):
        return _refuse(where, "a number", data)
    if hint is float:
        return _number(data, where)
    return data if isinstance(data, int) else _refuse(where, "a whole number", data)


def _number(value: float, where: str) -> float:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        finite = False
    if not finite:
        raise InvalidInputError(
            f"{where} is {str(value)[:40]}, not a finite number", hint="nothing was measured"
        )
    # numpy's float64 is a float that prints differently.
    return float(value) if isinstance(value, float) else value


def _text(value: str) -> str:
    """Return text that UTF-8 can hold: a file name may carry bytes that are not."""
    return value.encode("utf-8", "backslashreplace").decode()


def _object(data: object, where: str) -> dict[str, object]:
    return data if isinstance(data, dict) else _refuse(where, "an object", data)


@functools.cache
def _hints(kind: Hashable) -> dict[str, object]:
    return typing.get_type_hints(kind)


@functools.cache
def _keys(kind: Hashable) -> dict[str, dataclasses.Field[Any]]:
    found = dataclasses.fields(cast("type[DataclassInstance]", kind))
    named = {field.metadata.get("key", field.name): field for field in found}
    return {key: field for key, field in named.items() if key is not None}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _refuse(where: str, expected: str, data: object) -> NoReturn:
    raise InvalidInputError(f"{where or 'the document'} must be {expected}, not {str(data)[:80]!r}")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInputError(f"{name} is not JSON", hint="a record holds finite numbers only")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"key {repeated!r} appears twice")
    return unique
