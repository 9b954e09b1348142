"""Training a VQ-VAE: the moving means of the codebook, both parts of the steps, resuming in either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evalkit.generators import load_generator
from evalkit.generators.vae.quantised import Codebook, VQVAEConfig
from evalkit.training.loop import FitOptions, TrainingSet, fit
from evalkit.training.recipes import export
from evalkit.training.vqvae import CODE_DECAY, VQVAETask, follow, restart_codes

CONFIG = VQVAEConfig(
    codes=8, code_dim=4, width=8, residual_width=4, residual_layers=1, num_classes=3, prior_features=8,
    prior_layers=1, prior_head=8,
)  # fmt: skip
STEPS = 20


def _task(steps: int = STEPS) -> VQVAETask:
    return VQVAETask(config=CONFIG, steps=steps, device="cpu", warmup=2, bfloat16=False)


def _data(n: int = 24) -> TrainingSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, 1, 1)) // 2 + rng.integers(0, 60, (n, 3, 32, 32))
    return TrainingSet(images.astype(np.uint8), rng.integers(0, 3, n).astype(np.int64))


def _options(steps: int) -> FitOptions:
    return FitOptions(steps, 8, preview_every=10_000)


def test_vectors_are_the_moving_means_of_what_chose_them():
    torch.manual_seed(0)
    book = Codebook(3, 2)
    book.counts.fill_(4.0)
    book.sums.copy_(4.0 * book.vectors)
    before = book.vectors.clone()
    encoded = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]]])
    follow(book, encoded, torch.tensor([[[1, 1]]]), torch.Generator())
    rate = 1.0 - CODE_DECAY
    total = (CODE_DECAY * 4.0 * before[1] + rate * torch.tensor([4.0, 0.0])) / (CODE_DECAY * 4.0 + rate * 2.0)
    assert torch.allclose(book.vectors[1], total, atol=1e-6)
    assert torch.allclose(book.vectors[[0, 2]], before[[0, 2]], atol=1e-6)


def test_codes_that_nobody_chooses_move_to_encoded_vectors():
    book = Codebook(4, 2)
    book.counts.copy_(torch.tensor([9.0, 0.1, 9.0, 0.1]))
    encoded = torch.full((1, 3, 3, 2), 7.0)
    follow(book, encoded, torch.zeros(1, 3, 3, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert torch.allclose(book.vectors[[1, 3]], torch.full((2, 2), 7.0))
    assert float(book.counts.min()) >= 2.0


def test_restarting_leaves_vectors_the_means_of_their_sums():
    book = Codebook(5, 2)
    restart_codes(book, torch.randn(2, 3, 3, 2), torch.ones(5).bool(), torch.Generator().manual_seed(0))
    assert torch.allclose(book.vectors, book.sums / book.counts[:, None])


def test_each_part_of_the_steps_trains_its_own_network_alone():
    task, data = _task(), _data()
    parts = {"autoencoder": task.network.autoencoder, "prior": task.network.prior}
    for step in (0, 5, 10, 19):
        before = {k: {n: t.clone() for n, t in m.state_dict().items()} for k, m in parts.items()}
        images, labels = data.batch(_options(STEPS), step, torch.Generator())
        logged = task.step(images, labels, step=step, rng=torch.Generator().manual_seed(step))
        moved = {
            k: any(not torch.equal(t, before[k][n]) for n, t in m.state_dict().items())
            for k, m in parts.items()
        }
        assert moved == {"autoencoder": step < 10, "prior": step >= 10}
        assert list(logged) == ["mse", "commitment", "codes_used", "prior_bits_per_code"]
        assert (logged["prior_bits_per_code"] > 0) == (step >= 10)


def test_the_decoder_s_gradient_passes_straight_through_the_codes():
    task, data = _task(), _data()
    images, _ = data.batch(_options(STEPS), 0, torch.Generator())
    task._autoencoder_step(images, step=3, rng=torch.Generator().manual_seed(0))
    first = task.network.autoencoder.encoder[0].weight
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0.0


@pytest.mark.parametrize("stop", [4, 13])
def test_resumed_training_is_identical_and_exports(tmp_path, stop):
    data, whole, resumed = _data(), _task(), _task()
    facts = fit(whole, data, _options(STEPS), out=tmp_path / "whole")
    fit(_task(), data, _options(stop), out=tmp_path / "halves")
    fit(resumed, data, _options(STEPS), out=tmp_path / "halves")
    expected, found = whole.export()[1], resumed.export()[1]
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    export(whole, tmp_path / "vq.safetensors", dict(facts))
    generator = load_generator("vq-vae", tmp_path / "vq.safetensors")
    images = generator.generate(np.array([1, 2]), labels=np.array([0, 2]))
    assert images.shape == (2, 3, 32, 32)
    assert generator.reconstruct(images).shape == images.shape


def test_the_autoencoder_learns():
    task, data = _task(240), _data()
    errors = [
        task.step(
            *data.batch(_options(240), s, torch.Generator()), step=s, rng=torch.Generator().manual_seed(s)
        )["mse"]
        for s in range(100)
    ]
    assert errors[-1] < 0.5 * errors[0]
