"""The page of models: every system, how it is served, which files it reads, what is known of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalkit.generators.description import GeneratorFacts, LayoutFacts
from evalkit.generators.systems import System
from evalkit.record import RunRecord
from evalkit.reporting.formatting import measured

_HEAD = """# Models

Made by `evalkit list models --format md --records leaderboards/cifar10-jpeg/records > docs/models.md`; a test
checks that it is not stale.

`evalkit score --model NAME --ckpt FILE` reads evalkit's own safetensors and the layouts below, recognised
by the names of their tensors and never by the file's name; `--model auto` picks the model. `evalkit inspect`
tells what a file is and what is missing. Averaged weights come first (`--weights raw` takes the others). What
the tensors do not reveal comes from `--preset NAME`, or from a JSON file beside the checkpoint.

Served as: **native**, a network of evalkit that loads the checkpoints people hold; **diffusers**, a folder of
that library through `--model diffusers`; **callable**, your own code through `--model pkg.mod:factory`;
**images**, a folder or archive of samples through `--images`; **pairs**, image to image, through
`evalkit pairs`. Published scores are quoted for orientation, some from memory of the papers without
looking them up again: check the source before citing one. evalkit measured only what is called so.
"""
_FAMILIES = {
    "gan": "GANs",
    "vae": "VAEs",
    "autoregressive": "Autoregressive models",
    "diffusion": "Diffusion models",
}


def models_page(
    models: Sequence[GeneratorFacts],
    layouts: Mapping[str, LayoutFacts],
    systems: Sequence[System],
    records: Sequence[RunRecord],
) -> str:
    """Return the page as Markdown; ``records`` are what evalkit measured of the bundled models."""
    parts = [_HEAD, "## Systems\n"]
    for family, title in _FAMILIES.items():
        rows = [_system_row(system) for system in systems if system.family == family]
        parts += [f"### {title}\n", _table(("system", "paper", "served as", "model", ""), rows)]
    parts += ["## Native networks\n", *(_section(facts, layouts, records) for facts in models)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _system_row(system: System) -> tuple[str, ...]:
    model = f"[`{system.model}`](#{_anchor(system.model)})" if system.model else ""
    return system.name, system.paper, ", ".join(system.services), model, system.note


def _section(facts: GeneratorFacts, layouts: Mapping[str, LayoutFacts], records: Sequence[RunRecord]) -> str:
    samplers = ", ".join(
        f"`{sampler.name}`" + (f" ({sampler.default_steps} steps)" if sampler.default_steps else "")
        for sampler in facts.samplers
    )
    formats = ["evalkit's safetensors", *(f"{layouts[name].title} (`{name}`)" for name in facts.layouts)]
    lines = [
        f"### {facts.name}",
        "",
        f"{facts.title[:1].upper()}{facts.title[1:]}.",
        "",
        f"- Family: {facts.family}{', bundled' if facts.bundled else ''}",
        f"- Reads: {'; '.join(formats)}",
        f"- Samplers: {samplers}",
    ]
    if facts.presets:
        lines.append(f"- Presets: {', '.join(f'`{name}`' for name in facts.presets)}")
    options = [
        flag
        for flag, takes in (("--guidance", facts.takes_guidance), ("--truncation", facts.takes_truncation))
        if takes
    ]
    if options:
        lines.append(f"- Takes: {', '.join(f'`{flag}`' for flag in options)}")
    if facts.published:
        rows = [
            (p.system, p.checkpoint, p.score, f"{p.num_samples:,}" if p.num_samples else "not said", p.source)
            for p in facts.published
        ]
        lines += ["", _table(("published for", "checkpoint", "score", "N", "source"), rows).rstrip("\n")]
    lines += [_measured_line(record) for record in records if record.model.id == facts.name]
    return "\n".join(lines) + "\n"


def _measured_line(record: RunRecord) -> str:
    scores = ", ".join(f"{r.metric} {measured(r.value, r.se)}" for r in record.results[:5])
    n = record.results[0].n_gen if record.results else 0
    return f"- Measured by evalkit (bundled checkpoint, N = {n:,}, {record.data.dataset}): {scores}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _anchor(name: str) -> str:
    return name.replace("+", "")
