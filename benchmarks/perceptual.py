"""Pairs of images: SSIM, MS-SSIM, PSNR and LPIPS against the usual packages, on equal pictures and weights.

    python benchmarks/perceptual.py                  # some two minutes
    python benchmarks/perceptual.py --curve          # over the image size, into perceptual_curve.csv

Every contender starts from what it takes: evalkit and scikit-image from bytes, the others from floats, which
they are handed and need not make. All compute the same pairs; how far their values lie from evalkit's is
printed with each comparison. torchmetrics pads the border by reflection and averages it too, so that its SSIM
is another number. LPIPS runs on seeded random weights in both packages, with the published heads; "reference
kept" compares new images with features of the reference images that were computed before.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import lpips
import numpy as np
import piq
import pytorch_msssim
import torch
from curves import points, write_curve
from interleaved import OURS, Ceilings, Comparison, ceilings, interleaved, peak_memory, roofline, save
from skimage import metrics as skimage_metrics
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional import image as torchmetrics_image

from evalkit.extractors.backbones import TOPOLOGIES
from evalkit.perceptual import PairMeasure, build_pair_measure
from evalkit.perceptual.distance import StageDistance

NETWORKS = {"squeeze": "squeezenet1_1", "vgg": "vgg16", "alex": "alexnet"}
WANG = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 255, "channel_axis": 2}
SIGNAL_PAIRS, MANY_SIGNAL_PAIRS = 16, 64
STAGE_PAIRS = {"squeeze": 32, "vgg": 32, "alex": 128}  # AlexNet takes .6 ms for each: fewer would be noise
SIGNAL_SIZE, STAGE_SIZE = 256, 64
KEPT, BOTH = f"{OURS}, reference kept", OURS
# Operations of a position: 4 maps, filtered by banded products of 12 x 22 and 8 x 18, and the rest.
EXECUTED = 4 * 2 * (22 + 18) + 20
Contenders = dict[str, Callable[[], Sequence[float]]]


def pictures(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Return uint8 ``[n, 3, size, size]`` pictures with noise, and without."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).float()
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    grain = torch.randn(smooth.shape, generator=generator)
    reference = (smooth + 6 * grain).clamp(0, 255).byte()
    noise = torch.randn(smooth.shape, generator=generator)
    return (reference + 12 * noise).clamp(0, 255).byte(), reference


def rows_last(images: Tensor) -> list[np.ndarray]:
    """Return uint8 ``[h, w, 3]`` arrays, as scikit-image takes them."""
    return [image.permute(1, 2, 0).contiguous().numpy() for image in images]


def ours(measure: PairMeasure, a: Tensor, b: Tensor) -> list[float]:
    """Return evalkit's values of uint8 pairs."""
    return measure(a, b, masks={})[measure.names[0]].tolist()


def signal(name: str, count: int, size: int) -> Contenders:
    """Return who computes ``psnr``, ``ssim`` or ``ms-ssim`` of the same pairs."""
    a, b = pictures(count, size)
    x, y = a.float(), b.float()
    pairs = list(zip(rows_last(b), rows_last(a), strict=True))
    measure = build_pair_measure(name, weights={}, device="cpu")
    own: Contenders = {OURS: partial(ours, measure, a, b)}
    options = {"data_range": 255.0, "reduction": "none"}
    if name == "psnr":
        peer = skimage_metrics.peak_signal_noise_ratio
        torch_peer = partial(torchmetrics_image.peak_signal_noise_ratio, dim=(1, 2, 3))
        return own | {
            "scikit-image": lambda: [peer(*pair, data_range=255) for pair in pairs],
            "torchmetrics": lambda: torch_peer(x, y, **options).tolist(),
        }
    small = pytorch_msssim.ms_ssim if name == "ms-ssim" else pytorch_msssim.ssim
    others: Contenders = {"pytorch-msssim": lambda: small(x, y, data_range=255, size_average=False).tolist()}
    if name == "ms-ssim":
        scales = torchmetrics_image.multiscale_structural_similarity_index_measure
        return own | others | {"torchmetrics": lambda: scales(x, y, **options).tolist()}
    similar = skimage_metrics.structural_similarity
    averaged = torchmetrics_image.structural_similarity_index_measure
    return (
        own
        | {"scikit-image": lambda: [similar(*pair, **WANG) for pair in pairs]}
        | {"torchmetrics": lambda: averaged(x, y, **options).tolist()}
        | others
        | {"piq": lambda: piq.ssim(x, y, data_range=255.0, reduction="none", downsample=False).tolist()}
    )


