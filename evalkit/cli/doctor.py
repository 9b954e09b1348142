"""``evalkit doctor``."""

from __future__ import annotations

import click


@click.command()
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table")
def doctor(output_format: str) -> None:
    """Check this machine: versions, device, cache, weights, bundled models and references."""
    import json  # noqa: PLC0415

    from evalkit.assets import cache_folder, is_offline  # noqa: PLC0415
    from evalkit.cli.columns import aligned  # noqa: PLC0415
    from evalkit.extractors.engine import automatic_backend  # noqa: PLC0415
    from evalkit.extractors.inception_weights import cached_weights  # noqa: PLC0415
    from evalkit.generators import GENERATOR_FACTS  # noqa: PLC0415
    from evalkit.provenance import environment  # noqa: PLC0415 - loads torch
    from evalkit.references import bundled_references  # noqa: PLC0415
    from evalkit.runtime import resolve_device  # noqa: PLC0415

    device = resolve_device("auto")
    backend, remark = automatic_backend(device)
    inception = cached_weights()
    bundled = sorted(f.name for f in GENERATOR_FACTS.values() if f.bundled)
    checks = {
        **environment(),
        "device of --device auto": str(device),
        "InceptionV3 and EfficientNet run by": f"{backend} ({remark})",
        "cache folder": str(cache_folder()),
        "offline mode": "on (EVALKIT_OFFLINE)" if is_offline() else "off",
        "bundled models": ", ".join(bundled) or "MISSING",
        "bundled references": ", ".join(sorted(bundled_references())) or "MISSING",
        "InceptionV3 weights": str(inception) if inception else "not here; fetched by --protocol standard",
    }
    if output_format == "json":
        click.echo(json.dumps(checks, indent=2))
    else:
        click.echo(aligned([{"what": name, "found": value} for name, value in checks.items()]))
