"""``evalkit list``: what there is, without loading torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.columns import aligned
from evalkit.extractors.facts import FACTS
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.protocol import PROTOCOLS
from evalkit.registry import did_you_mean

if TYPE_CHECKING:
    from evalkit.metric_facts import MetricFacts

Row = dict[str, Any]


def _models() -> list[Row]:
    return [
        {
            "name": facts.name,
            "family": facts.family,
            "bundled": facts.bundled,
            "title": facts.title,
            "samplers": [sampler.name for sampler in facts.samplers],
        }
        for facts in GENERATOR_FACTS.values()
    ]


def _samplers() -> list[Row]:
    return [
        {"name": s.name, "model": facts.name, "default": i == 0, "steps": s.default_steps, "title": s.title}
        for facts in GENERATOR_FACTS.values()
        for i, s in enumerate(facts.samplers)
    ]


def _extractors() -> list[Row]:
    from evalkit.asset_catalogue import present  # noqa: PLC0415 - only these lists look into the cache

    return [
        {
            "name": facts.name,
            "at_hand": not facts.downloads or present(facts.assets),
            "heads": dict(facts.heads),
            "presets": [name for name, _ in facts.presets],
            "title": facts.summary,
        }
        for facts in (FACTS[name] for name in FACTS)
    ]


def _protocols() -> list[Row]:
    return [
        {
            "name": preset.name,
            "extractor": preset.extractor,
            "num_images": preset.num_images,
            "metrics": [f"{m.metric}@{m.head}" for m in preset.metrics],
            "title": preset.title,
        }
        for preset in (PROTOCOLS[name] for name in PROTOCOLS)
    ]


def _metrics() -> list[Row]:
    return [
        {
            "name": facts.name,
            "better": facts.better,
            "reads": facts.reads,
            "needs": ", ".join(facts.needs),
            "minimum": facts.minimum,
            "protocols": list(facts.protocols),
            "title": facts.title,
        }
        for facts in _metric_facts()
    ]


def _metric_facts() -> list[MetricFacts]:
    from evalkit.metric_catalogue import metric_facts  # noqa: PLC0415 - metrics need torch's types

    return metric_facts()


def _measures() -> list[Row]:
    from evalkit.asset_catalogue import present  # noqa: PLC0415
    from evalkit.perceptual.facts import PAIR_MEASURES  # noqa: PLC0415

    return [
        {
            "name": facts.name,
            "better": facts.better,
            "network": facts.network,
            "at_hand": not facts.downloads or present((str(facts.network),)),
            "minimum_size": facts.minimum_size,
            "title": facts.title,
        }
        for facts in map(PAIR_MEASURES.__getitem__, PAIR_MEASURES)
    ]


def _references() -> list[Row]:
    from evalkit.references import list_references  # noqa: PLC0415

    return list_references()


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "models": _models,
    "metrics": _metrics,
    "measures": _measures,
    "extractors": _extractors,
    "references": _references,
    "protocols": _protocols,
    "samplers": _samplers,
}


@click.command(name="list")
@click.argument("kind", metavar="KIND")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "md"]),
    default="table",
    help="md: the page that explains every metric (docs/metrics.md) or model (docs/models.md).",
)
@click.option(
    "--records",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Records whose scores the page of models shows.",
)
def list_(kind: str, output_format: str, records: Path | None) -> None:
    """List what evalkit has of one KIND.

    \b
    models      what `score --model` samples      samplers    how it can be sampled
    metrics     what `score` measures             extractors  networks that metrics read
    measures    what `pairs` measures             references  real images to compare with
    protocols   fixed choices of all these

    What is `at hand` needs no download.
    """
    if kind not in _KINDS:
        raise click.BadParameter(f"{kind!r}; {did_you_mean(kind, _KINDS)}")
    if output_format == "md":
        click.echo(_page(kind, records), nl=False)
        return
    if records is not None:
        raise click.BadParameter("--records belongs to `evalkit list models --format md`")
    rows = _KINDS[kind]()
    if output_format == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        click.echo(aligned(rows))


def _page(kind: str, records: Path | None) -> str:
    if kind == "metrics" and records is None:
        from evalkit.reporting.metrics_page import metrics_page  # noqa: PLC0415

        return metrics_page(_metric_facts())
    if kind != "models":
        raise click.BadParameter(
            "--format md belongs to `list metrics` and `list models`, --records to models"
        )
    from evalkit.generators.systems import SYSTEMS  # noqa: PLC0415
    from evalkit.record import RunRecord  # noqa: PLC0415
    from evalkit.reporting.models_page import models_page  # noqa: PLC0415

    read = [RunRecord.read(path) for path in sorted(records.glob("*.json"))] if records else []
    return models_page(list(GENERATOR_FACTS.values()), LAYOUTS, SYSTEMS, read)
