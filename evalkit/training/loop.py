"""The one training loop: a task says what a step is, the loop orders data, saves, resumes and exports.

Step s depends on nothing but the state after step s - 1, the base seed and s: the data order is a Philox
permutation of each epoch and the noise comes from a generator seeded by (seed, s). A run that is killed
and started again therefore continues as if nothing had happened.
"""

from __future__ import annotations

import copy
import csv
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from evalkit.errors import InvalidInputError, UsageError

STATE_FILE = "training-state.pt"
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class TrainingTask(Protocol):
    """What differs between recipes."""

    @property
    def architecture(self) -> str:
        """Registered name of the generator that reads the export."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with weights that a resumed run needs, averaged copies included."""
        ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """All optimizers by name."""
        ...

    def step(self, images: Tensor, labels: Tensor, *, step: int, rng: torch.Generator) -> dict[str, float]:
        """Take one optimizer step on float images ``[b, 3, h, w]`` in [-1, 1]; return what to log."""
        ...

    def finish(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Last touch before an export, for example recalibrating batch-norm statistics.

        Training may go on afterwards, as if it had not been called.
        """
        ...

    def export(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Return the network's configuration and the weights to publish."""
        ...

    def preview(self, rng: torch.Generator) -> Tensor:
        """Return an 8x8 grid's images, float ``[64, 3, h, w]`` in [-1, 1]."""
        ...


@dataclass(frozen=True)
class FitOptions:
    """How long and where to train."""

    steps: int
    batch_size: int
    seed: int = 0
    device: str = "cpu"
    save_seconds: float = 120.0
    preview_every: int = 1000
    flip: bool = True
    keep: tuple[int, ...] = ()
    """Steps at which a checkpoint is kept besides the last one: a ladder of known order."""

    @property
    def data_order(self) -> dict[str, int]:
        """What decides which images a step sees; a resumed run must have the same."""
        return {"batch_size": self.batch_size, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """uint8 images ``[n, 3, h, w]`` and int64 labels ``[n]``, in memory."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def batch(self, options: FitOptions, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images in [-1, 1] and labels of ``step``, flipped at random where asked."""
        per_epoch = len(self.images) // options.batch_size
        if per_epoch == 0:
            raise InvalidInputError(
                f"{len(self.images)} images are fewer than one batch of {options.batch_size}",
                hint="pass a smaller --batch-size",
            )
        epoch, position = divmod(step, per_epoch)
        order = np.random.Generator(np.random.Philox(key=[options.seed, epoch])).permutation(len(self.images))
        chosen = np.sort(order[position * options.batch_size : (position + 1) * options.batch_size])
        images = torch.from_numpy(self.images[chosen]).to(options.device).float().div_(127.5).sub_(1.0)
        if options.flip:
            mask = torch.rand(len(images), generator=rng).to(images.device) < 0.5
            images = torch.where(mask[:, None, None, None], images.flip(3), images)
        labels = torch.from_numpy(self.labels[chosen]).to(options.device)
        return images.contiguous(memory_format=torch.channels_last), labels


def fit(
    task: TrainingTask,
    data: TrainingSet,
    options: FitOptions,
    *,
    out: Path,
    keep: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train ``task`` to ``options.steps``, resuming from ``out`` where a state is there.

    Writes ``training-state.pt`` (replaced atomically), ``log.csv`` and ``preview-*.png`` below ``out``, and
    calls ``keep`` with the facts so far at every step of ``options.keep``.

    Returns:
        Facts for the model card: steps, images seen, and seconds spent over all runs.
    """
    out.mkdir(parents=True, exist_ok=True)
    start, seconds = _resume(task, options, out / STATE_FILE)
    _forget_after(out / "log.csv", start)
    clock = saved = time.monotonic()
    bar = tqdm(range(start, options.steps), initial=start, total=options.steps, desc="train", unit="step",
               file=sys.stderr, mininterval=1.0)  # fmt: skip
    for step in bar:
        logged = _take_step(task, data, options, step)
        if (step + 1) % 50 == 0:
            bar.set_postfix({k: f"{v:.3g}" for k, v in logged.items()})
            _log(out / "log.csv", step + 1, logged)
        if (step + 1) % options.preview_every == 0:
            save_grid(task.preview(torch.Generator().manual_seed(0)), out / f"preview-{step + 1:06d}.png")
        if keep and step + 1 in options.keep:
            task.finish(_recalibration_batches(data, options))
            keep(_facts(options, steps=step + 1, seconds=seconds + time.monotonic() - clock))
        if time.monotonic() - saved > options.save_seconds:
            saved = time.monotonic()
            _save(task, options, out / STATE_FILE, step=step + 1, seconds=seconds + saved - clock)
    seconds += time.monotonic() - clock
    _save(task, options, out / STATE_FILE, step=max(options.steps, start), seconds=seconds)
    task.finish(_recalibration_batches(data, options))
    save_grid(task.preview(torch.Generator().manual_seed(0)), out / "preview-final.png")
    return _facts(options, steps=options.steps, seconds=seconds)


def _take_step(task: TrainingTask, data: TrainingSet, options: FitOptions, step: int) -> dict[str, float]:
    rng = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    images, labels = data.batch(options, step, rng)
    logged = task.step(images, labels, step=step, rng=rng)
    if not all(np.isfinite(v) for v in logged.values()):
        raise InvalidInputError(f"training diverged at step {step}: {logged}", hint="lower the learning rate")
    return logged


class MovingAverage(Generic[NetworkT]):
    """Exponential moving average of a network's weights; buffers are copied."""

    def __init__(self, network: NetworkT, half_life_images: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self.half_life_images = half_life_images

    @torch.no_grad()
    def update(self, source: nn.Module, *, images_seen: int, batch_size: int) -> None:
        """Blend in ``source``; the half-life is at most a tenth of what was seen (Karras et al. 2020)."""
        half_life = max(min(self.half_life_images, 0.1 * images_seen), 1e-8)
        decay = 0.5 ** (batch_size / half_life)
        for mine, theirs in zip(self.network.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - decay)
        for kept, fresh in zip(self.network.buffers(), source.buffers(), strict=True):
            kept.copy_(fresh)


def restart_batch_norm(network: nn.Module) -> None:
    """Forget running statistics; from now on they are the plain average over batches in training mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None


def save_grid(images: Tensor, path: Path, *, columns: int = 8) -> None:
    """Write float images ``[n, 3, h, w]`` in [-1, 1] as one PNG grid."""
    tiles = images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu().numpy()
    rows = [np.concatenate(list(tiles[i : i + columns]), axis=2) for i in range(0, len(tiles), columns)]
    Image.fromarray(np.concatenate(rows, axis=1).transpose(1, 2, 0)).save(path)


def _recalibration_batches(data: TrainingSet, options: FitOptions) -> list[tuple[Tensor, Tensor]]:
    return [data.batch(options, s, torch.Generator().manual_seed(s)) for s in range(40)]


def _facts(options: FitOptions, *, steps: int, seconds: float) -> dict[str, float]:
    return {"steps": steps, "images_seen": steps * options.batch_size, "seconds": round(seconds)}


def _resume(task: TrainingTask, options: FitOptions, path: Path) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu", mmap=False)
    if int(state["step"]) > options.steps:
        raise UsageError(
            f"{path} is at step {state['step']} already, beyond --steps {options.steps}",
            hint="use another --out to train for fewer steps",
        )
    if state["data_order"] != options.data_order:
        raise UsageError(
            f"{path} was begun with {state['data_order']}, not {options.data_order}",
            hint="use the same --batch-size and --seed, or another --out",
        )
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimizer in task.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    return int(state["step"]), float(state["seconds"])


def _save(task: TrainingTask, options: FitOptions, path: Path, *, step: int, seconds: float) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(
            {
                "step": step,
                "seconds": seconds,
                "data_order": options.data_order,
                "modules": {name: module.state_dict() for name, module in task.modules.items()},
                "optimizers": {name: o.state_dict() for name, o in task.optimizers.items()},
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a killed run logged and did not save: they will be taken again."""
    if path.is_file():
        first, *rows = path.read_text().splitlines(keepends=True)
        path.write_text(first + "".join(row for row in rows if int(row.partition(",")[0]) <= step))


def _log(path: Path, step: int, logged: Mapping[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["step", *logged])
        writer.writerow([step, *(f"{value:.6g}" for value in logged.values())])