def seeded_state(name: str) -> dict[str, Tensor]:
    """Return He-scaled weights of a backbone."""
    generator = torch.Generator().manual_seed(16)
    state = {}
    for key, shape in TOPOLOGIES[name].layout().items():
        uniform = torch.rand(shape, generator=generator) - 0.5
        state[key] = uniform * (24 / uniform[0].numel()) ** 0.5 if key.endswith("weight") else uniform * 0.2
    return state


def package(variant: str) -> torch.nn.Module:
    """Return ``lpips.LPIPS`` with the seeded backbone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of its 'pretrained' argument
        model = lpips.LPIPS(net=variant, pnet_rand=True, verbose=False).eval()
    state = seeded_state(NETWORKS[variant])
    for part in model.net.children():
        for index, layer in part.named_children():
            for key, parameter in layer.named_parameters():
                parameter.data.copy_(state[f"features.{index}.{key}"])
    return model


def own_distance(variant: str) -> StageDistance:
    """Return evalkit's LPIPS on the seeded backbone."""
    name = NETWORKS[variant]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pth"
        torch.save(seeded_state(name), path)
        measure = build_pair_measure(f"lpips-{variant}", weights={name: path}, device="cpu")
    return cast("StageDistance", measure)


def stages(variant: str, count: int, size: int, *, kept: bool) -> Contenders:
    """Return who computes LPIPS of the same pairs."""
    a, b = pictures(count, size)
    x, y = (side.float() / 127.5 - 1 for side in (a, b))
    measure, model = own_distance(variant), package(variant)
    features = measure.features(b) if kept else []

    def theirs() -> list[float]:
        with torch.inference_mode():
            return model(x, y).flatten().tolist()

    if kept:
        return {
            KEPT: lambda: measure.between(measure.features(a), features).tolist(),
            "lpips package": theirs,
        }
    return {BOTH: partial(ours, measure, a, b), "lpips package": theirs}


def differences(contenders: Contenders) -> str:
    """Return the largest difference of a value from ours, for each peer."""
    values = {name: np.asarray(run()) for name, run in contenders.items()}
    first, *others = values
    gaps = ", ".join(f"{name} {np.abs(values[name] - values[first]).max():.1e}" for name in others)
    return f"largest difference of a value (mean {values[first].mean():.4f}): {gaps}"


def compared(
    work: str, contenders: Contenders, count: int, rounds: int, target: Mapping[str, float]
) -> Comparison:
    """Measure and print, with the agreement of the values as a note."""
    comparison = interleaved(
        work, contenders, rounds=rounds, amount=count, unit="pairs", target=target,
        notes=[differences(contenders)],
    )  # fmt: skip
    print(comparison.text(), flush=True)
    return comparison


def signal_comparisons(rounds: int) -> list[Comparison]:
    """Compare SSIM, MS-SSIM and PSNR."""
    targets = {
        "ssim": {"scikit-image": 4.5, "torchmetrics": 4.5, "pytorch-msssim": 2.3},
        "ms-ssim": {},
        "psnr": {"scikit-image": 1.5, "torchmetrics": 1.5},
    }
    works = [(name, SIGNAL_PAIRS) for name in targets] + [("psnr", MANY_SIGNAL_PAIRS)]
    found = []
    for name, count in works:
        # They take milliseconds: more turns, so that a thread that starts late does not decide.
        turns = 5 * rounds if name == "psnr" else 3 * rounds
        work = f"{name.upper()}, {count} pairs of 3 x {SIGNAL_SIZE} x {SIGNAL_SIZE}"
        found.append(compared(work, signal(name, count, SIGNAL_SIZE), count, turns, targets[name]))
    return found


