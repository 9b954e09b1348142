"""Whole programs: the FID of two folders of images, and the embedded protocol, start-up included.

    python benchmarks/end_to_end.py                  # 3 rounds of 4 programs: 5 minutes on two cores
    python benchmarks/end_to_end.py --count 1000     # start-up weighs less then: an hour
    python benchmarks/end_to_end.py --count 1000 --dims 192 --rounds 1    # fewer dimensions than images
    python benchmarks/end_to_end.py --embedded       # 2 048 images by the bundled network alone: 3 minutes

Every contender is started as a process of its own from the same two folders of 64 x 64 PNG files and the same
InceptionV3 weights (random ones: the published must be downloaded), and takes its own default batch size:
``evalkit score``, ``fidelity``, ``python -m pytorch_fid``, and torchmetrics in the few lines at the end of
this file, which it needs. evalkit computes its error bars too. clean-fid is missing: it takes its network
from a TorchScript file that must be downloaded. Peak memory is that of the process, without the workers that
pytorch-fid starts beside it. The distances are compared, each under the preset that repeats the tool;
torchmetrics antialiases when it resizes, so that its number is another. ``--dims`` takes an earlier layer, of
so few dimensions that the covariances of 1000 images are not singular and the peers' roots are right.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from frechet import by_pytorch_fid, numpy_moments
from interleaved import OURS, Comparison, interleaved, save
from pictures import encoded, write_folder
from safetensors.numpy import load_file

from evalkit.extractors.inception_network import expected_layout

SIDE, WIDTH, PROMISED = 64, 2048, 2.2
EMBEDDED_COUNT, EMBEDDED_SECONDS = 2048, 60.0
TOLERANCE = 1e-5
PYTORCH_FID_FILE = (
    "pt_inception-2015-12-05-6726825d.pth"  # as its download is called in the cache of torch.hub
)


@dataclass
class Programs:
    """Two folders, the weights, and how to start each tool on them, for features of ``dims`` dimensions.

    ``memory`` is the peak in bytes of each tool so far, ``values`` the distance that it printed last.
    """

    folder: Path
    dims: int = 2048
    memory: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """Where torch.hub would have put the published weights, for pytorch-fid to find."""
        return self.folder / "torch/hub/checkpoints" / PYTORCH_FID_FILE

    def make(self, count: int) -> None:
        """Write the folders, whose images differ in their seeds, and the weights."""
        for number, side in enumerate(("generated", "reference")):
            files = encoded(count, size=SIDE, kind="png", seed=number)
            write_folder(self.folder / side, files, kind="png")
        self.weights.parent.mkdir(parents=True)
        torch.save(random_inception(), self.weights)

    def run(self, name: str, command: Sequence[str]) -> str:
        """Run a program to its end, note its peak memory, and return what it printed."""
        environment = {**os.environ, "TORCH_HOME": str(self.folder / "torch")}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)  # noqa: S603
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            if process.returncode != 0:
                raise RuntimeError(f"{name} failed: {err.read().decode()[-2000:]}")
            self.memory[name] = max(self.memory.get(name, 0), usage.ru_maxrss * 1024)
            return out.read().decode()

    def evalkit(self, protocol: str, name: str) -> None:
        """Score with a fresh output folder: nothing that an earlier round computed is found again."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        metric = "fid" if self.dims == WIDTH else f"fd@{self.dims}"
        self.run(
            name,
            [
                *(sys.executable, "-m", "evalkit.cli", "score", "--images", str(self.folder / "generated")),
                *("--reference", str(self.folder / "reference"), "--protocol", protocol, "--metrics", metric),
                *("--weights", f"inception-v3={self.weights}", "--out", str(out), "--device", "cpu"),
            ],
        )
        (record,) = out.glob("*.json")
        (result,) = json.loads(record.read_text(encoding="utf-8"))["results"]
        self.values[name] = result["value"]

    def by_their_root(self, name: str) -> None:
        """Put the features that evalkit extracted last, as ``name``, through pytorch-fid's root.

        What is left then is the network's difference: with fewer images than dimensions rounding turns null
        eigenvalues into small roots.
        """
        sides = []
        for lane in sorted({path.parent for path in (self.folder / "out/state").glob("*/*.safetensors")}):
            shards = [load_file(path) for path in sorted(lane.glob("*.safetensors"))]
            sides.append(numpy_moments(np.concatenate([next(iter(shard.values())) for shard in shards])))
        self.values[f"{name}, their root"] = by_pytorch_fid(*sides)

    def fidelity(self) -> None:
        """Run torch-fidelity."""
        printed = self.run(
            "torch-fidelity",
            [
                *(str(Path(sys.executable).with_name("fidelity")), "--cpu", "--fid", "--json", "--silent"),
                *("--input1", str(self.folder / "generated"), "--input2", str(self.folder / "reference")),
                *("--feature-extractor-weights-path", str(self.weights), "--no-cache"),
                *("--feature-layer-fid", str(self.dims)),
            ],
        )
        self.values["torch-fidelity"] = json.loads(printed)["frechet_inception_distance"]

    def pytorch_fid(self) -> None:
        """Run pytorch-fid."""
        folders = [str(self.folder / "generated"), str(self.folder / "reference")]
        asked = ["--device", "cpu", "--dims", str(self.dims)]
        printed = self.run("pytorch-fid", [sys.executable, "-m", "pytorch_fid", *folders, *asked])
        self.values["pytorch-fid"] = float(re.findall(r"FID:\s*(\S+)", printed)[-1])

    def torchmetrics(self) -> None:
        """Run the lines for torchmetrics below."""
        printed = self.run("torchmetrics", [sys.executable, __file__, "--by-torchmetrics", str(self.folder)])
        self.values["torchmetrics"] = float(printed.split()[-1])


