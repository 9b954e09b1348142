"""The Markdown card beside each bundled checkpoint: where it comes from and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from evalkit.record import RunRecord
from evalkit.reporting.table import render, score_table

_TEMPLATE = """\
# {{ name }}

{{ title }}.

Architecture `{{ architecture }}`, {{ parameters }} parameters, {{ size }} bytes of fp16 safetensors; the
configuration is in the file's header.

## Data

`{{ training.data }}`: {{ images }} images (digest `{{ training.images_sha256 }}`),
CIFAR-10 (Krizhevsky 2009) re-encoded as JPEG. 32x32 RGB, {{ classes or "no" }} class labels used.

## Compute

{{ compute }}
Made again, at commit `{{ training.commit }}`, by:

```sh
{{ command }}
```

## Scores
{% for record, table in scores %}
`{{ record.command | join(" ") }}`

{{ table }}
{% endfor %}

## Limits

A small network and little compute: it shows the pipeline and gives a fixed point to compare with. It is no
state of the art, and no number here is FID.
"""


def model_card(
    *,
    name: str,
    title: str,
    size: int,
    parameters: int,
    classes: int,
    training: Mapping[str, Any],
    records: Sequence[RunRecord],
) -> str:
    """Return the card; every number in it comes from the checkpoint's header or from ``records``."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    return environment.from_string(_TEMPLATE).render(
        name=name,
        title=title[0].upper() + title[1:],
        architecture=name,
        size=f"{size:,}",
        parameters=f"{parameters:,}",
        images=f"{training['images']:,}",
        compute=_compute(training),
        classes=classes,
        training=training,
        command=(
            f"evalkit train {training['recipe']} --data {training['data']} --out runs/{training['recipe']} "
            f"--threads {training['threads']}"
        ),
        scores=[(record, render(score_table(record), "md")) for record in records],
    )


def _compute(training: Mapping[str, Any]) -> str:
    steps, batch, seen = training["steps"], training["batch_size"], training["images_seen"]
    return (
        f"{steps:,} steps of {batch} images ({seen:,} seen) in {training['seconds']:,} s on "
        f"{training['device']}, {training['threads']} thread(s)."
    )
