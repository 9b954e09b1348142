"""What runs a network: torch, or a faster runtime that was first checked against torch on this machine.

    engine = Engine(network, prepare, device=torch.device("cpu"))
    features = engine(images, frozenset({"pooled"}))
    engine.backend  # "onnxruntime"

| backend       | ``auto`` on | what it is                                                           |
|---------------|-------------|----------------------------------------------------------------------|
| `torch`       | the rest    | torch, layer by layer: what every other is checked against           |
| `onnxruntime` | the CPU     | the same layers in a blocked layout, activations fused; if installed |
| `compiled`    | nothing     | ``torch.compile`` of whole chunks; the rest goes through torch       |

A runtime is opened at the first images, for the heads that are asked for. It has to give the features of a
few seeded random images as torch does, to ``tolerance`` of the largest; one that differs, fails or is
missing is dropped for good, torch goes on, and :attr:`Engine.warnings` says so. Inside ``bitwise_numerics``
torch always runs. onnxruntime computes an image to the same bits in any batch, and on any number of threads:
each session has one, and chunks of a batch run side by side (see :mod:`evalkit.extractors.forward`).

Accepted trade-offs: which backend ran moves features by about 1e-6 of the largest, so it is provenance and
no part of a protocol. onnxruntime keeps a copy of the weights for each set of heads. ``compiled`` has run on
a CPU only so far (EfficientNet-Lite0, 3e-7 from torch); it costs its compilation at the first chunk, and does
not serve ``precision="fast"``, whose rounding a fused kernel may skip. VGG16 gains 1.3 at most from
onnxruntime and would hold half a gigabyte of weights twice; the layers of transformers, whose time is large
products, are not known to it. OpenVINO was measured too (benchmarks/extraction.py): it is up to a fifth
faster still, but takes three times the space, and its package brings one for telemetry, which an offline tool
should not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, final

import torch
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.extractors.facts import Backend
from evalkit.extractors.onnx_graph import INPUT, Network, onnx_model
from evalkit.protocol import Precision
from evalkit.provenance import version_of
from evalkit.runtime import fast_numerics, is_bitwise, resolve_device
from evalkit.spec import Scalar

Runner = Callable[[Tensor], Mapping[str, Tensor]]

TOLERANCE: Final = 1e-5
"""Of the largest feature; float32 sums in another order differ by 1e-6 to 3e-6 in the networks here."""

RUNTIMES: Final = ("onnxruntime", "compiled")
_AUTOMATIC: Final = {"cpu": "onnxruntime"}
_MODULES: Final = {"torch": "torch", "onnxruntime": "onnxruntime", "compiled": "torch"}
# On a CPU the widest activation of four images (19 MB in EfficientNet-Lite0) stays below the 32 MB above
# which malloc hands every buffer back to the system; with larger chunks page faults double the time.
_CPU_CHUNK: Final = 4
_ACCELERATOR_CHUNK: Final = 64
_PROBE_IMAGES, _PROBE_SIDE = 2, 64
_FATAL: Final = 4  # onnxruntime's only level of messages that says nothing on a machine it finds odd
# One at a time, in whichever thread comes first: the others wait for it.
_OPENING: Final = threading.Lock()


def device_for(name: str, precision: Precision) -> torch.device:
    """Return the device of this name, where networks can run in this precision.

    Raises:
        UsageError: there is no such device or precision, or ``fast`` gains nothing on it.
    """
    device = resolve_device(name)
    if precision not in ("exact", "fast"):
        raise UsageError(f"unknown precision {precision!r}", hint="use exact or fast")
    if precision == "fast" and device.type != "cuda":
        raise UsageError(
            f"precision 'fast' needs a CUDA device, not {device.type!r}",
            hint="leave precision at 'exact': on other devices nothing was measured that would be worth it",
        )
    return device


def precision_params(precision: Precision) -> dict[str, Scalar]:
    """Return what an extractor's spec says of the precision: nothing where it is exact."""
    return {} if precision == "exact" else {"precision": precision}


def automatic_backend(device: torch.device) -> tuple[str, str]:
    """Return ``(backend, remark)``: what ``auto`` tries first on a device, and why or in which version."""
    wanted = _AUTOMATIC.get(device.type, "torch")
    module = _MODULES[wanted]
    if find_spec(module) is None:
        return "torch", f"{module} is not installed"
    return wanted, f"{module} {version_of(module)}"


