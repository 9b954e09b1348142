"""A runtime runs a network only where it was seen to give what torch gives; torch runs it otherwise."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.extractors import build_extractor, engine
from evalkit.extractors.efficientnet_lite import EfficientNetLite0
from evalkit.extractors.engine import Engine, automatic_backend, device_for, precision_params
from evalkit.protocol import is_fast
from evalkit.runtime import strict_numerics

CPU = torch.device("cpu")
KERNEL = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(1))
MATRIX = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
BOTH = frozenset({"pooled", "logits"})


def network(x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    pooled = F.conv2d(x, KERNEL, stride=2).relu_().mean((2, 3), dtype=torch.float32)
    heads = {"pooled": pooled}
    if "logits" in wanted:
        heads["logits"] = F.linear(pooled, MATRIX)
    return {head: heads[head] for head in wanted}


def prepare(images: Tensor) -> Tensor:
    return images.float() / 255


def images(n: int = 3) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(n)
    )


def exact(n: int = 3) -> dict[str, Tensor]:
    return network(prepare(images(n)), BOTH)


Opened = Callable[[Tensor], Mapping[str, Tensor]]


def pretend(monkeypatch: pytest.MonkeyPatch, run: Callable[[Tensor], Mapping[str, Tensor]]) -> list[int]:
    """Let ``run`` stand for onnxruntime; returns a list that grows by one with each session opened."""
    opened: list[int] = []

    def opener(*_: object) -> Opened:
        opened.append(1)
        return run

    monkeypatch.setattr(engine, "find_spec", lambda _name: object())
    monkeypatch.setitem(engine._OPENERS, "onnxruntime", opener)  # type: ignore[misc, arg-type]
    return opened


def test_onnxruntime_gives_what_torch_gives_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    runner = Engine(network, prepare, device=CPU)
    assert runner.backend is None
    found, expected = runner(images(), BOTH), exact()
    assert (runner.backend, runner.warnings) == ("onnxruntime", ())
    for head in BOTH:
        assert (found[head] - expected[head]).abs().max() <= 1e-6 * expected[head].abs().max()
    assert set(runner(images(), frozenset({"pooled"}))) == {"pooled"}
    assert capfd.readouterr() == ("", "")


def test_images_of_another_size_need_no_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    runner = Engine(network, prepare, device=CPU)
    runner(images(), BOTH)
    monkeypatch.setattr(engine, "_OPENERS", {})
    large = torch.rand(2, 3, 31, 17)
    assert torch.allclose(runner.run(large, BOTH)["pooled"], network(large, BOTH)["pooled"], rtol=1e-5)


def test_strict_numerics_are_torchs_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = pretend(monkeypatch, lambda x: network(x * (1 + 1e-6), BOTH))
    runner = Engine(network, prepare, device=CPU)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "is_bitwise", lambda: True)
        found, expected = runner(images(), BOTH), exact()
    assert all(torch.equal(found[head], expected[head]) for head in BOTH)
    assert (runner.backend, opened) == ("torch", [])
    assert not torch.equal(runner(images(), BOTH)["pooled"], expected["pooled"])
    assert runner.backend == "onnxruntime"


def fails(_: Tensor) -> Mapping[str, Tensor]:
    raise RuntimeError("no kernel\nat line 7")


FAULTS: Mapping[str, Callable[[Tensor], Mapping[str, Tensor]]] = {
    r"onnxruntime does not run this network \(no kernel\); torch does": fails,
    "differ from torch's by 1e-04 of the largest": lambda x: network(x * 1.0001, BOTH),
    "differ from torch's by nan": lambda x: {h: y * float("nan") for h, y in network(x, BOTH).items()},
    r"does not run this network \('logits'\)": lambda x: network(x, frozenset({"pooled"})),
}


@pytest.mark.parametrize("warning", FAULTS)
def test_a_runtime_that_fails_the_probe_is_dropped_with_a_warning(
    warning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = pretend(monkeypatch, FAULTS[warning])
    runner = Engine(network, prepare, device=CPU)
    for _ in range(3):
        assert torch.equal(runner(images(), BOTH)["logits"], exact()["logits"])
    assert torch.equal(runner(images(), frozenset({"pooled"}))["pooled"], exact()["pooled"])
    assert runner.backend == "torch"
    assert opened == [1]
    (text,) = runner.warnings
    assert re.search(warning, text)


def test_a_runtime_that_fails_later_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def tires(x: Tensor) -> Mapping[str, Tensor]:
        return network(x, BOTH) if len(x) == 2 else fails(x)

    pretend(monkeypatch, tires)
    runner = Engine(network, prepare, device=CPU)
    assert torch.equal(runner(images(3), BOTH)["logits"], exact()["logits"])
    assert runner.warnings == ("onnxruntime failed (no kernel); torch runs",)
    runner(images(2), BOTH)
    assert (runner.backend, len(runner.warnings)) == ("torch", 1)


def test_too_little_memory_is_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(x: Tensor) -> Mapping[str, Tensor]:
        if len(x) > 2:
            raise torch.OutOfMemoryError("2 GiB")
        return network(x, BOTH)

    pretend(monkeypatch, greedy)
    runner = Engine(network, prepare, device=CPU)
    with pytest.raises(torch.OutOfMemoryError):
        runner(images(3), BOTH)
    assert set(runner(images(2), BOTH)) == BOTH
    assert (runner.backend, runner.warnings) == ("onnxruntime", ())


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(engine, "find_spec", lambda _name: None)
    monkeypatch.setattr(engine, "import_module", missing)
    assert automatic_backend(CPU) == ("torch", "onnxruntime is not installed")
    runner = Engine(network, prepare, device=CPU)
    runner(images(), BOTH)
    assert (runner.backend, runner.warnings) == ("torch", ())
    asked = Engine(network, prepare, device=CPU, backend="onnxruntime")
    asked(images(), BOTH)
    assert asked.backend == "torch"
    assert asked.warnings == (
        "onnxruntime does not run this network (No module named 'onnxruntime'); torch does",
    )


def test_threads_that_come_at_once_open_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = pretend(monkeypatch, lambda x: network(x, BOTH))
    runner = Engine(network, prepare, device=CPU)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: runner(images(n), BOTH)["pooled"].shape, range(1, 17)))
    assert found == [(n, 8) for n in range(1, 17)]
    assert opened == [1]


def test_another_process_opens_its_own_session() -> None:
    pytest.importorskip("onnxruntime")
    runner = Engine(network, prepare, device=CPU)
    found = runner(images(), BOTH)
    again: Engine = pickle.loads(pickle.dumps(runner))  # noqa: TID251 - what a spawned process does
    assert torch.equal(again(images(), BOTH)["logits"], found["logits"])
    assert again.backend == "onnxruntime"


def test_compiled_takes_whole_chunks_and_torch_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def compile_(function: Opened, *, dynamic: bool) -> Opened:
        assert not dynamic

        def run(x: Tensor) -> Mapping[str, Tensor]:
            seen.append(len(x))
            return function(x)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    runner = Engine(network, lambda x: prepare(x[..., :12, :12]), device=CPU, backend="compiled")
    for n in (runner.chunk, 3, runner.chunk):
        assert torch.equal(runner(images(n), BOTH)["logits"], exact(n)["logits"])
    assert seen == [4, 4, 4]  # the probe, and the whole chunks
    assert (runner.backend, runner.warnings) == ("compiled", ())


def test_a_compiler_that_fails_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(*_: object, **__: object) -> Opened:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", compile_)
    runner = Engine(network, prepare, device=CPU, backend="compiled")
    assert torch.equal(runner(images(), BOTH)["logits"], exact()["logits"])
    assert runner.warnings == ("compiled does not run this network (Failed to find C compiler); torch does",)


def test_what_auto_takes_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _name: object())
    assert automatic_backend(CPU)[0] == "onnxruntime"
    assert automatic_backend(torch.device("cuda"))[0] == "torch"
    assert automatic_backend(torch.device("mps"))[0] == "torch"


@pytest.mark.parametrize(
    ("device", "runtimes", "backend"),
    [
        ("cpu", engine.RUNTIMES, "openvino"),
        ("cuda", engine.RUNTIMES, "onnxruntime"),
        ("cpu", (), "onnxruntime"),
    ],
)
def test_unknown_backends_are_refused(device: str, runtimes: tuple[str, ...], backend: str) -> None:
    with pytest.raises(UsageError, match=f"no backend '{backend}'") as caught:
        Engine(network, prepare, device=torch.device(device), backend=backend, runtimes=runtimes)  # type: ignore[arg-type]
    assert "torch" in (caught.value.hint or "")


def test_networks_without_runtime_take_torch() -> None:
    runner = Engine(network, prepare, device=CPU, runtimes=())
    runner(images(), BOTH)
    assert runner.backend == "torch"


@pytest.fixture
def switches() -> Iterator[None]:
    before = torch.backends.cudnn.conv.fp32_precision, torch.is_autocast_enabled("cpu")  # type: ignore[attr-defined]
    yield
    assert (torch.backends.cudnn.conv.fp32_precision, torch.is_autocast_enabled("cpu")) == before  # type: ignore[attr-defined]


@pytest.mark.usefixtures("switches")
def test_fast_rounds_the_network_alone() -> None:
    # On the CPU, which autocasts to bfloat16 as CUDA does.
    seen: list[tuple[bool, str]] = []

    def state() -> tuple[bool, str]:
        return torch.is_autocast_enabled("cpu"), torch.backends.cuda.matmul.fp32_precision

    def watched_prepare(x: Tensor) -> Tensor:
        seen.append(state())
        return prepare(x)

    def watched_network(x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        seen.append(state())
        return network(x, wanted)

    runner = Engine(watched_network, watched_prepare, device=CPU, precision="fast")
    with strict_numerics():
        found = runner(images(), BOTH)["pooled"]
        seen.append(state())
    assert seen == [(False, "ieee"), (True, "tf32"), (False, "ieee")]
    assert found.dtype == torch.float32  # the mean of rounded numbers is not rounded
    assert 1e-5 < float((found - exact()["pooled"]).abs().max() / found.abs().max()) < 1e-2
    assert runner.backend == "torch"


def test_fast_is_for_cuda() -> None:
    with pytest.raises(UsageError, match="precision 'fast' needs a CUDA device, not 'cpu'") as caught:
        build_extractor("efficientnet-lite0", precision="fast")
    assert "leave precision at 'exact'" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="unknown precision 'half'"):
        device_for("cpu", "half")  # type: ignore[arg-type]
    for options in ({"precision": "fast"}, {"backend": "onnxruntime"}):
        with pytest.raises(UsageError, match="'pixels' has no network"):
            build_extractor("pixels", **options)  # type: ignore[arg-type]


def test_fast_is_another_spec_and_exact_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.extractors.efficientnet_lite.device_for", lambda *_: CPU)
    plain, fast = EfficientNetLite0(), EfficientNetLite0(precision="fast")
    assert "precision" not in dict(plain.spec.params)
    assert (is_fast(plain.spec), is_fast(fast.spec)) == (False, True)
    assert plain.spec.digest() != fast.spec.digest()
    assert precision_params("exact") == {}


def test_the_backend_is_no_part_of_the_spec() -> None:
    specs = {
        build_extractor("efficientnet-lite0", backend=backend).spec for backend in ("torch", "onnxruntime")
    }
    assert len(specs) == 1
