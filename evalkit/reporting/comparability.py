"""Scores compare only within one protocol fingerprint: which choices differ, and how to make them equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evalkit.errors import NotComparableError
from evalkit.record import RunRecord
from evalkit.spec import canonical_json

_ABSENT = "absent"
_LONGEST = 60


def require_comparable(records: Sequence[RunRecord]) -> None:
    """Raise unless all records have one protocol fingerprint.

    Raises:
        NotComparableError: names each differing field with both values, and what would make them equal.
    """
    counts = Counter(record.protocol.fingerprint for record in records)
    if len(counts) <= 1:
        return
    common = counts.most_common(1)[0][0]
    target = next(record for record in records if record.protocol.fingerprint == common)
    lines, hints = [], []
    for record in records:
        if record.protocol.fingerprint == common or counts[record.protocol.fingerprint] == 0:
            continue
        counts[record.protocol.fingerprint] = 0  # one explanation a fingerprint
        differing = differing_fields(record.protocol.fields, target.protocol.fields)
        here, there = _names(record, target)
        lines.append(f"{here} and {there} were measured differently:")
        lines += [f"  {name}: {one} against {other}" for name, (one, other) in differing.items()]
        if not differing:
            lines.append("  the fingerprints differ, though no recorded field does")
        hints.append(f"to compare {here} with {there}, {remedy(differing, target)}")
    raise NotComparableError(
        "\n".join(["scores of different protocols do not compare", *lines]), hint="\n".join(hints)
    )


def differing_fields(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Return the fields that differ, by dotted name, with the value on each side as short text."""
    first, second = dict(_flat(one)), dict(_flat(other))
    _collapse_missing_items(first, second)
    names = sorted(first.keys() | second.keys())
    pairs = {name: (first.get(name, _ABSENT), second.get(name, _ABSENT)) for name in names}
    return {name: (short(a), short(b)) for name, (a, b) in pairs.items() if a != b}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _flat(value[key], f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        for item in value:
            yield from _flat(item, f"{name}[{_item_name(item)}]")
    else:
        yield name, value if isinstance(value, str) else canonical_json(value)


def _collapse_missing_items(first: dict[str, str], second: dict[str, str]) -> None:
    """Say that one side lacks a whole metric in one line, not once for each of its fields."""
    for here, there in ((first, second), (second, first)):
        known = {name.partition("].")[0] for name in there}
        for name in [name for name in here if "]." in name and name.partition("].")[0] not in known]:
            del here[name]
            here[name.partition("].")[0] + "]"] = "present"


def _item_name(item: Mapping[str, object]) -> str:
    """Lists of things (metrics) are matched by what they are, not by position."""
    return "@".join(str(item[key]) for key in ("name", "head") if key in item)


def short(text: str) -> str:
    """Return a value of a protocol as text of at most 60 characters; of a digest both ends."""
    return text if len(text) <= _LONGEST else f"{text[:12]}…{text[-12:]}"


def _names(record: RunRecord, target: RunRecord) -> tuple[str, str]:
    if record.model.id != target.model.id:
        return record.model.id, target.model.id
    return f"{record.model.id} ({record.run_id})", f"{target.model.id} ({target.run_id})"


def remedy(differing: Mapping[str, tuple[str, str]], target: RunRecord) -> str:
    """Return the flags, and the conditions no flag can meet, that give the protocol of ``target``."""
    topics = {name.partition(".")[0].partition("[")[0] for name in differing}
    flags, others = [], []
    if "extractor" in topics:
        flags.append(f"--protocol {target.protocol.name}")
    if "metrics" in topics:
        names = {name.partition("[")[2].partition("]")[0] for name in _metric_names(target)}
        flags.append(
            f"--metrics {','.join(sorted(names))}" if names else f"--protocol {target.protocol.name}"
        )
    if "num_images" in topics:
        flags.append(f"--num-samples {target.protocol.fields.get('num_images')}")
    if "reference" in topics:
        digest = (target.data.reference_sha256 or "none")[:12]
        flags.append(
            f"--reference with the one of {target.model.id} ({target.data.dataset}, sha256 {digest})"
        )
    if "numerics_version" in topics or "fingerprint_version" in topics:
        others.append("use one release of evalkit for both")
    if "image_size" in topics:
        others.append("give images of one size")
    if "rejected_images" in topics:
        others.append("repair or leave out the images that were rejected")
    measure = f"measure it again with {' '.join(dict.fromkeys(flags))}" if flags else ""
    return (
        "; ".join(filter(None, [measure, *others])) or f"measure both with --protocol {target.protocol.name}"
    )


def _metric_names(target: RunRecord) -> list[str]:
    return [name for name, _ in _flat(target.protocol.fields.get("metrics", []), "metrics") if "[" in name]
