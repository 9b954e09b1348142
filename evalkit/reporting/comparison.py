"""Several models side by side: a row a model, quality columns with error bars, then speed and size.

Accepted trade-offs: two models are called a close call by the unpaired standard error of their difference;
the gate, which has the blocks of both, uses the paired one and decides more often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evalkit.errors import NothingMeasuredError
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.comparability import require_comparable
from evalkit.reporting.costs import Quantity, best_of, cost_column, known_costs, speed_fact
from evalkit.reporting.footnotes import (
    Footnotes,
    has_small_sample,
    is_frechet,
    is_kernel,
    legend,
)
from evalkit.reporting.formatting import ARROWS, MISSING, measured
from evalkit.reporting.predictions import prediction_data, prediction_keys, predictions
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.reporting.variants import shown_variants
from evalkit.spec import Scalar

_Key = tuple[str, str]
# Standard errors of a difference below which an order may be chance: about 95 %.
_CLOSE = 2.0


def comparison_table(records: Sequence[RunRecord]) -> Table:
    """Return one row a model, sorted by the first quality column in its better direction.

    The first column is the first metric of the records; where a Fréchet distance carries a small-sample
    warning, the kernel distances come first.

    Raises:
        NothingMeasuredError: no record, or none holds a score or a speed.
        NotComparableError: the protocol fingerprints differ.
    """
    require_comparable(records)
    keys = _metric_keys(records)
    costs = known_costs(records)
    if not keys and not costs:
        raise NothingMeasuredError(
            "no record holds a score", hint="measure a model first: evalkit score --help"
        )
    ordered = _sorted(records, keys)
    labels, footnotes = _labels(records, keys), Footnotes()
    quality = [_quality_column(ordered, key, footnotes) for key in keys]
    predicted = {key: prediction_keys(_results(ordered, key)) for key in keys}
    cost = [cost_column(ordered, quantity) for quantity in costs]
    names = _names(ordered)
    models = [
        Cell(name, marks=footnotes.add(record.warnings)) for name, record in zip(names, ordered, strict=True)
    ]
    families = [Cell(record.model.family) for record in ordered]
    return Table(
        title=_title(ordered, keys),
        columns=(
            Column("model", "left"),
            Column("family", "left"),
            *(_quality_title(ordered, key, labels) for key in keys),
            *(Column(f"{quantity.title} {ARROWS[quantity.better]}") for quantity in costs),
        ),
        rows=tuple(zip(models, families, *quality, *cost, strict=True)),
        facts=tuple(_facts(ordered, labels, names)),
        legend=legend([result for record in records for result in record.results]),
        notes=footnotes.notes(),
        data=tuple(
            _row_data(record, name, labels, predicted, costs)
            for name, record in zip(names, ordered, strict=True)
        ),
    )


def _metric_keys(records: Sequence[RunRecord]) -> list[_Key]:
    """Return the metrics in order of first appearance, kernel distances first under the small-sample rule."""
    results = [result for record in records for result in record.results]
    keys = list(dict.fromkeys((result.metric, result.variant) for result in results))
    if any(map(has_small_sample, results)):
        keys.sort(key=lambda key: not is_kernel(key[0]))
    return keys


def _result(record: RunRecord, key: _Key) -> MetricResult | None:
    return next((result for result in record.results if (result.metric, result.variant) == key), None)


def _results(records: Sequence[RunRecord], key: _Key) -> list[MetricResult]:
    return [result for record in records if (result := _result(record, key)) is not None]


def _sorted(records: Sequence[RunRecord], keys: Sequence[_Key]) -> list[RunRecord]:
    def rank(record: RunRecord) -> tuple[bool, float, str, str]:
        result = _result(record, keys[0]) if keys else None
        worse = 0.0 if result is None else result.value * (1 if result.direction == "lower" else -1)
        return result is None, worse, record.model.id, record.run_id

    return sorted(records, key=rank)


def _quality_column(records: Sequence[RunRecord], key: _Key, footnotes: Footnotes) -> list[Cell]:
    results = [_result(record, key) for record in records]
    values = [result.value if result else None for result in results]
    best = best_of(values, _results(records, key)[0].direction)
    return [
        Cell(
            measured(result.value, result.se),
            best=result.value == best,
            marks=footnotes.add(result.warnings, small_sample=is_frechet(result.metric)),
        )
        if result
        else Cell(MISSING)
        for result in results
    ]


def _quality_title(records: Sequence[RunRecord], key: _Key, labels: Mapping[_Key, str]) -> Column:
    first = _results(records, key)[0]
    unit = f" ({first.unit})" if first.unit else ""
    label = labels[key]
    end = f"{unit} {ARROWS[first.direction]}"
    shared = _features(tuple(labels))
    # The terminal has no room to repeat one extractor over every column: the title names it once.
    short = label.replace(f":{shared}", "") if shared else label.replace(":", ":\n", 1)
    return Column(f"{label}{end}", short=f"{short}{end}")


def _features(keys: Sequence[_Key]) -> str:
    """Return the extractor that all labels name; empty where it sets a FID apart from the published one."""
    names = {metric.partition(":")[2] for metric, _ in keys}
    published = any(metric.partition(":")[0] in {"fid", "kid", "sfid"} for metric, _ in keys)
    return names.pop() if len(names) == 1 and not published else ""


def _labels(records: Sequence[RunRecord], keys: Sequence[_Key]) -> dict[_Key, str]:
    """Name the variant only where one metric is shown with several, or where its name does not imply it."""
    counts = Counter(metric for metric, _ in keys)
    shown = set().union(*map(shown_variants, records))
    return {key: "/".join(key) if key in shown or (key[1] and counts[key[0]] > 1) else key[0] for key in keys}


def _names(records: Sequence[RunRecord]) -> list[str]:
    """Return the model ids, told apart by run where one occurs twice."""
    counts = Counter(record.model.id for record in records)
    return [
        record.model.id if counts[record.model.id] == 1 else f"{record.model.id} ({record.run_id[-4:]})"
        for record in records
    ]


def _title(records: Sequence[RunRecord], keys: Sequence[_Key]) -> str:
    data = records[0].data
    where = f"{data.dataset}/{data.split}" if data.split else data.dataset
    count = f"{len(records)} model{'s' if len(records) > 1 else ''}"
    features = f" · features {shared}" if (shared := _features(keys)) else ""
    return f"{count} on {where} · protocol {records[0].protocol.name}{features}"


def _facts(records: Sequence[RunRecord], labels: Mapping[_Key, str], names: Sequence[str]) -> list[str]:
    counts = sorted({result.n_gen for record in records for result in record.results})
    images = f"N = {' or '.join(f'{n:,}' for n in counts)} images a model; " if counts else ""
    facts = [f"{images}fingerprint {records[0].protocol.fingerprint[:16]}."]
    if speed := speed_fact(records):
        facts.append(speed)
    first = next(iter(labels), None)
    if first and len(close := _close_to_best(records, first, names)) > 1:
        facts.append(
            f"Close call: {', '.join(close)} are within two standard errors in {first[0]}; "
            "more images would decide their order."
        )
    return [*facts, *_predicted(records, labels, names)]


def _predicted(
    records: Sequence[RunRecord], labels: Mapping[_Key, str], names: Sequence[str]
) -> Iterator[str]:
    """Say in a sentence for each metric and number of images what was predicted of every model."""
    for key, label in labels.items():
        told: dict[str, list[str]] = {}
        for record, name in zip(records, names, strict=True):
            result = _result(record, key)
            for found in predictions(result) if result else ():
                told.setdefault(found.images, []).append(f"{name} {measured(found.value, found.stderr)}")
        for images, values in told.items():
            yield f"Predicted {label} at N = {images}: {', '.join(values)}."


def _close_to_best(records: Sequence[RunRecord], key: _Key, names: Sequence[str]) -> list[str]:
    """Return the models that the first one does not beat beyond chance, itself included."""
    first = _result(records[0], key)
    if first is None or first.se is None:
        return []
    close = []
    for record, name in zip(records, names, strict=True):
        other = _result(record, key)
        if other and other.se is not None:
            error = math.hypot(first.se, other.se)
            if other is first or abs(other.value - first.value) < _CLOSE * error:
                close.append(name)
    return close


def _row_data(
    record: RunRecord,
    name: str,
    labels: Mapping[_Key, str],
    predicted: Mapping[_Key, Sequence[str]],
    costs: Sequence[Quantity],
) -> dict[str, Scalar]:
    row: dict[str, Scalar] = {"model": name, "family": record.model.family}
    for key, label in labels.items():
        result = _result(record, key)
        ci = result.ci if result else None
        row[label] = result.value if result else None
        row[f"{label}_se"] = result.se if result else None
        row[f"{label}_ci_low"] = ci.low if ci else None
        row[f"{label}_ci_high"] = ci.high if ci else None
        found = prediction_data(result, predicted[key])
        row |= {f"{label}_{part}": value for part, value in found.items()}
    row |= {quantity.key: quantity.read(record) for quantity in costs}
    warnings = [*record.warnings, *(w for result in record.results for w in result.warnings)]
    return row | {
        "warnings": "; ".join(dict.fromkeys(warnings)),
        "protocol": record.protocol.name,
        "fingerprint": record.protocol.fingerprint,
        "run_id": record.run_id,
    }
