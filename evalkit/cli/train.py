"""``evalkit train``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("recipe")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Labelled 32x32 images: parquet, folder with a sub-folder for each class, npz …",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the state, log, previews and the final RECIPE.safetensors.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Steps; the recipe's number by default."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="The recipe's by default.")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--device", default="auto")
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads; part of what is reproduced."
)
@click.option(
    "--keep",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="STEP",
    help="Also keep the checkpoint of this step as RECIPE-STEP.safetensors (repeatable).",
)
def train(
    recipe: str,
    data: Path,
    out: Path,
    steps: int | None,
    batch_size: int | None,
    seed: int,
    device: str,
    threads: int | None,
    keep: tuple[int, ...],
) -> None:
    """Train RECIPE again; continues where a run in the same folder stopped.

    Recipes: cgan, ddpm, ddpm-large (the same model, larger, for a GPU), gated-pixelcnn, sngan, stylegan, vae,
    vq-vae.

    \b
    evalkit train vae --data train.parquet --out runs/vae
    evalkit score --model vae --ckpt runs/vae/vae.safetensors
    """
    import torch  # noqa: PLC0415

    from evalkit.cli.console import StderrConsole  # noqa: PLC0415 - loads torch
    from evalkit.provenance import source_commit  # noqa: PLC0415
    from evalkit.runtime import resolve_device  # noqa: PLC0415
    from evalkit.sources import open_source  # noqa: PLC0415
    from evalkit.training.loop import FitOptions, fit  # noqa: PLC0415
    from evalkit.training.recipes import RECIPES, export, read_training_set  # noqa: PLC0415

    chosen = RECIPES[recipe]
    if threads:
        torch.set_num_threads(threads)
    place = str(resolve_device(device))
    options = FitOptions(
        steps=steps or chosen.steps,
        batch_size=batch_size or chosen.batch_size,
        seed=seed,
        device=place,
        keep=keep,
    )
    with StderrConsole() as console:
        source = open_source(data)
        task = chosen.task(options.steps, place, seed)
        config, _ = task.export()
        training_set = read_training_set(
            source,
            resolution=int(str(config.get("resolution", 32))),
            num_classes=int(str(config["num_classes"])),
        )
        description: dict[str, object] = {
            "recipe": recipe,
            "data": data.name,
            "images": len(source),
            "images_sha256": source.spec.sha256,
            "seed": seed,
            "commit": source_commit(),
            "device": place,
            "threads": torch.get_num_threads(),
            "batch_size": options.batch_size,
        }

        def keep_checkpoint(facts: dict[str, float]) -> None:
            export(task, out / f"{recipe}-{facts['steps']}.safetensors", {**description, **facts})

        facts = fit(task, training_set, options, out=out, keep=keep_checkpoint)
        path = out / f"{recipe}.safetensors"
        export(task, path, {**description, **facts})
        if chosen.complete is not None:
            chosen.complete(path, training_set)
        console.note(f"wrote {path}; try it: evalkit score --model {task.architecture} --ckpt {path}")
