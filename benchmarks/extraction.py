"""InceptionV3 against the networks of torch-fidelity and pytorch-fid, EfficientNet-Lite0 against timm's.

    python benchmarks/extraction.py             # tables, rooflines: 5 minutes on two cores
    python benchmarks/extraction.py --curve     # extraction_curve.csv: by batch and by image size

Every contender starts from the same uint8 images, resizes them itself, and has the same weights: random ones
for InceptionV3, the bundled ones for EfficientNet-Lite0. The largest difference of the features from
evalkit's, under the preset that repeats the peer, is printed. OpenVINO, the other runtime for CPUs, runs the
same ONNX graph behind evalkit's own resizer: it is here to show why it is not used. What a runtime costs
before the first image is measured in fresh processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from curves import Point, points, write_curve
from interleaved import Ceilings, Comparison, ceilings, interleaved, roofline, save
from torch import Tensor, nn

from evalkit.core import Extractor
from evalkit.extractors import build_extractor
from evalkit.extractors.efficientnet_lite import EfficientNetLite0, bundled_weights
from evalkit.extractors.facts import Backend
from evalkit.extractors.inception import InceptionV3
from evalkit.extractors.inception_network import expected_layout
from evalkit.extractors.onnx_graph import INPUT, onnx_model

COUNT, SIDE = 32, 299
BATCHES, SIDES = (1, 2, 4, 8, 16, 32, 64), (32, 64, 128, 256, 512)
Run = Callable[[Tensor], Tensor]


def random_inception() -> dict[str, Tensor]:
    """Return a state dict of He-scaled convolutions and batch norms away from the identity."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in expected_layout().items():
        uniform = torch.rand(shape, generator=generator)
        if name.endswith(("conv.weight", "fc.weight")):
            state[name] = (uniform - 0.5) * (24 / uniform[0].numel()) ** 0.5
        else:
            state[name] = uniform + 0.5 if name.endswith(("bn.weight", "var")) else (uniform - 0.5) * 0.4
    return state


