"""Rules as people write them: one line each, or a TOML file.

    parse_rule("kd rel=5%")                    as the error bars allow, margin 5 % of the baseline
    parse_rule("fd stat abs=2 rel=1%")         statistically, the larger of both margins
    parse_rule("throughput rel rel=10%")       the plain difference
    parse_rule("fd/block band=0..400")         the candidate alone, between two values

A file says the same, with what holds for all::

    alpha = 0.05
    burden = "candidate"

    [[rule]]
    metric = "kd"
    relative = "5%"
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import cast, get_args

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.gate.facts import Burden, GateSpec, Mode, Rule
from evalkit.record import RunRecord
from evalkit.record_parts import check_identifier
from evalkit.registry import did_you_mean
from evalkit.reporting.footnotes import has_small_sample, is_kernel

_EXAMPLE = "for example: kd rel=5%"
_WORDS = ("stat", "abs", "rel", "band", "abs=", "rel=", "band=")
_SPEC_KEYS = ("alpha", "burden", "rule")
_RULE_KEYS = ("metric", "variant", "mode", "absolute", "relative", "band")
_DEFAULT_RELATIVE = 0.05
_LEAST_ALPHA = 1e-6  # no error bar of a few blocks speaks for less


def parse_rule(text: str) -> Rule:
    """Read one rule: ``METRIC[/VARIANT]``, then words in any order, separated by blanks or commas.

    ``stat``, ``abs`` and ``rel`` name the mode, ``band=LO..HI`` mode and band; ``abs=0.1`` is a margin in the
    metric's unit, ``rel=5%`` (or ``rel=0.05``) one in shares of the baseline's value.

    Raises:
        UsageError: no metric, an unknown or repeated word, a number that cannot be, or words that exclude
            one another; the hint says how it is written.
    """
    name, *words = list(filter(None, re.split(r"[\s,]+", text))) or [""]
    if not name or "=" in name or name in _WORDS:
        raise UsageError(f"rule {text!r} does not begin with a metric", hint=_EXAMPLE)
    metric, slash, variant = name.rpartition("/") if "/" in name else (name, "", "")
    given: dict[str, object] = {"metric": metric, **({"variant": variant} if slash else {})}
    for word in words:
        key, value = _read_word(word, text)
        if key in given:
            raise UsageError(f"rule {text!r} says {key} twice", hint=_EXAMPLE)
        given[key] = value
    return _checked_rule(given, f"rule {text!r}")


def rule_text(rule: Rule) -> str:
    """Return a rule as :func:`parse_rule` reads it."""
    words = [f"{rule.metric}/{rule.variant}" if rule.variant else rule.metric]
    if rule.mode is not None and rule.mode != "band":
        words.append(rule.mode)
    if rule.band is not None:
        words.append(f"band={_shortest(rule.band[0])}..{_shortest(rule.band[1])}")
    if rule.absolute:
        words.append(f"abs={_shortest(rule.absolute)}")
    if rule.relative:
        percent = f"{Decimal(repr(rule.relative)) * 100:f}"
        words.append(f"rel={percent.rstrip('0').rstrip('.') if '.' in percent else percent}%")
    return " ".join(words)


def read_spec(path: Path) -> GateSpec:
    """Read a gate from a TOML file with the keys ``alpha``, ``burden`` and any number of ``[[rule]]``.

    Raises:
        NothingMeasuredError: there is no such file.
        UsageError: not TOML, an unknown key, or a value that is not allowed; the message names file and rule.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NothingMeasuredError(
            f"no gate file at {path}", hint="name a TOML file, or give --rule"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not TOML: {error}", hint='a rule is: [[rule]], then metric = "kd"'
        ) from error
    _refuse_unknown(data, _SPEC_KEYS, str(path))
    tables = data.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: rule is not a list of tables", hint="head each rule with [[rule]]")
    spec = GateSpec(
        rules=tuple(
            _rule_of_table(table, f"{path}: rule {number}") for number, table in enumerate(tables, start=1)
        ),
        alpha=_number(data.get("alpha", 0.05), f"{path}: alpha"),
        burden=cast(Burden, data.get("burden", "regression")),
    )
    return checked_spec(spec)


def default_rules(record: RunRecord) -> tuple[Rule, ...]:
    """Return the rule of a gate that names none: the headline metric, ``stat``, within 5 % of the baseline.

    The headline is what ``evalkit compare`` puts first: the first metric of the record, or the first kernel
    distance where a Fréchet distance of the record has a small-sample warning. Nothing else is looked at: not
    the other metrics, not the speed.

    Raises:
        NothingMeasuredError: the record holds no score.
    """
    results = list(record.results)
    if any(map(has_small_sample, results)):
        results.sort(key=lambda result: not is_kernel(result.metric))
    if not results:
        raise NothingMeasuredError(
            f"the record of {record.model.id} ({record.run_id}) holds no score",
            hint="measure one with evalkit score, or name a speed: --rule 'throughput rel=10%'",
        )
    first = results[0]
    several = sum(result.metric == first.metric for result in results) > 1
    variant = first.variant or None if several else None
    return (Rule(metric=first.metric, variant=variant, mode="stat", relative=_DEFAULT_RELATIVE),)


