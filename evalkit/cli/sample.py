"""``evalkit sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from evalkit.cli.options import checkpoint_weights_option, determinism_option, preset_option
from evalkit.errors import UsageError


@click.command(context_settings={"show_default": True})
@click.option(
    "--model",
    required=True,
    metavar="NAME|auto|pkg.mod:obj",
    help="Model to sample; auto: the one that reads --ckpt.",
)
@click.option(
    "--ckpt",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint, or a folder of diffusers; the bundled one by default.",
)
@preset_option
@checkpoint_weights_option
@click.option("-n", "--num-samples", type=click.IntRange(min=1), default=64, metavar="N")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Base seed: sample i is the i-th that `score` sees."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, metavar="N")
@click.option("--sampler", metavar="NAME")
@click.option("--steps", type=int, metavar="N")
@click.option("--guidance", type=float, metavar="W")
@click.option("--truncation", type=float, metavar="PSI", help="Of a style-based GAN, 0 to 1.")
@click.option("--eta", type=float, metavar="ETA")
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Of a text pipeline: a line each."
)
@determinism_option
@click.option("--device", default="auto")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="A folder (PNG files), FILE.npz (arr_0 uint8 NHWC, arr_1 labels) or FILE.png (one grid).",
)
def sample(
    model: str,
    ckpt: Path | None,
    preset: str | None,
    weights: Literal["ema", "raw"],
    num_samples: int,
    seed: int,
    batch_size: int,
    prompts: Path | None,
    determinism: str,
    device: str,
    out: Path,
    **sampling: str | float | None,
) -> None:
    """Write samples of a model; sample i is the same for any batch size.

    \b
    evalkit sample --model ddpm -n 64 --out grid.png
    evalkit sample --model cgan -n 50000 --out samples.npz
    """
    import numpy as np  # noqa: PLC0415

    from evalkit.cli.console import StderrConsole  # noqa: PLC0415 - loads torch
    from evalkit.generators import SamplingOptions, load_generator  # noqa: PLC0415
    from evalkit.prompts import drawn_with_prompts  # noqa: PLC0415
    from evalkit.runtime import resolve_device, strict_numerics  # noqa: PLC0415
    from evalkit.sample_files import write_manifest, write_samples  # noqa: PLC0415
    from evalkit.seeding import SEED_SCHEME, image_seeds  # noqa: PLC0415
    from evalkit.sources.fixed_blocks import FixedBlockSource  # noqa: PLC0415
    from evalkit.sources.generated import GeneratedSource  # noqa: PLC0415

    if out.suffix not in {"", ".npz", ".png"}:
        raise UsageError(f"--out {out}: unknown kind {out.suffix!r}", hint="a folder, FILE.npz or FILE.png")
    options = SamplingOptions(device=str(resolve_device(device)), **sampling)  # type: ignore[arg-type]
    generator = load_generator(model, ckpt, options=options, preset=preset, weights=weights)
    plain = GeneratedSource(generator, num_samples, seed)
    drawn = drawn_with_prompts(plain, prompts) if prompts is not None else plain
    source = FixedBlockSource(drawn) if determinism == "strict" else drawn
    images, labels = [], []
    with (
        StderrConsole() as console,
        strict_numerics(),
        console.progress(f"sampling {model}", num_samples) as progress,
    ):
        for start in range(0, num_samples, batch_size):
            batch = source.read(np.arange(start, min(start + batch_size, num_samples), dtype=np.int64))
            for _, stacked in batch.same_size_groups():
                images.append(stacked.cpu().numpy())
            if batch.labels is not None:
                labels.append(batch.labels)
            progress(len(batch))
        drawn_images, drawn_labels = np.concatenate(images), np.concatenate(labels) if labels else None
        write_samples(out, drawn_images, labels=drawn_labels)
        manifest = write_manifest(
            out,
            drawn_images,
            source=source.spec,
            generator=drawn.generator.spec,
            seeds=image_seeds(seed, np.arange(num_samples, dtype=np.int64)),
            labels=drawn_labels,
            facts={"base_seed": seed, "seed_scheme": SEED_SCHEME, "determinism": determinism},
        )
        console.note(f"wrote {num_samples} samples to {out}, and what they are to {manifest.name}")
