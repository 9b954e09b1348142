"""The laws that every registered pair measure keeps, on real pictures and the embedded or random networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import EvalkitError, InvalidInputError, OfflineError, UsageError
from evalkit.metrics import METRICS
from evalkit.perceptual import PAIR_MEASURES, ImageDistance, PairMeasure, build_pair_measure

from .conftest import noisy, photographs

LIGHT = ("psnr", "psnr-y", "ssim", "ssim-y", "ms-ssim", "pd-efficientnet-lite0", "style-efficientnet-lite0")
# VGG16 on a picture that MS-SSIM would need takes seconds: networks see small pictures.
every = pytest.mark.parametrize("name", PAIR_MEASURES)


def pictures(name: str) -> torch.Tensor:
    return photographs(176 if name == "ms-ssim" else 48)


@pytest.fixture(scope="module")
def build(backbone_files):
    made: dict[str, PairMeasure] = {}

    def make(name: str) -> PairMeasure:
        if name not in made:
            made[name] = build_pair_measure(name, weights=backbone_files, device="cpu")
        return made[name]

    return make


@every
def test_identity_symmetry_names_and_types(build, name):
    measure, facts = build(name), PAIR_MEASURES[name]
    a, b = pictures(name), noisy(pictures(name), 30)
    assert isinstance(measure, PairMeasure)
    assert isinstance(measure, ImageDistance) == facts.from_floats
    assert measure.names == (name,)
    same, there, back = (measure(*pair, masks={})[name] for pair in ((a, a), (a, b), (b, a)))
    assert same.tolist() == [facts.identity] * 3
    assert there.dtype == torch.float64
    torch.testing.assert_close(there, back, rtol=1e-6, atol=0)
    assert ((there < facts.identity) if facts.better == "higher" else (there > facts.identity)).all()


@every
def test_spec_and_facts_agree_with_the_metrics(build, name):
    spec, facts = build(name).spec, PAIR_MEASURES[name]
    assert (spec.kind, spec.name) == ("pair-measure", name)
    assert (spec.sha256 is None) == (facts.network is None)
    assert METRICS[facts.metric].better == facts.better
    assert METRICS[facts.metric].reads == "pairs"
    assert facts.metric == name or name.startswith(f"{facts.metric}-")
    assert spec.to_json()["params"]


@every
def test_an_image_may_be_as_small_as_stated(build, name):
    least = PAIR_MEASURES[name].minimum_size
    image = photographs(176)[:1, :, :least, : least + 3].contiguous()
    assert build(name)(noisy(image, 9), image, masks={})[name].isfinite().all()
    if least > 1:
        smaller = image[..., : least - 1, :].contiguous()
        with pytest.raises(InvalidInputError, match=f"{least}x{least}"):
            build(name)(smaller, smaller, masks={})


@every
def test_a_pair_does_not_depend_on_its_batch(build, name):
    a, b = pictures(name), noisy(pictures(name), 30)
    measure = build(name)
    together = measure(a, b, masks={})[name]
    alone = torch.cat([measure(a[i : i + 1], b[i : i + 1], masks={})[name] for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-5 if PAIR_MEASURES[name].network else 1e-12, atol=0)


@every
def test_regions_follow_the_pictures(build, name):
    """A whole mask is the whole (where there is no upsampling); an empty one is NaN for its pair alone."""
    a, b = pictures(name), noisy(pictures(name), 30)
    size = a.shape[-2:]
    full = torch.ones(3, 1, *size, dtype=torch.bool)
    holed = full.clone()
    holed[1] = False
    found = build(name)(a, b, masks={"full": full, "holed": holed})
    assert set(found) == {name, f"{name}/full", f"{name}/holed"}
    upsampled = name.startswith(("lpips", "pd"))
    torch.testing.assert_close(found[f"{name}/full"], found[name], rtol=0.15 if upsampled else 1e-5, atol=0)
    holed_values = found[f"{name}/holed"]
    assert holed_values.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(holed_values[::2], found[f"{name}/full"][::2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LIGHT)
def test_monotone_in_noise(build, name):
    a = pictures(name)
    measure, facts = build(name), PAIR_MEASURES[name]
    ladder = torch.stack([measure(noisy(a, sigma), a, masks={})[name] for sigma in (3, 8, 20, 50)])
    steps = ladder.diff(dim=0)
    assert ((steps < 0) if facts.better == "higher" else (steps > 0)).all()


@pytest.mark.parametrize("name", [name for name in LIGHT if not name.startswith("style")])
def test_noise_in_a_region_is_found_there(build, name):
    size = 256 if name == "ms-ssim" else 96
    a = photographs(size)
    inside = torch.zeros(3, 1, size, size, dtype=torch.bool)
    inside[..., : size // 2] = True
    b = torch.where(inside, noisy(a, 40), noisy(a, 5))
    measure = build(name)
    found = measure(b, a, masks={"in": inside, "out": ~inside})
    worse, better = found[f"{name}/in"], found[f"{name}/out"]
    assert ((worse < better) if PAIR_MEASURES[name].better == "higher" else (worse > better)).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(11, 90),
    width=st.integers(11, 90),
    level=st.floats(0, 90),
)
def test_ssim_and_psnr_keep_their_range(seed, height, width, level):
    a = torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()
    b = noisy(a, level, seed)
    ssim = build_pair_measure("ssim", weights={}, device="cpu")(a, b, masks={})["ssim"]
    psnr = build_pair_measure("psnr", weights={}, device="cpu")(a, b, masks={})["psnr"]
    assert ((ssim >= -1) & (ssim <= 1)).all()
    assert ((psnr == torch.inf) == (a == b).flatten(1).all(1)).all()
    assert (psnr >= 0).all()


def test_threads_do_not_matter(build):
    a, b = photographs(), noisy(photographs(), 30)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([build(name)(a, b, masks={})[name] for name in ("ssim", "pd-efficientnet-lite0")])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=0)


def test_inputs_are_checked(build):
    ssim, image = build("ssim"), photographs()
    mask = torch.ones(3, 1, 96, 96, dtype=torch.bool)
    wrong: tuple[tuple[type[EvalkitError], tuple[object, ...], dict[str, torch.Tensor]], ...] = (
        (UsageError, (image.float(), image), {}),
        (UsageError, (image, image.float()), {}),
        (UsageError, (image, image), {"m": mask.float()}),
        (InvalidInputError, (image, image), {"m": mask[:, 0]}),
        (InvalidInputError, (image, image[..., :95]), {}),
        (InvalidInputError, (image[:2], image), {}),
        (InvalidInputError, (image[:0], image[:0]), {}),
        (InvalidInputError, (image[:, :1], image[:, :1]), {}),
        (InvalidInputError, (image[0], image[0]), {}),
    )
    for error, pair, masks in wrong:
        with pytest.raises(error):
            ssim(*pair, masks=masks)


def test_an_unknown_name_is_explained():
    with pytest.raises(UsageError) as caught:
        build_pair_measure("lpips-alexnet", weights={}, device="cpu")
    assert "lpips-alex" in (caught.value.hint or "")


@pytest.mark.parametrize("name", [name for name in PAIR_MEASURES if PAIR_MEASURES[name].downloads])
def test_without_network_it_says_what_to_fetch(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        build_pair_measure(name, weights={}, device="cpu")
    assert "https://download.pytorch.org/models/" in (caught.value.hint or "")


def test_facts_need_no_torch():
    code = "import sys, evalkit.perceptual as p; assert p.PAIR_MEASURES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
