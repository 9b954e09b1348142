"""denoising-diffusion-pytorch 2.x: layout, what its buffers reveal, and every layer by explicit arithmetic.

The golden numbers were made with the package's own U-Net and DDIM sampler (version 2.3.4 on PyPI) on the
weights of ``_waves``.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.denoiser import NetworkDenoiser
from evalkit.generators.diffusion.lucidrains.facts import FACTS
from evalkit.generators.diffusion.lucidrains.layers import Attention, LinearAttention, SinusoidalEmbedding
from evalkit.generators.diffusion.lucidrains.network import LucidrainsConfig, LucidrainsDiffusion
from evalkit.generators.diffusion.lucidrains.sampling import build, objective_of, process_of
from evalkit.generators.diffusion.samplers import ddim
from evalkit.generators.diffusion.schedules import SCHEDULES
from evalkit.generators.loading import load_generator
from evalkit.generators.sampling import SamplingOptions
from tests.generators.diffusion.waves import strided

GIVEN = FACTS[0].presets["lucidrains-32"]
TINY = LucidrainsConfig(
    resolution=8,
    theta=10000,
    auto_normalize=True,
    objective="v",
    timesteps=20,
    embedding=8,
    time_width=32,
    channels=(8, 8, 16),
    attention=("linear", "full"),
    heads=(2, 2, 2),
    head_widths=(4, 4, 4),
    memories=4,
    out_channels=3,
)


def test_the_public_layout_is_read_to_the_last_tensor_and_sampled() -> None:
    """Objective and sizes come from the file; the images of different seeds differ."""
    generator = build(_checkpoint(_with_buffers(strided("lucidrains-ddpm-2.x"))), _options(steps=1))
    config = generator.network.config  # type: ignore[attr-defined]
    assert config.channels == (64, 64, 128, 256, 512)
    assert config.attention == ("linear", "linear", "linear", "full")
    assert config.heads == (4,) * 5
    assert config.head_widths == (32,) * 5
    assert (config.objective, config.timesteps, config.embedding) == ("v", 1000, 64)
    images = generator.generate(np.array([1, 2], dtype=np.int64))
    assert images.shape == (2, 3, 32, 32)
    assert images.float().std() > 1
    assert not torch.equal(images[0], images[1])


def test_outputs_are_those_of_the_package() -> None:
    """Golden numbers of its own U-Net, and of its DDIM sampler over 5 of 20 steps."""
    network = _tiny()
    x = _waves("x", (2, 3, 8, 8)) * 3
    out = network(x, torch.tensor([3.0, 17.0]))
    _assert_golden(out, (0.04046, 2.760068, -0.101114, 1.977582, 0.787296, 1.402905))
    process = process_of(network.state_dict(), TINY)
    denoiser = NetworkDenoiser(network, process, labels=None, null_labels=None, guidance=1.0)
    images = ddim(denoiser, x, process.levels(5), eta=0.0, noise=lambda _: torch.zeros_like(x))
    _assert_golden(images, (-1.0, -1.0, -0.150209, -1.0, -0.399574, 0.861698))


def test_a_file_of_the_trainer_is_read_from_its_averaged_network(tmp_path: Path) -> None:
    """``ema`` holds the averaged and the trained network and two counters; raw weights are the other."""
    state = _tiny().state_dict()
    trained = {**state, "model.final_conv.bias": torch.ones(3)}
    average = {"initted": torch.tensor([True]), "step": torch.tensor([7])}
    average |= {f"online_model.{name}": tensor for name, tensor in trained.items()}
    average |= {f"ema_model.{name}": tensor for name, tensor in state.items()}
    file = {"step": 7, "model": trained, "opt": {}, "ema": average, "scaler": None, "version": "2.3.4"}
    torch.save(file, tmp_path / "model-1.pt")
    (tmp_path / "model-1.pt.json").write_text('{"resolution": 8, "theta": 10000, "auto_normalize": true}')
    for weights, expected in (("ema", state), ("raw", trained)):
        generator: Any = load_generator(
            "auto", tmp_path / "model-1.pt", options=_options(steps=2), weights=weights
        )  # type: ignore[arg-type]
        found = generator.network.model.final_conv.bias
        assert generator.name == "lucidrains"
        assert torch.equal(found, expected["model.final_conv.bias"])


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Batches of 1 and 3 agree."""
    generator = build(_checkpoint(_tiny().state_dict(), resolution=8), _options(steps=3))
    seeds = np.array([5, 6, 7], dtype=np.int64)
    alone = generator.generate(seeds[1:2])
    assert torch.equal(generator.generate(seeds)[1:2], alone)
    assert generator.evaluations_per_image == 3  # type: ignore[attr-defined]


