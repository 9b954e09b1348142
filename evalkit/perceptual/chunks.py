"""The frame around every pair measure: check the pairs, run small chunks in strict numerics, join them.

On a CPU the chunks run side by side, one thread each, as those of the extractors do: values then do not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from evalkit.errors import InvalidInputError, UsageError
from evalkit.runtime import strict_numerics
from evalkit.threads import in_threads

Masks = Mapping[str, Tensor]
# One chunk of generated and reference images and masks, on the device -> float64 [n] values by name.
ChunkMeasure = Callable[[Tensor, Tensor, Masks], Mapping[str, Tensor]]


def check_pairs(generated: Tensor, reference: Tensor, masks: Masks, *, measure: str, minimum: int) -> None:
    """Check that two batches and their masks can be compared.

    Raises:
        UsageError: images are not uint8, or masks not bool.
        InvalidInputError: no pairs, shapes differ or are not ``[n, 3, h, w]``, or are below ``minimum``.
    """
    for side, images in (("generated", generated), ("reference", reference)):
        if images.dtype != torch.uint8:
            raise UsageError(f"{side} images must be uint8 in 0..255, not {images.dtype}")
    shape = list(generated.shape)
    if shape != list(reference.shape):
        raise InvalidInputError(
            f"generated images {shape} and reference images {list(reference.shape)} must have one shape"
        )
    if generated.ndim != 4 or generated.shape[1] != 3 or 0 in shape:
        raise InvalidInputError(f"pairs must be [n, 3, h, w] with n >= 1, not {shape}")
    if min(shape[2:]) < minimum:
        raise InvalidInputError(
            f"{measure} needs images of at least {minimum}x{minimum} pixels, not {shape[2]}x{shape[3]}"
        )
    for region, mask in masks.items():
        if mask.dtype != torch.bool:
            raise UsageError(f"mask {region!r} must be bool, not {mask.dtype}")
        if list(mask.shape) != [shape[0], 1, *shape[2:]]:
            raise InvalidInputError(
                f"mask {region!r} must be [n, 1, h, w] as the images, not {list(mask.shape)}"
            )


def measure_in_chunks(
    generated: Tensor,
    reference: Tensor,
    masks: Masks,
    *,
    measure: ChunkMeasure,
    device: torch.device,
    chunk: int,
) -> dict[str, Tensor]:
    """Apply ``measure`` to ``chunk`` pairs at a time, so that memory stays flat, and join on the CPU."""

    def run(start: int) -> dict[str, Tensor]:
        part = slice(start, start + chunk)
        with torch.inference_mode():  # a mode of the thread, so it is entered in each worker
            regions = {region: mask[part].to(device) for region, mask in masks.items()}
            values = measure(generated[part].to(device), reference[part].to(device), regions)
            return {name: value.cpu() for name, value in values.items()}

    starts = range(0, len(generated), chunk)
    with strict_numerics():
        parts = list(in_threads(run, starts) if device.type == "cpu" else map(run, starts))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return float64 ``[n]``: the mean of ``values`` ``[n, c, h, w]`` inside ``mask`` ``[n, 1, h, w]``.

    Values are finite; the mean is NaN where the mask holds no pixel.
    """
    inside = mask.to(values.device).flatten(1).double()
    total = values.sum(1, dtype=torch.float64).flatten(1).mul_(inside).sum(1)
    return total / (inside.sum(1) * values.shape[1])
