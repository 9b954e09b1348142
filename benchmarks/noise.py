"""Seeded noise: what a sampler draws for its images, each from its own seed.

    python benchmarks/noise.py                      # about half a minute
    python benchmarks/noise.py --images 50000       # the full row: two minutes
    python benchmarks/noise.py --curve              # over the size of an image's noise, into noise_curve.csv

The start of a diffusion model or a latent is drawn from ``torch.Generator`` (Mersenne Twister) by the image's
seed: ``seeding.normal_per_image`` seeds one generator anew for each image and writes into one tensor, on two
threads where it pays; the plain way is a generator, an allocation and a copy for each image. The noise of a
sampler's steps comes from ``counter_noise.normal_at`` (Philox); the plain ways are the formula over whole
tensors, and numpy's Philox with a generator for each image (other numbers from another counter, for the time
only). All but the last are equal to the last bit, which is asserted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from curves import points, write_curve
from interleaved import OURS, Comparison, interleaved, save
from torch import Tensor

from evalkit.counter_noise import normal_at
from evalkit.seeding import IndexArray, image_seeds, normal_per_image

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)
PROMISED = 1.4
_WORD = 0xFFFFFFFF


def generator_each(seeds: IndexArray, shape: tuple[int, ...]) -> Tensor:
    """A generator, an allocation and a copy for each image."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def plain_normal(seeds: IndexArray, step: int, count: int) -> Tensor:
    """Philox4x32-10 and Box & Muller over whole tensors, a new one for each operation."""
    keys = torch.from_numpy(seeds)[:, None]
    blocks = torch.arange(-(-count // 4))[None]
    c0, c1, c2, c3 = blocks, torch.full_like(blocks, step), torch.zeros_like(blocks), torch.zeros_like(blocks)
    k0, k1 = keys & _WORD, (keys >> 32) & _WORD
    for _ in range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((second >> 32) & _WORD) ^ c1 ^ k0, second & _WORD
        c2, c3 = ((first >> 32) & _WORD) ^ c3 ^ k1, first & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    unit = torch.stack((c0, c1, c2, c3), dim=-1).view(len(seeds), -1, 2).double()
    radius = torch.sqrt(-2.0 * torch.log((unit[..., 0] + 1.0) * 2.0**-32))
    angle = unit[..., 1] * (2.0 * torch.pi * 2.0**-32)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).float().flatten(1)[:, :count]


def numpy_philox(seeds: IndexArray, step: int, count: int) -> Tensor:
    """A generator of numpy for each image: other numbers."""
    rows = np.empty((len(seeds), count), dtype=np.float32)
    for seed, row in zip(seeds.tolist(), rows, strict=True):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=step))
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def starts(images: int, shape: tuple[int, ...], rounds: int) -> Comparison:
    """Noise to start from, against a generator for each image."""
    seeds = image_seeds(0, np.arange(images))
    if not torch.equal(normal_per_image(seeds[:500], shape, device=CPU), generator_each(seeds[:500], shape)):
        raise AssertionError("the numbers differ")
    threads = torch.get_num_threads()
    return interleaved(
        f"noise to start from, {images} x {'x'.join(map(str, shape))}, {threads} threads",
        {
            OURS: lambda: normal_per_image(seeds, shape, device=CPU),
            "a generator for each image": lambda: generator_each(seeds, shape),
        },
        rounds=rounds,
        amount=images,
        unit="images",
        target={"a generator for each image": PROMISED} if shape == SHAPE else None,
        notes=("equal to the last bit",),
    )


def steps(images: int, rounds: int) -> Comparison:
    """Noise of one step of a stochastic sampler, on one thread: parts of a batch run side by side."""
    torch.set_num_threads(1)
    seeds, count = image_seeds(0, np.arange(images)), int(np.prod(SHAPE))
    if not torch.equal(normal_at(seeds, 3, (count,), device=CPU), plain_normal(seeds, 3, count)):
        raise AssertionError("the numbers differ")
    repeats = max(1, 2048 // images)

    def often(draw: Callable[[int], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for step in range(repeats):
                draw(step)

        return run

    return interleaved(
        f"noise of a step, {images} x 3x32x32, {repeats} steps, one thread",
        {
            OURS: often(lambda step: normal_at(seeds, step, SHAPE, device=CPU)),
            "the formula over whole tensors": often(lambda step: plain_normal(seeds, step, count)),
            "numpy's Philox for each image": often(lambda step: numpy_philox(seeds, step, count)),
        },
        rounds=rounds,
        amount=images * repeats,
        unit="images",
        notes=("equal to the last bit to the formula; numpy's are other numbers",),
    )


def curve(rounds: int) -> None:
    """Write the times over the numbers an image takes."""
    rows = []
    for side in (1, 2, 4, 8, 16, 32, 64, 128):
        images = max(64, min(20_000, 2**25 // (3 * side**2)))
        comparison = starts(images, (3, side, side), rounds)
        rows += points(comparison, "seeded noise, seconds of an image", "numbers", 3 * side**2, of=images)
    write_curve("noise", rows)


def main() -> None:
    """Run the rows, or the curve."""
    parser = argparse.ArgumentParser(description="Seeded noise against plain ways to draw it.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--curve", action="store_true")
    chosen = parser.parse_args()
    if chosen.curve:
        curve(chosen.rounds)
        return
    comparisons = [
        starts(chosen.images, SHAPE, chosen.rounds),
        starts(chosen.images, (128,), chosen.rounds),
        steps(32, chosen.rounds),  # last: it leaves torch with one thread
    ]
    for comparison in comparisons:
        print(comparison.text(), end="\n\n")
    save("noise", comparisons)


if __name__ == "__main__":
    main()
