"""Sampling with the bundled models: evalkit, the plain way, strict mode, and the DDPM by diffusers itself.

    python benchmarks/sampling.py                   # all models, some three minutes
    python benchmarks/sampling.py --models vae ddpm
    python benchmarks/sampling.py --curve           # over the batch, into sampling_curve.csv

"one batch" is the same network called once on the whole batch, with torch's threads inside every layer, as
one would write it (benchmarks/plain_sampling.py); "strict" is ``--determinism strict``: blocks of 16 on one
thread. The DDPM's peer is a loop over diffusers' UNet2DModel and DDIMScheduler with the same weights, labels
and noise, the loop of diffusers' own pipelines. Shown first: in how many of the images' 8-bit values two ways
differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import diffusers
import numpy as np
import torch
from curves import Point, points, write_curve
from interleaved import OURS, Ceilings, Comparison, ceilings, interleaved, roofline, save
from plain_sampling import PlainSampler
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.diffusion.unet import DenoisingUNet
from evalkit.generators.sampling import NativeGenerator, quantise
from evalkit.runtime import resolve_device, strict_numerics
from evalkit.seeding import balanced_labels, image_seeds, normal_per_image
from evalkit.sources.fixed_blocks import FixedBlockSource
from evalkit.sources.generated import GeneratedSource
from evalkit.throughput import warm_up


@dataclass(frozen=True)
class Row:
    """A bundled model and its sampler; ``images`` are as many as take a second or two."""

    model: str
    images: int
    sampler: str | None = None


ROWS = {
    "ddpm": Row("ddpm", 32),
    "cgan": Row("cgan", 256),
    "sngan": Row("sngan", 256),
    "stylegan": Row("stylegan", 512),
    "vae": Row("vae", 1024),
    "vae-mixture": Row("vae", 1024, "mixture"),
    "vq-vae": Row("vq-vae", 128),
    "gated-pixelcnn": Row("gated-pixelcnn", 64),
}
GPU_TARGET = 1.5  # the issue's: against diffusers on a GPU
STEPS = 20


def seeds_of(generator: NativeGenerator, count: int) -> tuple[IndexArray, IndexArray | None]:
    """Return the seeds and labels of the first images."""
    index = np.arange(count)
    classes = generator.num_classes
    return image_seeds(0, index), balanced_labels(0, index, classes) if classes else None


def difference(a: Tensor, b: Tensor) -> str:
    """Return in how many values two sets of images differ."""
    levels = (a.int() - b.int()).abs()
    return f"{int((levels > 0).sum())} of {levels.numel()} values differ, by {int(levels.max())} at most"


def compare(name: str, rounds: int, device: str, top: Ceilings) -> tuple[Comparison, str]:
    """Return one model's rates, and how near they are to the machine's products."""
    row = ROWS[name]
    options = SamplingOptions(sampler=row.sampler, device=device)
    ours = cast("NativeGenerator", load_generator(row.model, options=options))
    plain = PlainSampler(row.model, options)
    seeds, labels = seeds_of(ours, row.images)

    def strict() -> Tensor:
        source = FixedBlockSource(GeneratedSource(ours, row.images))
        return torch.cat([source.read(np.arange(i, i + 16)).images for i in range(0, row.images, 16)])

    contenders: dict[str, Callable[[], object]] = {
        OURS: lambda: ours.generate(seeds, labels=labels).cpu(),
        "one batch": lambda: plain(seeds, labels).cpu(),
        "strict": strict,
    }
    agreement = f"to one batch: {difference(ours.generate(seeds, labels=labels), plain(seeds, labels))}"
    comparison = interleaved(
        f"{name}, {row.images} images 32x32", contenders, rounds=rounds, warm_up=False,
        amount=row.images, unit="images", notes=(agreement,),
    )  # fmt: skip
    flops = warm_up(GeneratedSource(ours, 1), torch.device(device)).flops * row.images
    best = min(comparison.seconds[OURS])
    weights = 4 * (ours.parameter_count or 0) * ours.evaluations_per_image
    exact = row.model == "gated-pixelcnn"
    return comparison, roofline(
        f"{name} ({'float64' if exact else 'float32'}; weights read once an evaluation)",
        operations=flops, traffic=weights, seconds=best,
        ceiling=top.float64 if exact else top.float32, memory=top.memory,
    )  # fmt: skip


def by_diffusers(network: DenoisingUNet, noise: Tensor, labels: Tensor) -> Tensor:
    """Return uint8 images by diffusers' DDIM: the loop of its pipelines."""
    config = network.config
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=config.train_timesteps, beta_schedule=config.schedule,
        prediction_type=config.prediction, timestep_spacing="trailing", clip_sample=True,
    )  # fmt: skip
    scheduler.set_timesteps(STEPS)
    x = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(x, t.expand(len(x)).to(x.device), labels)
            x = scheduler.step(output, t, x).prev_sample
    return quantise(x.clamp(-1.0, 1.0))