def random_inception() -> Mapping[str, torch.Tensor]:
    """Return a seeded state dict: He-scaled convolutions, batch norms away from the identity."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in expected_layout().items():
        uniform = torch.rand(shape, generator=generator)
        if name.endswith(("conv.weight", "fc.weight")):
            state[name] = (uniform - 0.5) * (24 / uniform[0].numel()) ** 0.5
        else:
            state[name] = uniform + 0.5 if name.endswith(("bn.weight", "var")) else (uniform - 0.5) * 0.4
    return state


def distances(count: int, *, dims: int, rounds: int, torchmetrics: bool) -> Comparison:
    """Compare the programs on two folders of ``count`` images."""
    whole = dims == WIDTH
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder), dims)
        programs.make(count)
        programs.evalkit("pytorch-fid", "evalkit as pytorch-fid")
        programs.by_their_root("evalkit as pytorch-fid")
        comparison = interleaved(
            f"{'FID' if whole else f'Fréchet distance of layer {dims}'} of two folders of {count} PNG images "
            f"of {SIDE} x {SIDE}, whole programs",
            {
                OURS: lambda: programs.evalkit("standard", OURS),
                "torch-fidelity": programs.fidelity,
                "pytorch-fid": programs.pytorch_fid,
                **({"torchmetrics": programs.torchmetrics} if torchmetrics else {}),
            },
            rounds=rounds,
            warm_up=False,
            amount=2 * count,
            unit="images",
            target={"torch-fidelity": PROMISED, "pytorch-fid": PROMISED} if whole else None,
        )
        programs.by_their_root(OURS)
        notes = [_agreement(programs.values, OURS, "torch-fidelity")]
        notes.append(_agreement(programs.values, "evalkit as pytorch-fid", "pytorch-fid"))
        if torchmetrics:
            notes.append(f"torchmetrics, antialiased: {programs.values['torchmetrics']:.6f}")
        notes += [f"peak memory of {name}: {peak / 1e6:.0f} MB" for name, peak in programs.memory.items()]
        return replace(comparison, notes=tuple(notes))


def _agreement(values: Mapping[str, float], ours: str, theirs: str) -> str:
    difference = abs(values[ours] / values[theirs] - 1)
    verdict = "equal" if difference <= TOLERANCE else "NOT EQUAL"
    told = f"{ours} {values[ours]:.6f}, {theirs} {values[theirs]:.6f}"
    rest = abs(values[f"{ours}, their root"] / values[theirs] - 1)
    return (
        f"{told}: {difference:.1e} relative, {verdict} to {TOLERANCE:g}; "
        f"{rest:.1e} where evalkit's features go through pytorch-fid's root"
    )


def embedded(rounds: int) -> Comparison:
    """Time ``evalkit score --images`` on the embedded protocol with its bundled reference."""
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(Path(folder))
        images = write_folder(
            Path(folder) / "images", encoded(EMBEDDED_COUNT, size=32, kind="jpg"), kind="jpg"
        )
        out = Path(folder) / "out"

        def score() -> None:
            shutil.rmtree(out, ignore_errors=True)
            programs.run(
                OURS,
                [
                    *(
                        sys.executable,
                        "-m",
                        "evalkit.cli",
                        "score",
                        "--images",
                        str(images),
                        "--device",
                        "cpu",
                    ),
                    *("--protocol", "embedded", "--reference", "cifar10-jpeg-train", "--out", str(out)),
                    *("--num-samples", str(EMBEDDED_COUNT)),
                ],
            )

        comparison = interleaved(
            f"evalkit score --images on {EMBEDDED_COUNT} JPEG of 32 x 32, embedded protocol, whole program",
            {OURS: score},
            rounds=rounds,
            warm_up=False,
            amount=EMBEDDED_COUNT,
            unit="images",
        )
    median = sorted(comparison.seconds[OURS])[rounds // 2]
    verdict = "met" if median < EMBEDDED_SECONDS else "MISSED"
    peak = f"peak memory: {programs.memory[OURS] / 1e6:.0f} MB"
    return replace(
        comparison, notes=(f"promised: less than {EMBEDDED_SECONDS:g} s on two cores: {verdict}", peak)
    )


def by_torchmetrics(folder: Path) -> None:
    """Print the FID by torchmetrics, whose users write these lines themselves."""
    from PIL import Image  # noqa: PLC0415
    from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: PLC0415

    weights = str(Programs(folder).weights)
    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=weights)
    for side in ("generated", "reference"):
        files = sorted((folder / side).iterdir())
        for start in range(0, len(files), 64):
            pixels = np.stack([np.asarray(Image.open(file)) for file in files[start : start + 64]])
            metric.update(torch.from_numpy(pixels).permute(0, 3, 1, 2), real=side == "reference")
    print(metric.compute().item())


def main() -> None:
    """Print and save the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=64, help="images in each folder")
    parser.add_argument("--dims", type=int, choices=(64, 192, 768, WIDTH), default=WIDTH)
    parser.add_argument("--embedded", action="store_true", help="only the embedded protocol")
    parser.add_argument("--no-torchmetrics", action="store_true", help="leave out torchmetrics")
    parser.add_argument("--by-torchmetrics", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.by_torchmetrics:
        by_torchmetrics(options.by_torchmetrics)
        return
    if options.embedded:
        name, comparison = "end_to_end_embedded", embedded(options.rounds)
    else:
        name = "end_to_end" if options.dims == WIDTH else f"end_to_end_{options.dims}"
        torchmetrics = options.dims == WIDTH and not options.no_torchmetrics
        comparison = distances(
            options.count, dims=options.dims, rounds=options.rounds, torchmetrics=torchmetrics
        )
    print(comparison.text(), flush=True)
    save(name, [comparison])


if __name__ == "__main__":
    main()
