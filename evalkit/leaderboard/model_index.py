"""The ``model-index`` of a Hugging Face model card: the scores of one model as YAML front matter.

https://huggingface.co/docs/hub/model-cards#evaluation-results and, for the fields,
https://github.com/huggingface/hub-docs/blob/main/modelcard.md. ``verified`` is the Hub's own mark: never set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from evalkit.leaderboard.facts import Entry
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.formatting import Style
from evalkit.spec import Scalar

_Node = Mapping[str, object]


def model_card_yaml(entries: Sequence[Entry]) -> str:
    """Return the front matter of a model card with one result for each entry, between its ``---`` lines."""
    name = entries[0].record.model.id
    index = {"model-index": [{"name": name, "results": [_result(entry) for entry in entries]}]}
    return "\n".join(["---", *_yaml(index, 0), "---"]) + "\n"


def _result(entry: Entry) -> _Node:
    record, data = entry.record, entry.record.data
    where = {"type": data.dataset, "name": data.dataset}
    source = {"name": f"evalkit run {record.run_id}", "url": entry.source_url}
    return {
        "task": {"type": _task(record)},
        "dataset": where | ({"split": data.split} if data.split else {}),
        "metrics": [_metric(result, record) for result in record.results],
        "source": {key: value for key, value in source.items() if value},
    }


def _task(record: RunRecord) -> str:
    """Return one of the Hub's tasks; classes are no task of their own there."""
    if record.protocol.fields.get("task") in {"reconstruct", "translate"}:
        return "image-to-image"
    return "text-to-image" if "prompts" in record.protocol.fields else "unconditional-image-generation"


def _metric(result: MetricResult, record: RunRecord) -> _Node:
    arguments: dict[str, Scalar] = {
        "direction": result.direction,
        "n_gen": result.n_gen,
        "n_ref": result.n_ref,
        "protocol": record.protocol.name,
        "fingerprint": record.protocol.fingerprint,
        "standard_error": result.se,
        "ci_low": result.ci.low if result.ci else None,
        "ci_high": result.ci.high if result.ci else None,
        "unit": result.unit or None,
    }
    return {
        "type": result.metric.partition(":")[0],
        "value": result.value,
        "name": result.metric,
        **({"config": result.variant} if result.variant else {}),
        "args": {key: value for key, value in arguments.items() if value is not None},
    }


def _yaml(node: object, depth: int) -> Iterator[str]:
    """Yield the lines of mappings and lists in block style, texts quoted as in JSON."""
    indent = "  " * depth
    if isinstance(node, Mapping):
        for key, value in node.items():
            if isinstance(value, Mapping | list):
                yield f"{indent}{key}:"
                yield from _yaml(value, depth + 1)
            else:
                yield f"{indent}{key}: {_scalar(value)}"
    elif isinstance(node, list):
        for item in node:
            first, *rest = _yaml(item, depth + 1)
            yield f"{indent}- {first.lstrip()}"
            yield from rest


def _scalar(value: object) -> str:
    if isinstance(value, float):
        mantissa, exponent, power = repr(value).partition("e")
        # YAML 1.1 reads 1e-05 as text: a float needs a point there.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{exponent}{power}"
    if isinstance(value, int):
        return str(value)
    return json.dumps(Style().plain(str(value)), ensure_ascii=False)