def images(count: int = COUNT, side: int = SIDE) -> Tensor:
    """Return smooth random images, uint8 ``[n, 3, side, side]``."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(side))
    return F.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1).mul(255).byte()


def of_evalkit(extractor: Extractor, head: str) -> Run:
    return lambda batch: extractor(batch, [head])[head]


def inceptions(path: Path) -> tuple[dict[str, Run], nn.Module]:
    """Return the contenders by name, ours first, and a network of modules to count operations in."""
    state = torch.load(path, weights_only=True)
    pytorch_fid: Any = import_module("pytorch_fid.inception")
    torch_fidelity: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
    for module in (pytorch_fid, torch_fidelity):
        module.load_state_dict_from_url = lambda *_, **__: dict(state)
    fidelity = torch_fidelity.FeatureExtractorInceptionV3("peer", ["2048"])
    fid = pytorch_fid.InceptionV3((3,)).eval()
    contenders = {
        "evalkit": of_evalkit(InceptionV3(weights=path, backend="onnxruntime"), "2048"),
        "evalkit (torch)": of_evalkit(InceptionV3(weights=path, backend="torch"), "2048"),
        "torch-fidelity": lambda batch: cast(Tensor, fidelity(batch)[0]),
        "pytorch-fid": lambda batch: cast(Tensor, fid(batch.float() / 255)[0].flatten(1)),
    }
    return contenders, fid


def efficientnets() -> tuple[dict[str, Run], nn.Module]:
    """Return the contenders by name, ours first, and a network of modules to count operations in."""
    network: Any = import_module("timm").create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = torch.load(bundled_weights(), weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))

    def by_timm(batch: Tensor) -> Tensor:
        resized = F.interpolate(batch.float(), (224, 224), mode="bicubic", antialias=True)
        return cast(Tensor, network.forward_features((resized - 127) / 128).mean((2, 3)))

    return {
        "evalkit": of_evalkit(EfficientNetLite0(backend="onnxruntime"), "pooled"),
        "evalkit (torch)": of_evalkit(EfficientNetLite0(backend="torch"), "pooled"),
        "timm, torch eager": by_timm,
    }, network


def by_openvino(extractor: EfficientNetLite0 | InceptionV3, head: str, *, side: int) -> Run:
    """Return OpenVINO on the graph that onnxruntime gets, behind the same resizer."""
    openvino: Any = import_module("openvino")
    engine: Any = extractor.engine
    model = onnx_model(engine._network, frozenset({head}), shape=(3, side, side))  # noqa: SLF001
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: Tensor) -> Tensor:
        pixels = engine._prepare(batch)  # noqa: SLF001
        return torch.from_numpy(compiled({INPUT: pixels.numpy()})[0].copy())

    return run


def costs(network: nn.Module, side: int) -> tuple[float, float]:
    """Return floating point operations, and bytes of weights and activations, of one image ``side`` wide.

    Counted by hooks on convolutions and linear layers; each activation is written and read once.
    """
    operations = traffic = 0.0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal operations, traffic
        weight = cast(Tensor, module.weight)
        operations += 2 * output.numel() * weight[0].numel()
        traffic += 2 * output.nbytes

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network(torch.rand(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return operations, traffic


def compared(
    work: str,
    contenders: Mapping[str, Run],
    *,
    rounds: int,
    targets: Mapping[str, Mapping[str, float]],
    repeating: Mapping[str, Run],
) -> list[Comparison]:
    """Interleave all contenders once; one comparison for each of ours that has ``targets``.

    ``repeating`` holds ours under the preset that repeats a peer, where that is not the one that is timed.
    """
    batch = images()
    with torch.inference_mode():
        found = {name: run(batch) for name, run in contenders.items()}
        repeated = {name: run(batch) for name, run in repeating.items()}
        runs = {name: (lambda run=run: run(batch)) for name, run in contenders.items()}
        whole = interleaved(work, runs, rounds=rounds, amount=COUNT, unit="images")
    notes = []
    for name, features in found.items():
        if name != "evalkit":
            own = repeated.get(name, found["evalkit"])
            worst = float((features - own).abs().max() / own.abs().max())
            preset = f" under preset {name}" if name in repeated else ""
            notes.append(f"features of {name} differ from evalkit's{preset} by {worst:.0e} of the largest")
    out: list[Comparison] = []
    for ours, target in targets.items():
        others = whole.seconds if ours == "evalkit" else target
        seconds = {name: whole.seconds[name] for name in dict.fromkeys([ours, *others])}
        title = work if ours == "evalkit" else f"{work}, without a runtime"
        out.append(Comparison(title, seconds, COUNT, "images", target, tuple(notes) if not out else ()))
        print(out[-1].text(), flush=True)
    return out


def roof(comparison: Comparison, network: nn.Module, *, side: int, top: Ceilings) -> list[str]:
    """Return a roofline of each of ours."""
    operations, traffic = costs(network, side)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return [
        roofline(
            f"{comparison.work}, {name}", operations=COUNT * operations, traffic=COUNT * traffic + weights,
            seconds=statistics.median(seconds), ceiling=top.float32, memory=top.memory,
        )
        for name, seconds in comparison.seconds.items()
        if name.startswith("evalkit")
    ]  # fmt: skip


def _started(queue: Queue[float], name: str, weights: Path | None, head: str, backend: Backend) -> None:
    batch = images(1)
    start = time.perf_counter()
    build_extractor(name, weights=weights, backend=backend)(batch, [head])
    queue.put(time.perf_counter() - start)


def start_up(name: str, weights: Path | None, head: str) -> str:
    """Return a line: seconds from nothing but imports to the features of one image, in fresh processes."""
    context = multiprocessing.get_context("spawn")
    seconds = {}
    backends: tuple[Backend, ...] = ("torch", "onnxruntime")
    for backend in backends:
        best = []
        for _ in range(3):
            queue = context.Queue()
            process = context.Process(target=_started, args=(queue, name, weights, head, backend))
            process.start()
            best.append(queue.get())
            process.join()
        seconds[backend] = min(best)
    return f"start-up, {name} built and one image through it: " + ", ".join(
        f"{value:.2f} s by {backend}" for backend, value in seconds.items()
    )


def curve(path: Path) -> None:
    """Write seconds by batch (at the network's own size) and by the side of 32 images."""
    rows: list[Point] = []
    for work, (contenders, _), side in (
        ("InceptionV3", inceptions(path), SIDE), ("EfficientNet-Lite0", efficientnets(), 224)
    ):  # fmt: skip
        cases = [("batch", n, images(n, side)) for n in BATCHES]
        cases += [("side of 16 images, pixels", pixels, images(16, pixels)) for pixels in SIDES]
        for variable, at, batch in cases:
            runs = {name: (lambda run=run, batch=batch: run(batch)) for name, run in contenders.items()}
            with torch.inference_mode():
                timed = interleaved(work, runs, rounds=3)
            print(work, variable, at, flush=True)
            rows += points(timed, work, variable, at)
    write_curve("extraction", rows)


def of_inception(path: Path, *, rounds: int) -> tuple[list[Comparison], nn.Module]:
    """Compare the InceptionV3 networks; also return one whose operations can be counted."""
    contenders, modules = inceptions(path)
    if find_spec("openvino"):
        contenders["OpenVINO"] = by_openvino(InceptionV3(weights=path), "2048", side=SIDE)
    peers = ("torch-fidelity", "pytorch-fid")
    targets = {"evalkit": dict.fromkeys(peers, 2.1), "evalkit (torch)": dict.fromkeys(peers, 1.5)}
    work = f"InceptionV3, {COUNT} images of {SIDE} x {SIDE}"
    preset = "pytorch-fid"
    repeating = {preset: of_evalkit(InceptionV3(weights=path, preset=preset), "2048")}
    found = compared(work, contenders, rounds=rounds, targets=targets, repeating=repeating)
    return found, modules


def of_efficientnet(*, rounds: int) -> tuple[list[Comparison], nn.Module]:
    """Compare the EfficientNet-Lite0 networks; also return one whose operations can be counted."""
    contenders, modules = efficientnets()
    if find_spec("openvino"):
        contenders["OpenVINO"] = by_openvino(EfficientNetLite0(), "pooled", side=224)
    targets = {"evalkit": {"timm, torch eager": 4.0}}
    work = f"EfficientNet-Lite0, {COUNT} images"
    return compared(work, contenders, rounds=rounds, targets=targets, repeating={}), modules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--only", choices=["inception", "efficientnet"], help="one network; saves nothing")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peers
    comparisons: list[Comparison] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "inception.pth")
        torch.save(random_inception(), path)
        if arguments.curve:
            curve(path)
            return
        top = ceilings()
        measured: list[tuple[Comparison, nn.Module, int]] = []
        if arguments.only != "efficientnet":
            found, modules = of_inception(path, rounds=arguments.rounds)
            comparisons += found
            measured.append((found[0], modules, SIDE))
            lines.append(start_up("inception-v3", path, "2048"))
        if arguments.only != "inception":
            found, modules = of_efficientnet(rounds=arguments.rounds)
            comparisons += found
            measured.append((found[0], modules, 224))
            lines.append(start_up("efficientnet-lite0", None, "pooled"))
    top = top.raised()
    lines += [
        line
        for comparison, modules, side in measured
        for line in roof(comparison, modules, side=side, top=top)
    ]
    print("\n".join(lines))
    if arguments.only is None:
        save("extraction", comparisons, lines=lines)


if __name__ == "__main__":
    main()
