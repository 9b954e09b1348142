"""How deeply a torch file's pickle nests tuples, before torch reads it.

Torch's reader hashes whatever a pickle uses as a key, and hashing a tuple of tuples of tuples … overflows the
interpreter's own stack: a file of a few megabytes would end the process.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO

_DEEPEST = 500
_OLD_PICKLES = 5
"""Magic number, version, system, content and names of storages: what an old torch file starts with."""
_GROWING = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ"})


def check_depth(file: Path | IO[bytes]) -> None:
    """Refuse nesting that no checkpoint has; a stream is left where it was.

    Raises:
        ValueError: tuples are nested more than 500 deep, or the pickle is damaged.
    """
    if isinstance(file, Path):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():  # of names that occur twice, both
                    if entry.filename.endswith(".pkl"):
                        _check(archive.open(entry), 1)
            return
        with file.open("rb") as opened:
            _check(opened, _OLD_PICKLES)
        return
    start = file.tell()
    _check(file, _OLD_PICKLES)
    file.seek(start)


def _check(stream: IO[bytes], pickles: int) -> None:
    for _ in range(pickles):
        _check_one(stream)


def _check_one(stream: IO[bytes]) -> None:
    """Follow the stack of one pickle, with depths in place of objects and None in place of marks."""
    stack: list[int | None] = []
    memo: dict[object, int] = {}
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        if name == "MARK":
            stack.append(None)
        elif name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if name == "MEMOIZE" else argument] = (stack[-1] if stack else 0) or 0
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(memo.get(argument, 0))
        else:
            taken = _take(stack, operation)
            depth = 1 + max(taken, default=0) if name in _GROWING else max(taken[:1], default=0)
            if depth > _DEEPEST:
                raise ValueError("its pickle nests tuples without end")
            stack.extend(depth for _ in operation.stack_after)


def _take(stack: list[int | None], operation: pickletools.OpcodeInfo) -> list[int]:
    taken: list[int] = []
    needed = operation.stack_before
    if pickletools.markobject in needed:
        while stack and (depth := stack.pop()) is not None:
            taken.append(depth)
        needed = needed[: needed.index(pickletools.markobject)]
    taken.extend(stack.pop() or 0 for _ in needed if stack)
    return taken[::-1]