@final
class Engine:
    """Runs one network on one device; see the module's docstring.

    Args:
        network: maps prepared images and the wanted heads to features; float32, by functions of torch.
        prepare: maps uint8 ``[n, 3, h, w]`` images of any size to what ``network`` takes.
        device: where both run.
        backend: what runs the network; ``auto`` chooses.
        precision: ``fast`` runs the network, not the preparation, in bfloat16 and TF32.
        runtimes: what may run it beside torch: none where that gains nothing, or the layers are not known.
        tolerance: largest difference from torch that a runtime may show, relative to the largest feature.

    Raises:
        UsageError: no such backend, or not for this network or device.
    """

    def __init__(
        self,
        network: Network,
        prepare: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        backend: Backend = "auto",
        precision: Precision = "exact",
        runtimes: Sequence[str] = RUNTIMES,
        tolerance: float = TOLERANCE,
    ) -> None:
        usable = [name for name in runtimes if name != "onnxruntime" or device.type == "cpu"]
        if backend not in ("auto", "torch", *usable):
            raise UsageError(
                f"this network has no backend {backend!r} on {device}",
                hint="use " + " or ".join(["auto", "torch", *usable]),
            )
        chosen = automatic_backend(device)[0] if backend == "auto" else backend
        self._wanted = chosen if chosen in usable else "torch"
        self._network, self._prepare, self._device = network, prepare, device
        self._fast, self._tolerance = precision == "fast", tolerance
        self._runners: dict[frozenset[str], Runner] = {}
        self._used: str | None = None
        self._warnings: tuple[str, ...] = ()

    @property
    def backend(self) -> str | None:
        """What ran last: ``torch``, ``onnxruntime`` or ``compiled``; None before the first images."""
        return self._used

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the backend that was wanted did not run, where it did not."""
        return self._warnings

    @property
    def chunk(self) -> int:
        """How many images go through the network at a time."""
        return _CPU_CHUNK if self._device.type == "cpu" else _ACCELERATOR_CHUNK

    def __call__(self, images: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        """Prepare uint8 ``[n, 3, h, w]`` images and map them to the ``wanted`` heads."""
        return self.run(self._prepare(images), wanted)

    def run(self, pixels: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        """Map prepared float32 ``[n, 3, h, w]`` images to the ``wanted`` heads."""
        if self._fast:
            self._used = "torch"
            with fast_numerics(self._device):
                return self._network(pixels, wanted)
        runner = self._runner(wanted)
        if runner is not None:
            try:
                features = runner(pixels)
            except torch.OutOfMemoryError:
                raise  # whoever made the batch makes a smaller one
            except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
                self._give_up(f"{self._wanted} failed ({_first_line(error)}); torch runs")
            else:
                self._used = self._wanted
                return features
        self._used = "torch"
        return self._network(pixels, wanted)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the sessions, which no other process can use: they are opened again there."""
        return {**self.__dict__, "_runners": {}}

    def _runner(self, wanted: frozenset[str]) -> Runner | None:
        if is_bitwise() or self._wanted == "torch":
            return None
        with _OPENING:
            if wanted not in self._runners and self._wanted != "torch":
                self._open(wanted)
            return self._runners.get(wanted)

    def _open(self, wanted: frozenset[str]) -> None:
        """Open the runtime for these heads if it gives on a probe batch what torch gives."""
        pixels = self._prepare(self._probe())
        expected = self._network(pixels, wanted)
        try:
            runner = _OPENERS[self._wanted](self._network, wanted, pixels)
            found = runner(pixels)
            worst = max(_difference(found[head], expected[head]) for head in wanted)
        except Exception as error:  # noqa: BLE001 - a runtime raises what it likes
            self._give_up(f"{self._wanted} does not run this network ({_first_line(error)}); torch does")
            return
        if worst <= self._tolerance:
            self._runners[wanted] = runner
        else:  # not a number included
            self._give_up(
                f"features by {self._wanted} differ from torch's by {worst:.0e} of the largest; torch runs"
            )

    def _probe(self) -> Tensor:
        count = self.chunk if self._wanted == "compiled" else _PROBE_IMAGES
        shape, seeded = (count, 3, _PROBE_SIDE, _PROBE_SIDE), torch.Generator().manual_seed(0)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded).to(self._device)

    def _give_up(self, reason: str) -> None:
        if self._wanted != "torch":
            self._wanted, self._warnings = "torch", (*self._warnings, reason)
            self._runners = {}


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _onnxruntime(network: Network, wanted: frozenset[str], pixels: Tensor) -> Runner:
    """Open a session of onnxruntime on one thread, which images of other sizes may be given too."""
    onnxruntime: Any = import_module("onnxruntime")  # it has no types

    onnxruntime.disable_telemetry_events()  # builds for Windows have some
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    model = onnx_model(network, wanted, shape=(pixels.shape[1], "height", "width"))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    heads: Sequence[str] = sorted(wanted)

    def run(images: Tensor) -> Mapping[str, Tensor]:
        arrays = session.run(heads, {INPUT: images.contiguous().numpy()})
        return {head: torch.from_numpy(array) for head, array in zip(heads, arrays, strict=True)}

    return run


def _compiled(network: Network, wanted: frozenset[str], pixels: Tensor) -> Runner:
    """Compile the network for chunks of this shape; others, which would compile anew, go through torch."""
    compiled: Runner = torch.compile(lambda images: network(images, wanted), dynamic=False)

    def run(images: Tensor) -> Mapping[str, Tensor]:
        if images.shape != pixels.shape:
            return network(images, wanted)
        return compiled(images)

    return run


_OPENERS: Final[Mapping[str, Callable[[Network, frozenset[str], Tensor], Runner]]] = {
    "onnxruntime": _onnxruntime,
    "compiled": _compiled,
}
