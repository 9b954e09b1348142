"""Devices are named or refused; strict numerics holds inside the block and is undone outside, always."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from evalkit.errors import UsageError
from evalkit.runtime import resolve_device, strict_numerics


@pytest.fixture(autouse=True)
def _restored_switches() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def _state() -> tuple[object, ...]:
    backends = torch.backends
    return (
        torch.get_float32_matmul_precision(),
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
        backends.mkldnn.matmul.fp32_precision,
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
    )


def test_auto_is_a_device_that_works() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "cpu:1", "cuda:-1", "xpu"])
def test_malformed_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "cuda"])
def test_absent_devices_are_refused_with_a_hint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="not available") as caught:
        resolve_device(name)
    assert caught.value.hint is not None
    assert "auto" in caught.value.hint


def test_auto_prefers_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


def test_strict_inside() -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    with torch.autocast("cpu", dtype=torch.bfloat16), strict_numerics():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert torch.is_inference_mode_enabled()
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_float32_products_keep_float32_bits() -> None:
    # 1 + 2^-20 needs 21 bits: TF32 and bfloat16 round it to 1.
    value = torch.full((64, 64), 1 + 2**-20)
    torch.set_float32_matmul_precision("medium")
    with strict_numerics():
        product = value @ torch.eye(64)
    assert torch.equal(product, value)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_everything_is_put_back(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    before = _state()
    with strict_numerics():
        pass
    assert _state() == before


def test_everything_is_put_back_after_an_error() -> None:
    torch.set_float32_matmul_precision("high")
    before = _state()
    with pytest.raises(ZeroDivisionError), strict_numerics():
        raise ZeroDivisionError
    assert _state() == before


def test_blocks_nest() -> None:
    before = _state()
    with strict_numerics():
        with strict_numerics():
            pass
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.is_inference_mode_enabled()
    assert _state() == before