def stage_comparisons(variants: Sequence[str], rounds: int) -> list[Comparison]:
    """Compare LPIPS, with both sides computed and with the reference's features kept."""
    found = []
    for variant in variants:
        count = STAGE_PAIRS[variant]
        for kept, target in ((False, 1.0), (True, 1.9)):
            contenders = stages(variant, count, STAGE_SIZE, kept=kept)
            work = f"LPIPS ({variant}), {count} pairs of 3 x {STAGE_SIZE} x {STAGE_SIZE}"
            work += ", reference kept" if kept else ", both sides"
            found.append(compared(work, contenders, count, rounds, {"lpips package": target}))
    return found


def rooflines(comparisons: Sequence[Comparison], machine: Ceilings) -> list[str]:
    """Return one line for SSIM and one for each network."""
    lines = []
    for comparison in comparisons:
        seconds = min(comparison.seconds[comparison.ours])
        if comparison.work.startswith("SSIM"):
            positions = SIGNAL_PAIRS * 3 * SIGNAL_SIZE**2
            work, ceiling = EXECUTED * positions, machine.float64
            traffic = 2 * positions
        elif comparison.ours == KEPT:
            variant = comparison.work.partition("(")[2].partition(")")[0]
            network = own_distance(variant).network
            with FlopCounterMode(display=False) as counter:
                network.stages(torch.zeros(1, 3, STAGE_SIZE, STAGE_SIZE))
            work, ceiling = counter.get_total_flops() * comparison.amount, machine.float32
            traffic = sum(tensor.nbytes for tensor in seeded_state(NETWORKS[variant]).values())
        else:
            continue
        name = comparison.work.partition(",")[0]
        done = {"operations": work, "traffic": traffic, "seconds": seconds}
        lines.append(roofline(name, **done, ceiling=ceiling, memory=machine.memory))
    return lines


def once(name: str, contender: str, count: int, size: int) -> None:
    """Run one contender once; what :func:`peak_memory` measures in a process of its own."""
    if name in NETWORKS:
        stages(name, count, size, kept=False)[contender]()
    else:
        signal(name, count, size)[contender]()


def memory_lines() -> list[str]:
    """Return the resident memory that each contender adds, its inputs and weights included."""
    lines = []
    works = (("ssim", SIGNAL_PAIRS, SIGNAL_SIZE), ("vgg", 4, SIGNAL_SIZE), ("squeeze", 4, SIGNAL_SIZE))
    for name, count, size in works:
        names = (BOTH, "lpips package") if name in NETWORKS else (OURS, "torchmetrics", "pytorch-msssim")
        used = ", ".join(f"{who} {peak_memory(once, name, who, count, size) / 1e6:.0f} MB" for who in names)
        title = f"LPIPS ({name})" if name in NETWORKS else name.upper()
        lines.append(f"peak memory, {title}, {count} pairs of 3 x {size} x {size}: {used}")
    return lines


def curve(rounds: int) -> None:
    """Write seconds for a pair over the image size."""
    works: list[tuple[str, Callable[[int], Contenders]]] = [
        ("SSIM of a pair", partial(signal, "ssim", 4)),
        ("LPIPS (squeeze) of a pair", partial(stages, "squeeze", 4, kept=False)),
        ("LPIPS (vgg) of a pair", partial(stages, "vgg", 4, kept=False)),
    ]
    rows = []
    for work, make in works:
        for size in (32, 64, 128, 256, 512):
            if size == 512 and "vgg" in work:  # a minute for a point
                continue
            rows += points(interleaved(work, make(size), rounds=rounds), work, "image size", size, of=4)
    write_curve("perceptual", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", action="store_true", help="growth with the image size instead")
    parser.add_argument("--only", choices=["signal", *NETWORKS], help="print one part; nothing is saved")
    arguments = parser.parse_args()
    if arguments.curve:
        curve(arguments.rounds)
        return
    wanted = [arguments.only] if arguments.only else ["signal", *NETWORKS]
    top = None if arguments.only else ceilings()
    comparisons = signal_comparisons(arguments.rounds) if "signal" in wanted else []
    comparisons += stage_comparisons([name for name in wanted if name in NETWORKS], arguments.rounds)
    if top is None:
        return
    lines = [*rooflines(comparisons, top.raised()), *memory_lines()]
    print("\n".join(lines))
    save("perceptual", comparisons, lines=lines)


if __name__ == "__main__":
    main()
