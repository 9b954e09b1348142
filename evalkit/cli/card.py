"""``evalkit card``: the model card of a checkpoint, from its header and its records."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.errors import InvalidInputError


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument(
    "records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="RECORD..."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; printed by default."
)
def card(checkpoint: Path, records: tuple[Path, ...], out: Path | None) -> None:
    """Write the Markdown card of an evalkit CHECKPOINT with the scores of its RECORDs."""
    from evalkit.atomic import write_atomically  # noqa: PLC0415
    from evalkit.generators.checkpoint import read_checkpoint  # noqa: PLC0415 - loads torch
    from evalkit.generators.facts import GENERATOR_FACTS  # noqa: PLC0415
    from evalkit.record import RunRecord  # noqa: PLC0415
    from evalkit.reporting.model_card import model_card  # noqa: PLC0415

    found = read_checkpoint(checkpoint)
    if found.architecture not in GENERATOR_FACTS or found.config is None:
        raise InvalidInputError(f"{checkpoint} is not a checkpoint of a model that evalkit trains")
    runs = [RunRecord.read(path) for path in records]
    for run, path in zip(runs, records, strict=True):
        if run.model.sha256 != found.sha256:
            raise InvalidInputError(
                f"{path} is about another checkpoint ({run.model.sha256 or 'none'})",
                hint=f"score this one: evalkit score --model {found.architecture} --ckpt {checkpoint}",
            )
    text = model_card(
        name=found.architecture,
        title=GENERATOR_FACTS[found.architecture].title,
        size=checkpoint.stat().st_size,
        parameters=runs[0].model.n_params or 0,
        classes=int(found.config.get("num_classes") or 0),
        training=found.training,
        records=runs,
    )
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text)
        click.echo(f"wrote {out}", err=True)
