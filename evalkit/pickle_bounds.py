"""Bounds that the pickle in a torch file must keep, looked at before torch reads it.

Torch's reader makes nothing but tensors and plain containers, yet a file of a few kilobytes can have it hash
a tuple of tuples of tuples … (which overflows the interpreter's own stack and ends the process), copy one
list a million times, step through operations for hours, or search its own message about a name of 16 000
characters for a minute. Here the pickle's operations are followed with
the shapes of its objects in place of the objects themselves.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

LEGACY_MAGIC: Final = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
"""How an old torch file begins."""
_OLD_PICKLES = 5
"""Magic number, version, system, content and names of storages: what an old torch file starts with."""
_MAX_OPERATIONS = 2_000_000
_DEEPEST = 500
_COPIED = 2**22
_LONGEST_NAME = 1000
_TEXT_UNIT = 16
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_CALLS = frozenset({"REDUCE", "NEWOBJ"})
_APPENDED = frozenset({"APPEND", "APPENDS"})
_KEYED = frozenset({"SETITEM", "SETITEMS", "ADDITEMS"})
_NAMES = frozenset({"GLOBAL", "INST"})
_NEW = frozenset({"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"})


class UnboundedPickleError(ValueError):
    """No torch file that this is; what torch would do with it has no bound."""


class _Shape:
    """An object of the pickle: how deeply tuples nest in it, what it holds, and how long a text it is."""

    __slots__ = ("depth", "items", "units")

    def __init__(self, depth: int = 0, items: Iterable[_Shape] = (), units: int = 1) -> None:
        self.depth = depth
        self.items = list(items)
        self.units = units


_LEAF: Final = _Shape()


def check_bounds(file: Path | IO[bytes]) -> None:
    """Refuse what no checkpoint does; a stream (of the old kind) is left where it was.

    Raises:
        UnboundedPickleError: tuples are nested more than 500 deep, calls and keys copy far more than the
            pickle holds, there are more than two million operations, a name is absurdly long, or it does not
            begin like a torch file.
        ValueError: the pickle is damaged.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            if opened.read(4) == b"PK\x03\x04":  # what torch goes by
                _check_zip(file)
            else:
                opened.seek(0)
                _check_old(opened, file.stat().st_size)
        return
    start = file.tell()
    _check_old(file, file.seek(0, 2) - start, start)
    file.seek(start)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():  # of names that occur twice, both
            # Torch's reader knows neither case nor the renaming fields of a zip.
            if ".pkl" in entry.orig_filename.lower():
                with archive.open(entry) as stream:
                    _Follower(entry.file_size).follow(stream)


def _check_old(stream: IO[bytes], size: int, start: int = 0) -> None:
    stream.seek(start)
    if stream.read(len(LEGACY_MAGIC)) != LEGACY_MAGIC:
        raise UnboundedPickleError("it does not begin like a torch file")
    stream.seek(start)
    follower = _Follower(size)
    for _ in range(_OLD_PICKLES):
        follower.follow(stream)


class _Follower:
    """Steps through pickles of together ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.operations = _MAX_OPERATIONS
        self.copied = _COPIED + size // 8

    def follow(self, stream: IO[bytes]) -> None:
        """Step through one pickle; marks are None on the stack."""
        stack: list[_Shape | None] = []
        memo: dict[object, _Shape] = {}
        for operation, argument, _ in pickletools.genops(stream):
            self.operations -= 1
            if self.operations < 0:
                raise UnboundedPickleError("its pickle has more operations than any network's")
            name = operation.name
            if name == "MARK":
                stack.append(None)
            elif name in _PUTS:
                memo[len(memo) if name == "MEMOIZE" else argument] = (stack[-1] if stack else None) or _LEAF
            elif name in _GETS:
                stack.append(memo.get(argument, _LEAF))
            elif name in _NEW:
                stack.append(_Shape())
            elif isinstance(argument, str | bytes):
                _check_name(name, argument)
                stack.append(_Shape(units=1 + len(argument) // _TEXT_UNIT))
            else:
                made = self._made(name, _take(stack, operation))
                stack.extend(made for _ in operation.stack_after)

    def _made(self, name: str, taken: list[_Shape]) -> _Shape:
        """Return what an operation makes of the objects that it takes from the stack, the lowest first."""
        if name in _TUPLES or name in _CALLS:
            depth = 1 + max((item.depth for item in taken), default=0)
            if depth > _DEEPEST:
                raise UnboundedPickleError("its pickle nests tuples without end")
            if name in _CALLS:
                self._spend(taken)
            return _Shape(depth, taken)
        if not taken:
            return _LEAF
        whole, *items = taken
        if name in _KEYED:
            self._spend(items if name == "ADDITEMS" else items[::2])
        elif name == "BUILD":
            self._spend(items)
        if whole is not _LEAF and (name in _APPENDED or name in _KEYED):
            whole.items.extend(items)
        return whole

    def _spend(self, objects: list[_Shape]) -> None:
        """Count all that can be reached from ``objects``, as often as it is reached."""
        waiting = list(objects)
        while waiting:
            shape = waiting.pop()
            self.copied -= shape.units + len(shape.items)
            if self.copied < 0:
                raise UnboundedPickleError("its pickle copies or hashes far more than it holds")
            waiting.extend(shape.items)


def _check_name(operation: str, name: str | bytes) -> None:
    if operation in _NAMES and len(name) > _LONGEST_NAME:
        raise UnboundedPickleError(f"its pickle asks for a name of {len(name)} characters")
    # It makes as many bytes as a single number says; torch.save writes no such call.
    if operation == "GLOBAL" and str(name).endswith(" bytearray"):
        raise UnboundedPickleError("its pickle makes a bytearray")


def _take(stack: list[_Shape | None], operation: pickletools.OpcodeInfo) -> list[_Shape]:
    taken: list[_Shape] = []
    needed = operation.stack_before
    if pickletools.markobject in needed:
        while stack and (shape := stack.pop()) is not None:
            taken.append(shape)
        needed = needed[: needed.index(pickletools.markobject)]
    taken.extend(stack.pop() or _LEAF for _ in needed if stack)
    return taken[::-1]
