"""A suite's file: TOML with ``[defaults]``, ``protocols``, ``seeds`` and a ``[[model]]`` for each row.

    name = "mine"
    protocols = ["embedded"]
    seeds = [0, 1, 2]

    [defaults]
    num_samples = 2048

    [[model]]
    name = "ddpm"
    steps = 50
    as = "ddpm-50"

    [[model]]
    images = "samples/theirs.zip"
    seeds = [0]

Every flag of ``evalkit score`` is a key: ``--num-samples`` is ``num_samples``. Nothing is ignored: an unknown
key, a value that cannot be one, or two rows of one name are errors that say where they stand. No torch.
"""

from __future__ import annotations

import importlib.resources
import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from evalkit.errors import UsageError
from evalkit.protocol import PROTOCOLS
from evalkit.record import check_identifier
from evalkit.registry import did_you_mean
from evalkit.suites.facts import Flag, Row, Setting, Suite

_TOP = ("name", "title", "defaults", "protocols", "seeds", "model")
_LISTS = ("protocols", "seeds")
RENAMED = "as"
"""Key of the name that a row has in tables."""
_SUBJECT = ("name", RENAMED)
# What the file says in another place, or what one run of the whole suite has.
_ELSEWHERE = {
    "protocol": 'give them as protocols = ["embedded"]',
    "seed": "give them as seeds = [0, 1, 2]",
    "model": 'a row is [[model]] with name = "ddpm"',
    "device": "--device of `evalkit suite`",
    "out": "--out of `evalkit suite`",
    "fresh": "--fresh of `evalkit suite`",
    "format": "--format of `evalkit suite`",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AUTO = "auto"


def bundled_suites() -> dict[str, Path]:
    """Return the suites that ship with evalkit, by name."""
    folder = Path(str(importlib.resources.files("evalkit.suites")))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find_suite(text: str) -> Path:
    """Return the file that ``text`` names: a path, or a bundled suite.

    Raises:
        UsageError: there is neither.
    """
    path, bundled = Path(text), bundled_suites()
    if text in bundled and not path.is_file():
        return bundled[text]
    if path.is_file():
        return path
    if path.suffix == ".toml" or path.exists():
        raise UsageError(f"no suite file at {text}", hint=f"bundled: {', '.join(bundled)}")
    raise UsageError(f"no suite called {text!r}", hint=did_you_mean(text, bundled))


def read_suite(path: Path, flags: Mapping[str, Flag]) -> Suite:
    """Read a suite; ``flags`` are those of ``evalkit score``, by key.

    Raises:
        UsageError: no TOML, an unknown key or a value that cannot be one; the message says where.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    return _Reader(path, flags).suite(data)


class _Reader:
    """Turns the data of one file into facts; knows the file's name and folder."""

    def __init__(self, path: Path, flags: Mapping[str, Flag]) -> None:
        self._path = path
        self._flags = flags

    def suite(self, data: Mapping[str, object]) -> Suite:
        self._refuse_unknown(data, _TOP, "")
        name = self._text(data.get("name", self._path.stem), "name")
        defaults = self._table(data.get("defaults", {}), "[defaults]")
        self._refuse_unknown(defaults, self._flags, "[defaults]")
        tables = data.get("model", [])
        if not isinstance(tables, list) or not tables:
            self._refuse("[[model]]", "there is no row", hint='[[model]] with name = "ddpm"')
        protocols = self._protocols(data.get("protocols", ["embedded"]), "protocols")
        seeds = self._seeds(data.get("seeds", [0]), "seeds")
        rows = [
            self._row(self._table(table, f"[[model]] {number}"), number, defaults, protocols, seeds)
            for number, table in enumerate(tables, start=1)
        ]
        counts = Counter(row.name for row in rows)
        for row in rows:
            if counts[row.name] > 1:
                raise UsageError(
                    f"{row.place}: two rows are called {row.name!r}", hint='tell them apart with as = "…"'
                )
        if ".." in name.split("/"):
            self._refuse("name", f"must not lead out of the folder of runs, as {name!r} does")
        return Suite(
            name=check_identifier(name, what=f"{self._path}: name"),
            title=self._text(data.get("title", name), "title"),
            rows=tuple(rows),
        )

    def _row(
        self,
        table: Mapping[str, object],
        number: int,
        defaults: Mapping[str, object],
        protocols: tuple[str, ...],
        seeds: tuple[int, ...],
    ) -> Row:
        named = table.get("as") or table.get("name")
        place = f"[[model]] {number}" + (f" ({named})" if isinstance(named, str) else "")
        self._refuse_unknown(table, [*_SUBJECT, *_LISTS, *self._flags], place)
        model = self._text(table["name"], f"{place} name") if "name" in table else None
        if model is None and "images" not in table:
            self._refuse(place, "names no subject", hint='name = "ddpm", or images = "samples/"')
        chosen = {**defaults, **{key: value for key, value in table.items() if key in self._flags}}
        settings = [
            self._setting(flag, chosen[key], place if key in table else "[defaults]")
            for key, flag in self._flags.items()
            if key in chosen
        ]
        renamed = self._text(table["as"], f"{place} as") if "as" in table else None
        if renamed is not None:
            check_identifier(renamed, what=f"{self._path}: {place}: as")
            settings.append(
                Setting(flag=Flag(key=RENAMED, option="--name"), written=(renamed,), values=(renamed,))
            )
        return Row(
            name=renamed or model or Path(str(table["images"])).stem,
            model=model,
            settings=tuple(settings),
            protocols=self._protocols(table["protocols"], place) if "protocols" in table else protocols,
            seeds=self._seeds(table["seeds"], place) if "seeds" in table else seeds,
            place=f"{self._path}: {place}",
        )

    def _setting(self, flag: Flag, value: object, place: str) -> Setting:
        where = f"{place} {flag.key}"
        if flag.kind == "switch":
            if not isinstance(value, bool):
                self._refuse(where, f"is true or false, not {_short(value)}")
            return Setting(flag=flag, written=(str(value).lower(),), values=())
        many = flag.kind != "one" and isinstance(value, list)
        items = [
            self._scalar(item, where) for item in (value if many and isinstance(value, list) else [value])
        ]
        if flag.kind == "list":
            items = [",".join(items)]
        return Setting(
            flag=flag, written=tuple(items), values=tuple(self._placed(flag, item, where) for item in items)
        )

    def _placed(self, flag: Flag, text: str, where: str) -> str:
        """Return a path as seen from here; a listed name stays what it is."""
        if flag.place == "none" or "://" in text or text.startswith("hub:"):
            return text
        name, equals, file = text.partition("=") if flag.place == "pair" else ("", "", text)
        if flag.place == "pair" and not equals:
            return text
        base, at, rest = file.partition("@")
        for whole, tail in ((file, ""), (base, at + rest)):
            if (found := self._path.parent / whole).exists():
                return f"{name}{equals}{found}{tail}"
        if flag.place != "name-or-path":
            missing = f"no file or folder at {self._path.parent / file}"
            self._refuse(where, missing, hint="paths are relative to this file")
        return text

    def _protocols(self, value: object, place: str) -> tuple[str, ...]:
        names = self._distinct(value, place, "protocol")
        texts = tuple(self._text(name, place) for name in names)
        for name in texts:
            if name != _AUTO and name not in PROTOCOLS:
                self._refuse(
                    place, f"unknown protocol {name!r}", hint=did_you_mean(name, [*PROTOCOLS, _AUTO])
                )
        return texts

    def _seeds(self, value: object, place: str) -> tuple[int, ...]:
        seeds = []
        for seed in self._distinct(value, place, "seed"):
            if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
                self._refuse(place, f"a seed is a whole number from 0 on, not {_short(seed)}")
            seeds.append(seed)
        return tuple(seeds)

    def _distinct(self, value: object, place: str, what: str) -> Sequence[object]:
        if not isinstance(value, list) or not value:
            self._refuse(place, f"must be a list of at least one {what}, not {_short(value)}")
        for item in value:
            if value.count(item) > 1:
                self._refuse(place, f"{what} {_short(item)} stands there twice")
        return value

    def _table(self, value: object, place: str) -> Mapping[str, object]:
        if not isinstance(value, dict):
            self._refuse(place, f"must be a table, not {_short(value)}")
        return value

    def _text(self, value: object, place: str) -> str:
        if not isinstance(value, str):
            self._refuse(place, f"must be text, not {_short(value)}")
        return self._scalar(value, place)

    def _scalar(self, value: object, place: str) -> str:
        """Return a value as it stands on a command line."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._refuse(place, f"must be text or a number, not {_short(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(place, f"must be a finite number, not {value}")
        text = str(value)
        if not text or _CONTROL.search(text):
            self._refuse(place, f"must be text without control characters, not {_short(value)}")
        return text

    def _refuse_unknown(
        self, found: Mapping[str, object], known: Sequence[str] | Mapping[str, Flag], place: str
    ) -> None:
        for key in found:
            if key not in known:
                hint = _ELSEWHERE.get(key) if place else None
                self._refuse(place, f"unknown key {key!r}", hint=hint or did_you_mean(key, known))

    def _refuse(self, place: str, message: str, *, hint: str | None = None) -> NoReturn:
        where = f"{self._path}: {place}" if place else str(self._path)
        raise UsageError(f"{where}: {message}", hint=hint)


def _short(value: object) -> str:
    return repr(value)[:60]