def against_diffusers(images: int, rounds: int, device: str) -> Comparison:
    """Return the DDPM's rate by 20 steps of DDIM against that of diffusers."""
    options = SamplingOptions(sampler="ddim", steps=STEPS, device=device)
    ours = cast("NativeGenerator", load_generator("ddpm", options=options))
    network = cast("DenoisingUNet", load_generator("ddpm", options=options).network)  # type: ignore[attr-defined]
    seeds, labels = seeds_of(ours, images)
    where = torch.device(device)
    classes = torch.from_numpy(labels).to(where)

    def theirs() -> Tensor:
        return by_diffusers(network, normal_per_image(seeds, (3, 32, 32), device=where), classes)

    drawn, reference = ours.generate(seeds, labels=labels).cpu(), theirs().cpu()
    if int((drawn.int() - reference.int()).abs().max()) > 1:
        raise AssertionError(f"not the same images: {difference(drawn, reference)}")
    return interleaved(
        f"ddpm, {images} images 32x32, {STEPS} steps of DDIM",
        {OURS: lambda: ours.generate(seeds, labels=labels).cpu(), "diffusers": lambda: theirs().cpu()},
        rounds=rounds, warm_up=False, amount=images, unit="images",
        target={"diffusers": GPU_TARGET} if where.type == "cuda" else None,
        notes=(difference(drawn, reference),),
    )  # fmt: skip


def curve(rounds: int, models: list[str], device: str) -> None:
    """Write seconds of an image over the batch."""
    rows: list[Point] = []
    for name in models:
        row = ROWS[name]
        options = SamplingOptions(sampler=row.sampler, device=device)
        ours = cast("NativeGenerator", load_generator(row.model, options=options))
        plain = PlainSampler(row.model, options)
        for batch in (1, 4, 16, 64, 256):
            if batch > 4 * row.images:
                continue
            seeds, labels = seeds_of(ours, batch)
            both: dict[str, Callable[[], object]] = {
                OURS: lambda s=seeds, y=labels, g=ours: g.generate(s, labels=y).cpu(),
                "one batch": lambda s=seeds, y=labels, g=plain: g(s, y).cpu(),
            }
            comparison = interleaved(name, both, rounds=rounds)
            rows += points(comparison, f"{name}, seconds of an image", "batch", batch, of=batch)
            print(*rows[-2:], sep="\n", flush=True)
    write_curve("sampling", rows)


def main() -> None:
    """Run the models, or the curve."""
    parser = argparse.ArgumentParser(description="Sampling with the bundled models.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=ROWS, default=list(ROWS), metavar="MODEL")
    parser.add_argument("--curve", action="store_true")
    chosen = parser.parse_args()
    device = str(resolve_device("auto"))
    with strict_numerics():
        if chosen.curve:
            curve(chosen.rounds, chosen.models, device)
            return
        comparisons, lines, top = [], [], ceilings(rounds=2)
        for name in chosen.models:
            comparison, line = compare(name, chosen.rounds, device, top)
            comparisons.append(comparison)
            lines.append(line)
            print(comparison.text(), line, sep="\n", end="\n\n", flush=True)
        if "ddpm" in chosen.models:
            comparisons.append(against_diffusers(ROWS["ddpm"].images, chosen.rounds, device))
            print(comparisons[-1].text())
    save("sampling", comparisons, lines=lines)


if __name__ == "__main__":
    main()