def test_half_precision_computes_in_it_and_moves_little() -> None:
    """The walk stays in float32."""
    held = _checkpoint(_tiny().state_dict(), resolution=8)
    exact, half = (
        build(held, dataclasses.replace(_options(steps=3), dtype=dtype)).generate(np.array([5, 6]))
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < (exact.float() - half.float()).abs().mean() < 5


@pytest.mark.parametrize("schedule", ["sigmoid", "linear", "cosine"])
@pytest.mark.parametrize("gamma", [math.inf, 5.0, 1.0])
@pytest.mark.parametrize("objective", ["epsilon", "sample", "v"])
def test_the_loss_weights_show_the_objective(schedule: str, gamma: float, objective: str) -> None:
    """With and without min-SNR weighting, in float32 as files hold them."""
    betas = SCHEDULES[schedule](1000)
    kept = np.cumprod(1 - betas)
    ratio = kept / (1 - kept)
    clipped = np.minimum(ratio, gamma)
    weight = {"epsilon": clipped / ratio, "sample": clipped, "v": clipped / (ratio + 1)}[objective]
    found = objective_of(betas.astype(np.float32).astype(float), weight.astype(np.float32).astype(float))
    assert found == objective


def test_other_weights_show_no_objective_and_it_must_be_given() -> None:
    """A buffer of ones times a ramp is none of the three."""
    state = _tiny().state_dict()
    state["loss_weight"] = torch.linspace(1, 2, 20)
    with pytest.raises(CheckpointError, match="objective"):
        build(_checkpoint(state, resolution=8), _options(steps=2))
    build(_checkpoint(state, resolution=8, objective="epsilon"), _options(steps=2))


def test_the_named_schedules_are_the_packages() -> None:
    """Its sigmoid betas and v weights at T = 20, as the package registers them."""
    betas = SCHEDULES["sigmoid"](20)
    assert betas[[0, 10, 19]] == pytest.approx([0.01717672497, 0.16448689997, 0.9990000129], rel=1e-6)
    kept = np.cumprod(1 - betas)
    assert kept[[0, 10, 19]] == pytest.approx([0.98282325, 0.41775656, 1.71767333e-05], rel=1e-4)


def test_the_time_embedding_is_sines_then_cosines_to_the_last_frequency() -> None:
    """t = 7, width 6, theta 100: frequencies 1, 1/10, 1/100."""
    found = SinusoidalEmbedding(6, 100.0)(torch.tensor([7.0]))[0]
    angles = [7.0, 0.7, 0.07]
    expected = [*(math.sin(a) for a in angles), *(math.cos(a) for a in angles)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_softmax_attention_is_over_memories_and_positions() -> None:
    """Against loops over heads with explicit matrices."""
    torch.manual_seed(0)
    layer = Attention(6, heads=2, head_width=4, memories=3)
    x = torch.randn(1, 6, 2, 3)
    normed = F.normalize(x, dim=1) * layer.norm.g * math.sqrt(6)
    q, k, v = layer.to_qkv(normed).flatten(2)[0].chunk(3)
    mixed = []
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        keys = torch.cat([layer.mem_kv[0, head], k[rows].T])
        values = torch.cat([layer.mem_kv[1, head], v[rows].T])
        mixed.append(((q[rows].T @ keys.T) / 2).softmax(1) @ values)
    expected = layer.to_out(torch.cat(mixed, 1).T.reshape(1, 8, 2, 3))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_linear_attention_softmaxes_queries_over_features_and_keys_over_positions() -> None:
    """Against loops over heads with explicit matrices."""
    torch.manual_seed(0)
    layer = LinearAttention(6, heads=2, head_width=4, memories=3)
    x = torch.randn(1, 6, 2, 3)
    normed = F.normalize(x, dim=1) * layer.norm.g * math.sqrt(6)
    q, k, v = layer.to_qkv(normed).flatten(2)[0].chunk(3)
    mixed = []
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        keys = torch.cat([layer.mem_kv[0, head], k[rows]], 1).softmax(1)
        values = torch.cat([layer.mem_kv[1, head], v[rows]], 1)
        mixed.append((keys @ values.T).T @ (q[rows].softmax(0) / 2))
    expected = layer.to_out(torch.cat(mixed).reshape(1, 8, 2, 3))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_downsampling_puts_the_four_pixels_of_a_square_side_by_side() -> None:
    """Channel c, row r, column s of a square becomes channel 4 c + 2 r + s."""
    fold = _tiny().model.downs[0][3][0]  # type: ignore[index]
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    assert torch.equal(fold(x)[0, 4 * 1 + 2 * 1 + 0], x[0, 1, 1::2, 0::2])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.init_conv.weight", (8, 6, 7, 7), "self-conditioned"),
        ("model.init_conv.weight", (8, 1, 7, 7), "only RGB"),
        ("model.time_mlp.0.weights", (8,), "Fourier"),
    ],
)
def test_relatives_that_are_not_served_are_refused_clearly(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    """Self-conditioning, grey images and learned embeddings."""
    state = {**_tiny().state_dict(), name: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=message):
        build(_checkpoint(state, resolution=8), _options(steps=2))


def test_what_the_file_does_not_say_must_be_given() -> None:
    """Resolution, theta and the range of the data are asked for by name; data in [0, 1] is refused."""
    state = _tiny().state_dict()
    bare = Checkpoint(tensors=state, sha256="0" * 64, format="torch")
    with pytest.raises(CheckpointError, match="auto_normalize, resolution, theta"):
        build(bare, _options(steps=2))
    with pytest.raises(CheckpointError, match="auto_normalize"):
        build(_checkpoint(state, resolution=8, auto_normalize=False), _options(steps=2))


def test_impossible_schedules_and_lost_tensors_are_refused() -> None:
    """A negative beta; a file without one of its layers."""
    state = _tiny().state_dict()
    with pytest.raises(CheckpointError, match="betas"):
        build(
            _checkpoint({**state, "betas": -state["betas"]}, resolution=8, objective="v"), _options(steps=2)
        )
    del state["model.downs.1.3.weight"]
    with pytest.raises(CheckpointError, match=r"downs\.1\.3"):
        build(_checkpoint(state, resolution=8), _options(steps=2))


def test_a_learned_variance_is_read_from_the_output_channels() -> None:
    """Six channels of output make the process learned-range."""
    state = _tiny().state_dict()
    state["model.final_conv.weight"] = torch.zeros(6, 8, 1, 1)
    state["model.final_conv.bias"] = torch.zeros(6)
    generator = build(_checkpoint(state, resolution=8), _options(steps=2))
    assert generator.process.variance == "learned-range"  # type: ignore[attr-defined]


def _tiny() -> LucidrainsDiffusion:
    network = LucidrainsDiffusion(TINY).eval().requires_grad_(requires_grad=False)
    state = network.state_dict()
    filled = {name: _waves(name, tuple(tensor.shape)) for name, tensor in state.items() if "model." in name}
    network.load_state_dict({**state, **filled, **_buffers(20)})
    return network


def _buffers(steps: int) -> dict[str, Tensor]:
    betas = SCHEDULES["sigmoid"](steps)
    kept = torch.from_numpy(np.cumprod(1 - betas)).float()
    return {
        "betas": torch.from_numpy(betas).float(),
        "loss_weight": kept,
    }  # v, without clipping: snr / (snr + 1)


def _with_buffers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, **_buffers(len(state["betas"]))}


def _checkpoint(state: dict[str, Tensor], **given: object) -> Checkpoint:
    return Checkpoint(
        tensors=state,
        sha256="0" * 64,
        format="torch",
        layout="lucidrains-ddpm-2.x",
        given={**GIVEN, **given},
    )


def _options(*, steps: int) -> SamplingOptions:
    return SamplingOptions(sampler="ddim", steps=steps)


def _waves(name: str, shape: tuple[int, ...]) -> Tensor:
    k = torch.arange(math.prod(shape), dtype=torch.float64) + len(name)
    wave = torch.cos(k * k * 0.37 + 1.3 * k).reshape(shape)
    return (wave * math.sqrt(2 / (wave.numel() / shape[0])) if len(shape) > 1 else wave).float()


def _assert_golden(found: Tensor, expected: tuple[float, ...]) -> None:
    numbers = [
        found[0, 0, 0, 0],
        found[0, 1, 3, 5],
        found[1, 2, 7, 7],
        found[1, 0, 4, 2],
        found.mean(),
        found.std(),
    ]
    assert [float(number) for number in numbers] == pytest.approx(expected, abs=1e-5)
