"""Frozen dataclasses to and from JSON data, strictly: no unknown, missing or repeated key, no NaN. No torch.

    data = encode(Interval(low=1.0, high=2.0))
    assert decode(loads(dumps(data)), Interval) == Interval(low=1.0, high=2.0)

A field may name its JSON key: ``field(metadata={"key": "perf"})``. Keys come out in field order; those of
free mappings are sorted.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from evalkit.errors import InvalidInputError, UsageError

T = TypeVar("T")


def dumps(data: object) -> str:
    """Return JSON data as indented text with a trailing newline; NaN and infinity are refused."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str) -> Any:
    """Parse JSON text.

    Raises:
        InvalidInputError: not JSON, or it repeats a key, or it holds NaN or infinity.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInputError(f"not valid JSON: {error}", hint="was the file cut short?") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise InvalidInputError(f"not valid JSON: {error}") from error


def encode(value: object, where: str = "") -> Any:
    """Return ``value`` (dataclasses, mappings, sequences, scalars) as plain JSON data.

    Raises:
        InvalidInputError: a number is not finite, or a text cannot be written as UTF-8.
        TypeError: a value has no JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            key: encode(getattr(value, field.name), _join(where, key))
            for key, field in _keys(type(value)).items()
        }
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where}: keys must be text")
        return {_check(key, where): encode(value[key], _join(where, key)) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [encode(item, f"{where}[{position}]") for position, item in enumerate(value)]
    return _check(value, where)


def decode(data: object, kind: type[T], where: str = "") -> T:
    """Rebuild the dataclass ``kind`` from JSON data.

    Raises:
        InvalidInputError: a key is unknown or missing, or a value has the wrong type or is not allowed.
    """
    keys = _keys(kind)
    if not isinstance(data, Mapping):
        _refuse(where, "an object", data)
    for key in data:
        if key not in keys:
            close = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(keys)}"
            raise InvalidInputError(f"unknown key {_join(where, str(key))!r}", hint=hint)
    hints = _hints(kind)
    values = {}
    for key, field in keys.items():
        if key not in data:
            raise InvalidInputError(f"missing key {_join(where, key)!r}", hint="was it written by evalkit?")
        values[field.name] = _decode(data[key], hints[field.name], _join(where, key))
    try:
        return kind(**values)
    except (InvalidInputError, UsageError) as error:
        place = f"{where}: " if where else ""
        raise InvalidInputError(f"{place}{error.message}", hint=error.hint) from error


def _decode(data: object, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        if len(options) == 1:
            return _decode(data, options[0], where)
        return _check(data, where) if isinstance(data, tuple(options)) else _refuse(where, "a scalar", data)
    if origin is Literal:
        return data if data in arguments else _refuse(where, f"one of {', '.join(arguments)}", data)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            _refuse(where, "a list", data)
        return tuple(_decode(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, Mapping):
            _refuse(where, "an object", data)
        return {key: _decode(item, arguments[1], _join(where, key)) for key, item in data.items()}
    if dataclasses.is_dataclass(hint):
        return decode(data, typing.cast(type, hint), where)
    return _decode_scalar(data, hint, where)


def _decode_scalar(data: object, hint: Any, where: str) -> Any:
    if hint is Any:
        return encode(data, where)
    if hint is float:
        accepted = isinstance(data, int | float) and not isinstance(data, bool)
        return _check(data, where) if accepted else _refuse(where, "a number", data)
    if hint is int:
        accepted = isinstance(data, int) and not isinstance(data, bool)
        return data if accepted else _refuse(where, "a whole number", data)
    if hint is str:
        return _check(data, where) if isinstance(data, str) else _refuse(where, "text", data)
    raise TypeError(f"{where}: no JSON form for {hint}")


def _check(value: object, where: str) -> Any:
    """Return a scalar that JSON can hold."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"{where} is {value}, not a finite number", hint="nothing was measured")
        return float(value)  # numpy's float64 is a float that prints differently
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"{where} is not UTF-8 text: {value!a}") from error
        return value
    raise TypeError(f"{where}: {type(value).__name__} has no JSON form")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _keys(kind: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.metadata.get("key", field.name): field for field in dataclasses.fields(kind)}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _refuse(where: str, expected: str, data: object) -> NoReturn:
    raise InvalidInputError(f"{where or 'the document'} must be {expected}, not {str(data)[:80]!r}")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInputError(f"{name} is not JSON", hint="a record holds finite numbers only")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"key {repeated!r} appears twice")
    return unique
