"""Small cases of the hot paths for pytest-benchmark: to compare one commit with another on one machine.

    pip install -e '.[bench]'
    python -m pytest benchmarks/test_speed.py -n0 -p no:randomly --benchmark-save=before
    python -m pytest benchmarks/test_speed.py -n0 -p no:randomly --benchmark-compare=0001

Groups hold evalkit and one plain way or peer. What is published comes from the scripts beside this file,
which take turns with their peers; a table of absolute times, as here, is for one's own changes. Each case
checks its number, so that nothing fast and wrong is timed.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import structural_similarity
from torch_fidelity.metric_kid import mmd2

from evalkit.accumulators.moments import MomentsAccumulator
from evalkit.extractors import build_extractor
from evalkit.generators import load_generator
from evalkit.numerics import (
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
)
from evalkit.perceptual.facts import PAIR_MEASURES
from evalkit.perceptual.structure import build_ssim
from evalkit.seeding import image_seeds, normal_per_image
from evalkit.sources.decode import decode_image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers
WIDTH, COUNT = 512, 2000


@pytest.fixture(scope="module")
def sides():
    """Two sets of float32 features ``[2000, 512]``, a little apart."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(1, 0.05, WIDTH)
    return [(rng.standard_normal((COUNT, WIDTH)) * spread + shift).astype(np.float32) for shift in (0, 0.02)]


@pytest.fixture(scope="module")
def photographs():
    """Eight smooth pairs uint8 ``[8, 3, 256, 256]``."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 16, 16, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=256, mode="bicubic").clamp(0, 1)
    noise = 0.05 * torch.randn(fine.shape, generator=generator)
    return [(255 * x).round().to(torch.uint8) for x in (fine, (fine + noise).clamp(0, 1))]


@pytest.mark.benchmark(group="fréchet distance of moments, 512-d")
@pytest.mark.parametrize("who", ["evalkit", "pytorch-fid"])
def test_frechet_distance(benchmark, sides, who):
    moments = [(x.mean(0, dtype=np.float64), np.cov(x, rowvar=False, dtype=np.float64)) for x in sides]

    def ours() -> float:
        return frechet_distance(*moments[0], *moments[1])

    def theirs() -> float:
        return float(calculate_frechet_distance(*moments[0], *moments[1]))

    value = benchmark(ours if who == "evalkit" else theirs)
    assert value == pytest.approx(theirs(), rel=1e-6)


@pytest.mark.benchmark(group="moments, 512-d")
@pytest.mark.parametrize("who", ["evalkit", "numpy.cov"])
def test_moments(benchmark, sides, who):
    x, index = sides[0], np.arange(COUNT)

    def ours() -> np.ndarray:
        moments = MomentsAccumulator()
        moments.update(x, index)
        return moments.covariance

    def theirs() -> np.ndarray:
        return np.cov(x, rowvar=False, dtype=np.float64)

    found = benchmark(ours if who == "evalkit" else theirs)
    np.testing.assert_allclose(found, theirs(), atol=1e-12)


@pytest.mark.benchmark(group="precision, recall, density and coverage, 2 000 x 2 000, 512-d")
@pytest.mark.parametrize("who", ["evalkit", "prdc"])
def test_neighbours(benchmark, sides, who):
    generated, reference = sides

    def ours() -> float:
        return precision_recall_density_coverage(generated, reference, k=5, inclusive=False).coverage

    def theirs() -> float:
        return float(compute_prdc(reference, generated, nearest_k=5)["coverage"])

    assert benchmark(ours if who == "evalkit" else theirs) == pytest.approx(theirs(), abs=2 / COUNT)


@pytest.mark.benchmark(group="kernel distance, 2 000 x 2 000, 512-d")
@pytest.mark.parametrize("who", ["evalkit", "torch-fidelity"])
def test_kernel_distance(benchmark, sides, who):
    generated, reference = sides

    def ours() -> float:
        return kernel_distance(generated, reference)

    def theirs() -> float:
        x, y = generated.astype(float), reference.astype(float)
        kernels = [(a @ b.T / WIDTH + 1) ** 3 for a, b in ((x, x), (x, y), (y, y))]
        return float(mmd2(*kernels, mmd_est="unbiased"))

    assert benchmark(ours if who == "evalkit" else theirs) == pytest.approx(theirs(), rel=1e-6)


@pytest.mark.benchmark(group="ssim, 3 x 256 x 256, 8 pairs")
@pytest.mark.parametrize("who", ["evalkit", "scikit-image"])
def test_ssim(benchmark, photographs, who):
    measure = build_ssim(PAIR_MEASURES["ssim"], weights=None, device="cpu")

    def ours() -> np.ndarray:
        return measure(*photographs, masks={})["ssim"].numpy()

    def theirs() -> np.ndarray:
        return np.array(
            [
                structural_similarity(
                    x.numpy(), y.numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False, data_range=255,
                )
                for x, y in zip(*photographs, strict=True)
            ]
        )  # fmt: skip

    np.testing.assert_allclose(benchmark(ours if who == "evalkit" else theirs), theirs(), atol=1e-5)


@pytest.mark.benchmark(group="seeded noise, 1 024 x 3 x 32 x 32")
@pytest.mark.parametrize("who", ["evalkit", "a generator each"])
def test_noise(benchmark, who):
    seeds = image_seeds(0, np.arange(1024))

    def ours() -> torch.Tensor:
        return normal_per_image(seeds, (3, 32, 32), device=torch.device("cpu"))

    def theirs() -> torch.Tensor:
        drawn = [torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return torch.stack(drawn)

    assert torch.equal(benchmark(ours if who == "evalkit" else theirs), theirs())


@pytest.mark.benchmark(group="decoding, 32 PNG of 256 x 256")
@pytest.mark.parametrize("who", ["evalkit", "Pillow"])
def test_decoding(benchmark, photographs, who):
    files = []
    for image in [*photographs[0], *photographs[1]] * 2:
        stream = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "PNG")
        files.append(stream.getvalue())

    def ours() -> np.ndarray:
        return decode_image_of_last(files)

    def theirs() -> np.ndarray:
        return [np.asarray(Image.open(io.BytesIO(data))) for data in files][-1]

    np.testing.assert_array_equal(benchmark(ours if who == "evalkit" else theirs), theirs())


def decode_image_of_last(files: list[bytes]) -> np.ndarray:
    """Decode every file and return the last, uint8 ``[h, w, 3]``."""
    return [decode_image(data, name="a.png") for data in files][-1].permute(1, 2, 0).numpy()


@pytest.mark.benchmark(group="EfficientNet-Lite0, 64 images of 32 x 32")
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_extraction(benchmark, backend):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=generator)
    plain = build_extractor("efficientnet-lite0", backend="torch")
    extractor = build_extractor("efficientnet-lite0", backend=backend)
    found = benchmark(extractor, images, ["block"])["block"]
    torch.testing.assert_close(found, plain(images, ["block"])["block"], rtol=1e-4, atol=1e-4)


@pytest.mark.benchmark(group="sampling, 64 images")
@pytest.mark.parametrize("model", ["cgan", "stylegan", "vae", "sngan"])
def test_sampling(benchmark, model):
    generator = load_generator(model)
    labels = np.arange(64) % generator.num_classes if generator.num_classes else None
    drawn = benchmark(generator.generate, image_seeds(0, np.arange(64)), labels=labels)
    assert drawn.shape == (64, 3, 32, 32)
