"""From the rows of a suite to its cells: one command each, and a key of everything that can move its numbers.

Accepted trade-offs: the device is not part of the key, so that a suite may continue on another machine; code
behind ``pkg.mod:obj`` cannot be digested, so that ``--fresh`` is needed where it changed.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from evalkit.digests import file_sha256
from evalkit.errors import UsageError
from evalkit.generators import GENERATOR_FACTS
from evalkit.numerics import NUMERICS_VERSION
from evalkit.spec import sha256_of
from evalkit.suites.document import RENAMED
from evalkit.suites.facts import Cell, Flag, Row, Setting, Suite

_KEY = 16
_CHECKPOINT, _IMAGES = "ckpt", "images"


def cells_of(suite: Suite) -> tuple[Cell, ...]:
    """Return every row under each of its protocols with each of its seeds, in the order of the file.

    Raises:
        UsageError: two rows differ in nothing but their names.
    """
    cells: list[Cell] = []
    seen: dict[str, Cell] = {}
    for row in suite.rows:
        unnamed = replace(row, settings=tuple(s for s in row.settings if s.flag.key != RENAMED))
        for protocol, seed in itertools.product(row.protocols, row.seeds):
            cell, numbers = _cell(row, protocol, seed), _key(unnamed, protocol, seed)
            if numbers in seen:
                raise UsageError(
                    f"{row.place}: would measure the same as {seen[numbers].label}",
                    hint="leave one out, or give it other flags",
                )
            seen[numbers] = cell
            cells.append(cell)
    return tuple(cells)


def _cell(row: Row, protocol: str, seed: int) -> Cell:
    settings = {setting.flag.key: setting for setting in row.settings}
    subject: list[str] = ["--model", row.model] if row.model is not None else []
    for key in (_CHECKPOINT, _IMAGES):
        if key in settings:
            subject += _words(settings.pop(key))
    others = [word for setting in settings.values() for word in _words(setting)]
    return Cell(
        row=row.name,
        protocol=protocol,
        seed=seed,
        arguments=(*subject, *others, "--protocol", protocol, "--seed", str(seed)),
        key=_key(row, protocol, seed),
        place=row.place,
        files=tuple(dict.fromkeys(str(path) for setting in row.settings for path in _files(setting))),
    )


def _files(setting: Setting) -> Iterator[Path]:
    for text in setting.values:
        if (found := _file(setting.flag, text)) is not None:
            yield found


def _words(setting: Setting) -> list[str]:
    flag = setting.flag
    if flag.kind == "switch":
        return [flag.option] if setting.written == ("true",) else []
    # "--guidance -1" would be read as two flags.
    parts = [
        [f"{flag.option}={text}"] if text.startswith("-") else [flag.option, text] for text in setting.values
    ]
    return [word for part in parts for word in part]


def _key(row: Row, protocol: str, seed: int) -> str:
    contents = {
        f"{setting.flag.key}={text}": digest
        for setting in row.settings
        for text, value in zip(setting.written, setting.values, strict=False)
        if (digest := _content(setting.flag, value)) is not None
    }
    # A name in tables moves no number; but a record carries it: a cell of another name is another cell.
    return sha256_of(
        {
            "evalkit": importlib.metadata.version("evalkit"),
            "numerics": NUMERICS_VERSION,
            "model": row.model,
            "bundled": _bundled(row),
            "flags": {setting.flag.key: list(setting.written) for setting in row.settings},
            "contents": contents,
            "protocol": protocol,
            "seed": seed,
        }
    )[:_KEY]


def _bundled(row: Row) -> str | None:
    """Return the digest of the checkpoint that ships with evalkit, where it is the one that is used."""
    facts = GENERATOR_FACTS.get(row.model or "")
    given = any(setting.flag.key == _CHECKPOINT for setting in row.settings)
    return _digest(facts.checkpoint) if facts and facts.bundled and not given else None


def _content(flag: Flag, text: str) -> str | None:
    found = _file(flag, text)
    return _digest(found) if found is not None else None


def _file(flag: Flag, text: str) -> Path | None:
    """Return the file or folder that a value names, where there is one."""
    if flag.place == "none":
        return None
    file = text.partition("=")[2] if flag.place == "pair" else text
    return next((path for path in (Path(file), Path(file.partition("@")[0])) if path.exists()), None)


@cache
def _digest(path: Path) -> str:
    """Return the digest of a file's bytes; of a folder that of its names, sizes and times: far quicker."""
    if path.is_file():
        return file_sha256(path)
    listed = sorted(file for file in path.rglob("*") if file.is_file())
    facts = [(file.relative_to(path).as_posix(), file.stat()) for file in listed]
    return sha256_of([[name, stat.st_size, stat.st_mtime_ns] for name, stat in facts])
