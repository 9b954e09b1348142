"""How the benchmarks measure: contenders take turns in one run, and what counts is the ratio between them.

    comparison = interleaved(
        "Fréchet distance, 2048-d",
        {"evalkit": lambda: ours(x, y), "pytorch-fid": lambda: theirs(x, y)},
        rounds=5,
    )
    print(comparison.text())
    save("frechet", [comparison])

Absolute times are noise on a shared machine: a clock that halves for ten seconds hits whoever runs then. So
the contenders alternate A B A B, each round gives one paired ratio, and the median of those is reported next
to the ratio of the best times. ``save`` keeps the figures in ``results/NAME.json`` with the command and the
machine; ``python benchmarks/results_table.py`` makes the tables of README.md from them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
OURS = "evalkit"
# Idle threads of a thread pool wait busily for up to 0.2 s before they sleep.
_REST_SECONDS = 0.3
_SAMPLE_SECONDS = 0.002


@dataclass(frozen=True)
class Comparison:
    """Seconds of each contender, round by round; the first contender is ours.

    Attributes:
        work: what was done, with its sizes.
        seconds: contender -> one entry a round.
        amount: how many of ``unit`` one run does, where a rate says more than a time.
        target: contender -> least ratio that was promised.
        notes: anything else that was measured along: errors, peak memory, fractions of a ceiling.
    """

    work: str
    seconds: Mapping[str, Sequence[float]]
    amount: float = 0.0
    unit: str = ""
    target: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ours(self) -> str:
        """Name of the first contender."""
        return next(iter(self.seconds))

    def ratio(self, peer: str) -> float:
        """Return the median over the rounds of (seconds of ``peer``) / (our seconds in the same round)."""
        pairs = zip(self.seconds[peer], self.seconds[self.ours], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def best_ratio(self, peer: str) -> float:
        """Return the ratio of the best times."""
        return min(self.seconds[peer]) / min(self.seconds[self.ours])

    def text(self) -> str:
        """Return a few lines for people."""
        lines = [self.work]
        width = max(map(len, self.seconds))
        for name, seconds in self.seconds.items():
            median = statistics.median(seconds)
            rate = f"  {self.amount / median:10.1f} {self.unit}/s" if self.amount else ""
            line = f"  {name:<{width}}  {median:9.4f} s{rate}"
            if name != self.ours:
                best = f"best of each: {self.best_ratio(name):.2f} x"
                line += f"   evalkit is {self.ratio(name):.2f} x as fast ({best})"
                if name in self.target:
                    met = "met" if self.ratio(name) >= self.target[name] else "MISSED"
                    line += f", promised {self.target[name]:g} x: {met}"
            lines.append(line)
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def interleaved(
    work: str,
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    warm_up: bool = True,
    amount: float = 0.0,
    unit: str = "",
    target: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Run the contenders in turn, ``rounds`` times; every second round in the opposite order.

    Before each turn the machine rests for a moment: nobody is charged with threads of the one before.

    Args:
        work: what is done, with its sizes.
        contenders: name -> what runs it once; ours first.
        rounds: 5 or more for a figure that is published.
        warm_up: run each once before, uncounted.
        amount: how many of ``unit`` one run does.
        unit: for rates.
        target: contender -> least ratio that was promised.
        notes: lines printed below.
    """
    names = list(contenders)
    if warm_up:
        for name in names:
            contenders[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            time.sleep(_REST_SECONDS)
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return Comparison(work, seconds, amount, unit, dict(target or {}), tuple(notes))


@dataclass(frozen=True)
class Ceilings:
    """What this machine does at best, measured by :func:`ceilings`.

    Attributes:
        float64: GFLOP/s of a large matrix product in float64.
        float32: GFLOP/s of one in float32.
        memory: GB/s of copying 512 MB, reads and writes counted.
    """

    float64: float
    float32: float
    memory: float

    def raised(self) -> Ceilings:
        """Measure once more, at the end of a run, and return the higher of each: no slow moment counts."""
        again = ceilings()
        return Ceilings(
            max(self.float64, again.float64),
            max(self.float32, again.float32),
            max(self.memory, again.memory),
        )


def ceilings(rounds: int = 5) -> Ceilings:
    """Measure the best of ``rounds`` products of 3072 x 3072 (numpy and torch, the faster) and copies."""
    side, rng, best = 3072, np.random.default_rng(0), []
    for dtype in (np.float64, np.float32):
        a = rng.standard_normal((side, side)).astype(dtype)
        t = torch.from_numpy(a)
        rate = 0.0
        for product in [partial(np.matmul, a, a), partial(torch.matmul, t, t)] * rounds:
            start = time.perf_counter()
            product()
            rate = max(rate, 2 * side**3 / (time.perf_counter() - start) / 1e9)
        best.append(rate)
    source = torch.ones(2**27)
    target = torch.empty_like(source)
    copies = []
    for _ in range(rounds):
        start = time.perf_counter()
        target.copy_(source)
        copies.append(time.perf_counter() - start)
    return Ceilings(*best, 2 * source.nbytes / min(copies) / 1e9)


def roofline(
    work: str, *, operations: float, traffic: float, seconds: float, ceiling: float, memory: float
) -> str:
    """Return one line: operations, bytes, rates and the fraction of what the machine could do.

    Args:
        work: what was done.
        operations: floating point operations (a multiply-add is two).
        traffic: bytes that must be read and written at least once.
        seconds: how long it took.
        ceiling: GFLOP/s of the machine in this type, from :func:`ceilings`.
        memory: GB/s of the machine.
    """
    rate = operations / seconds / 1e9
    intensity = operations / traffic
    bound = min(ceiling, intensity * memory)
    limit = "arithmetic" if bound == ceiling else "memory"
    return (
        f"roofline, {work}: {operations / 1e9:.1f} GFLOP, {traffic / 1e6:.0f} MB ({intensity:.0f} FLOP/B), "
        f"{rate:.0f} of {bound:.0f} GFLOP/s ({limit} bound): {rate / bound:.0%}"
    )


def peak_memory(work: Callable[..., object], *arguments: object) -> int:
    """Return how many bytes of resident memory a call adds at its peak, in a fresh process of its own.

    ``work`` must be a function of a module. What it imports before it makes its inputs should be imported by
    the module, so that the growth is that of the work; sampled every 2 ms.
    """
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_measured, args=(queue, work, arguments))
    process.start()
    peak = queue.get()
    process.join()
    if isinstance(peak, str):
        raise RuntimeError(peak)  # noqa: TRY004 - the message of the child's error
    return int(peak)


def _measured(queue: Any, work: Callable[..., object], arguments: Sequence[object]) -> None:  # noqa: ANN401
    before, peak, done = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_SECONDS):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work(*arguments)
        queue.put(max(peak, _resident()) - before)
    except Exception as error:  # noqa: BLE001 - told to the parent
        queue.put(f"{type(error).__name__}: {error}")
    finally:
        done.set()
        watcher.join()


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, device, versions."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    cuda = torch.cuda.is_available()
    packages = ("evalkit", "numpy", "scipy", "torch", "onnxruntime", "pillow")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def save(name: str, comparisons: Sequence[Comparison], *, lines: Sequence[str] = ()) -> Path:
    """Write ``results/NAME.json``: comparisons, further lines (rooflines, memory), command and machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    script = Path(sys.argv[0])
    command = shlex.join(["python", f"benchmarks/{script.name}", *sys.argv[1:]])
    body = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "lines": list(lines),
    }
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