def checked_spec(spec: GateSpec) -> GateSpec:
    """Return ``spec`` if it can be judged by.

    Raises:
        UsageError: alpha below 1e-6 or not below 0.5, an unknown burden, a rule that says twice the same or
            contradicts itself.
    """
    if not _LEAST_ALPHA <= spec.alpha < 0.5:
        limits = f"at least {_LEAST_ALPHA:g} and below 0.5"
        raise UsageError(f"alpha is {spec.alpha}, not {limits}", hint="the usual one is 0.05")
    if spec.burden not in get_args(Burden):
        raise UsageError(
            f"unknown burden {spec.burden!r}", hint=did_you_mean(str(spec.burden), get_args(Burden))
        )
    for rule in spec.rules:
        _check_rule(rule, f"rule {rule_text(rule)!r}")
        if spec.rules.count(rule) > 1:
            raise UsageError(f"rule {rule_text(rule)!r} is given twice", hint="leave one out")
    return spec


def _shortest(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _read_word(word: str, text: str) -> tuple[str, object]:
    """Return the key of a rule that a word sets, and its value."""
    if word in {"stat", "abs", "rel"}:
        return "mode", word
    name, equals, value = word.partition("=")
    where = f"rule {text!r}: {name}"
    if name == "band":
        return "band", _band(value, where)
    readers: dict[str, tuple[str, Callable[[str, str], float]]] = {
        "abs": ("absolute", _text_number),
        "rel": ("relative", _share),
    }
    if not equals or name not in readers:
        raise UsageError(
            f"rule {text!r}: unknown word {word!r}", hint=f"{did_you_mean(word, _WORDS)}; {_EXAMPLE}"
        )
    key, read = readers[name]
    return key, read(value, where)


def _rule_of_table(table: Mapping[str, object], where: str) -> Rule:
    _refuse_unknown(table, _RULE_KEYS, where)
    given = dict(table)
    if "absolute" in given:
        given["absolute"] = _number(given["absolute"], f"{where}: absolute")
    if "relative" in given:
        given["relative"] = _share(given["relative"], f"{where}: relative")
    if "band" in given:
        ends = given["band"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise UsageError(f"{where}: band is not two numbers", hint="band = [0.0, 400.0]")
        given["band"] = tuple(_number(end, f"{where}: band") for end in ends)
    for key in ("metric", "variant", "mode"):
        if not isinstance(given.get(key, ""), str):
            raise UsageError(f"{where}: {key} is not text", hint=f'write {key} = "…"')
    return _checked_rule(given, where)


def _checked_rule(given: Mapping[str, object], where: str) -> Rule:
    if not given.get("metric"):
        raise UsageError(f"{where} names no metric", hint=_EXAMPLE)
    values = dict(given)
    if "band" in values:
        values.setdefault("mode", "band")
    rule = Rule(**values)  # type: ignore[arg-type] # checked next
    _check_rule(rule, where)
    return rule


def _check_rule(rule: Rule, where: str) -> None:
    check_identifier(rule.metric, what=f"{where}: metric")
    if rule.variant is not None:
        check_identifier(rule.variant, what=f"{where}: variant")
    if rule.mode is not None and rule.mode not in get_args(Mode):
        raise UsageError(f"{where}: unknown mode {rule.mode!r}", hint=did_you_mean(rule.mode, get_args(Mode)))
    for name, margin in (("absolute", rule.absolute), ("relative", rule.relative)):
        if not (math.isfinite(margin) and margin >= 0):
            raise UsageError(f"{where}: a margin of {margin} ({name})", hint="a margin is a number from 0 on")
    if (rule.mode == "band") != (rule.band is not None):
        hint = "write band=LO..HI, and no other mode"
        raise UsageError(f"{where}: the mode band and its two values belong together", hint=hint)
    if rule.band is not None and not (all(map(math.isfinite, rule.band)) and rule.band[0] <= rule.band[1]):
        raise UsageError(
            f"{where}: {rule.band[0]}..{rule.band[1]} is no band", hint="the lower end comes first"
        )
    if rule.band is not None and (rule.absolute or rule.relative):
        raise UsageError(f"{where}: a band has no margin", hint="widen the band instead")


def _band(text: str, where: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    if not (low and dots and high):
        raise UsageError(f"{where} needs a lowest and a highest value", hint="for example: fd band=0..400")
    return _text_number(low, where), _text_number(high, where)


def _share(given: object, where: str) -> float:
    """Read ``"5%"`` or 0.05; a bare number above 1 is more likely a forgotten percent sign."""
    if isinstance(given, str) and given.endswith("%"):
        _text_number(given[:-1], where)
        return float(Decimal(given[:-1]) / 100)  # 0.07, where 7.0 / 100 is a little more
    share = _text_number(given, where) if isinstance(given, str) else _number(given, where)
    if share > 1:
        raise UsageError(
            f"{where} = {share:g} is {share * 100:g} %", hint=f"write {share:g}% or {share * 100:g}%"
        )
    return share


def _text_number(text: str, where: str) -> float:
    try:
        return _number(float(text), where)
    except ValueError:
        hint = "only rel takes a share: rel=5%" if text.endswith("%") else "write it as 0.1 or 1e-3"
        raise UsageError(f"{where}: {text!r} is not a number", hint=hint) from None


def _number(given: object, where: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise UsageError(f"{where}: {given!r} is not a number", hint="write it as 0.1 or 1e-3")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{where}: {number} is not finite", hint="leave the rule out instead")
    return number


def _refuse_unknown(data: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}", hint=did_you_mean(key, known))
