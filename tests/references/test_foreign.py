"""Statistics of other tools: every layout is read, every fault is named, nothing in a pickle runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format

from evalkit.errors import InvalidInputError, NothingMeasuredError, UnsafeCheckpointError, UsageError
from evalkit.references import load_reference, looks_like_statistics
from evalkit.references.foreign import (
    is_foreign_statistics,
    read_foreign,
    write_adm_npz,
    write_pytorch_fid_npz,
)
from evalkit.spec import Spec


def moments(dimension: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(dimension + 5, dimension))
    return x.mean(0), np.cov(x.T)


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("dimension", "head"), [(64, "64"), (192, "192"), (768, "768"), (10, "10")])
def test_mu_and_sigma_are_named_by_dimension(tmp_path: Path, dimension: int, head: str):
    mu, sigma = moments(dimension)
    reference = read_foreign(saved(tmp_path / "stats.npz", mu=mu, sigma=sigma))
    np.testing.assert_array_equal(reference.head(head).mean, mu)
    np.testing.assert_allclose(reference.head(head).covariance, sigma, rtol=1e-15)
    assert reference.extractor is None
    assert reference.count == 0, "unknown"
    assert reference.name == "stats"
    assert len(reference.sha256) == 64
    reference.check_extractor(Spec.of("extractor", "anything"))


def test_without_an_extractor_the_dimension_decides(tmp_path: Path):
    mu, sigma = moments(10)
    reference = read_foreign(saved(tmp_path / "stats.npz", mu=mu, sigma=sigma))
    assert reference.head("block", dimension=10).dimension == 10
    with pytest.raises(NothingMeasuredError, match="it has 10"):
        reference.head("block", dimension=11)


def test_float32_statistics_become_float64(tmp_path: Path):
    mu, sigma = (part.astype(np.float32) for part in moments(10))
    head = read_foreign(saved(tmp_path / "stats.npz", mu=mu, sigma=sigma)).head("10")
    assert head.mean.dtype == head.covariance.dtype == np.float64
    assert (head.covariance == head.covariance.T).all()


def test_clean_fid_features_are_a_bank(tmp_path: Path):
    feats = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    reference = read_foreign(saved(tmp_path / "x_kid.npz", feats=feats))
    head = reference.head("6")
    np.testing.assert_array_equal(head.bank, feats)
    np.testing.assert_allclose(head.mean, feats.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(head.covariance, np.cov(feats.astype(np.float64).T), rtol=1e-12, atol=1e-15)
    assert reference.count == head.count == 20
    assert reference.about.created_by == "clean-fid"


def test_studiogan_features(tmp_path: Path):
    feats = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    stored = saved(tmp_path / "x.npz", real_feats=feats, real_probs=feats, real_labels=np.arange(20))
    assert read_foreign(stored).head("6").has_bank


@pytest.mark.parametrize("with_images", [True, False])
def test_adm_has_a_pooled_and_a_spatial_head(tmp_path: Path, with_images: bool):
    (mu, sigma), (mu_s, sigma_s) = moments(12), moments(9)
    images = {"arr_0": np.zeros((2, 4, 4, 3), np.uint8)} if with_images else {}
    stored = saved(tmp_path / "adm.npz", mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s, **images)
    reference = read_foreign(stored)
    assert {name: head.dimension for name, head in reference.heads.items()} == {"12": 12, "spatial": 9}
    assert ("sample images" in reference.title) == with_images
    assert looks_like_statistics(stored)


@pytest.mark.parametrize("kind", ["numpy", "tensor", "fortran", "float32", "legacy"])
def test_torch_fidelity_files_of_arrays_and_tensors(tmp_path: Path, kind: str):
    mu, sigma = moments(8)
    made = {
        "numpy": (mu, sigma),
        "tensor": (torch.from_numpy(mu), torch.from_numpy(sigma)),
        "fortran": (mu, np.asfortranarray(sigma)),
        "float32": (mu.astype(np.float32), sigma.astype(np.float32)),
        "legacy": (mu, sigma),
    }[kind]
    torch.save(
        {"mu": made[0], "sigma": made[1]}, tmp_path / "s.pt", _use_new_zipfile_serialization=kind != "legacy"
    )
    assert looks_like_statistics(tmp_path / "s.pt")
    head = load_reference(tmp_path / "s.pt").head("8")
    tolerance = 1e-6 if kind == "float32" else 1e-15
    np.testing.assert_allclose(head.mean, mu, rtol=tolerance)
    np.testing.assert_allclose(head.covariance, sigma, rtol=tolerance, atol=tolerance)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(
    tmp_path: Path, new_format: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    content = {"mu": Malicious(marker), "sigma": np.eye(2)}
    torch.save(content, tmp_path / "s.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeCheckpointError, match="mkdir") as caught:
        read_foreign(tmp_path / "s.pt")
    assert caught.value.exit_code == 6
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"mu": np.array([{"a": 1}, None], dtype=object), "sigma": np.eye(2)},
        {"mu": np.array(["a", "b"]), "sigma": np.eye(2)},
        [1, 2],
        {"weights": torch.zeros(3)},
        {"mu": torch.zeros(2)},
    ],
    ids=["objects", "text", "no dict", "no statistics", "no sigma"],
)
def test_torch_files_of_other_things_are_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(InvalidInputError):
        read_foreign(tmp_path / "s.pt")


def test_a_broken_torch_file_is_refused(tmp_path: Path):
    torch.save({"mu": torch.zeros(64), "sigma": torch.eye(64)}, tmp_path / "s.pt")
    content = (tmp_path / "s.pt").read_bytes()
    (tmp_path / "s.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInputError):
        read_foreign(tmp_path / "s.pt")


def test_a_pickle_of_edm2_is_refused_with_the_way_out(tmp_path: Path):
    path = tmp_path / "ref.pkl"
    path.write_bytes(pickle.dumps({"fid": {"mu": np.zeros(2), "sigma": np.eye(2)}}))
    assert looks_like_statistics(path)
    with pytest.raises(InvalidInputError, match="could run code") as caught:
        read_foreign(path)
    assert "np.savez" in (caught.value.hint or "")


SYMMETRY_FAULT = np.eye(4) + np.triu(np.full((4, 4), 1e-3), 1)
NPZ_FAULTS = {
    "object array": ({"mu": np.array([None] * 4), "sigma": np.eye(4)}, "pickled objects"),
    "no sigma": ({"mu": np.zeros(4)}, "'mu' but not 'sigma'"),
    "no mu": ({"sigma": np.eye(4)}, "'sigma' but not 'mu'"),
    "no spatial sigma": (
        {"mu": np.zeros(4), "sigma": np.eye(4), "mu_s": np.zeros(3)},
        "'mu_s' but not 'sigma_s'",
    ),
    "neither": ({"other": np.zeros(4)}, "neither 'mu' and 'sigma' nor 'feats'"),
    "mean not finite": ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "mean holds NaN"),
    "sigma not finite": ({"mu": np.zeros(4), "sigma": np.full((4, 4), np.inf)}, "covariance holds NaN"),
    "not symmetric": ({"mu": np.zeros(4), "sigma": SYMMETRY_FAULT}, "not symmetric"),
    "not semidefinite": (
        {"mu": np.zeros(4), "sigma": np.diag([1, 1, 1, -1e-3])},
        "not positive semidefinite",
    ),
    "negative": ({"mu": np.zeros(4), "sigma": -np.eye(4)}, "not positive semidefinite"),
    "dimensions": ({"mu": np.zeros(4), "sigma": np.eye(5)}, r"mean \[4\], covariance \[5, 5\]"),
    "axes": ({"mu": np.zeros((1, 4)), "sigma": np.eye(4)}, "wrong dimension"),
    "empty": ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "wrong dimension"),
    "complex": ({"mu": np.zeros(4, complex), "sigma": np.eye(4)}, "complex128, not numbers"),
    "one feature": ({"feats": np.zeros((1, 4), np.float32)}, "n >= 2"),
    "features not finite": ({"feats": np.full((3, 4), np.inf, np.float32)}, "'feats' holds NaN"),
    "integer features": ({"feats": np.zeros((3, 4), np.int64)}, "not float"),
}


@pytest.mark.fault("bad-statistics")
@pytest.mark.parametrize("fault", NPZ_FAULTS)
def test_a_bad_npz_is_refused_saying_which(tmp_path: Path, fault: str):
    arrays, message = NPZ_FAULTS[fault]
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_foreign(saved(tmp_path / "bad.npz", **arrays))
    assert caught.value.exit_code == 6


def test_a_small_negative_eigenvalue_is_rounding(tmp_path: Path):
    sigma = np.diag([1.0, 1.0, 1.0, -1e-8])
    assert read_foreign(saved(tmp_path / "s.npz", mu=np.zeros(4), sigma=sigma)).head("4").dimension == 4


@pytest.mark.parametrize("cut", [10, 300])
def test_a_truncated_npz_is_refused(tmp_path: Path, cut: int):
    path = saved(tmp_path / "s.npz", mu=np.zeros(4), sigma=np.eye(4))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidInputError, match="no readable"):
        read_foreign(path)


def test_an_array_that_would_fill_the_memory_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    npy_format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", header.getvalue() + bytes(64))
    with pytest.raises(InvalidInputError, match="asks for 8000000000000 bytes"):
        read_foreign(path)


def test_a_flipped_byte_of_an_npz_is_found(tmp_path: Path):
    path = saved(tmp_path / "s.npz", mu=np.ones(4), sigma=np.eye(4))
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(4).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="CRC"):
        read_foreign(path)


def test_what_is_statistics_is_told_by_content(tmp_path: Path):
    assert is_foreign_statistics(saved(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.eye(2)))
    assert not is_foreign_statistics(saved(tmp_path / "b.npz", arr_0=np.zeros((1, 2, 2, 3), np.uint8)))
    assert not is_foreign_statistics(tmp_path / "absent.npz")
    with pytest.raises(UsageError, match="no file"):
        read_foreign(tmp_path / "absent.npz")


def test_the_files_we_write_are_the_ones_we_read(tmp_path: Path):
    (mu, sigma), (mu_s, sigma_s) = moments(12), moments(9, seed=1)
    reference = read_foreign(saved(tmp_path / "adm.npz", mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s))
    write_pytorch_fid_npz(reference, head="12", path=tmp_path / "pf.npz")
    with np.load(tmp_path / "pf.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"mu", "sigma"}
        np.testing.assert_array_equal(stored["mu"], mu)
        assert stored["sigma"].dtype == np.float64
    images = np.zeros((2, 4, 4, 3), np.uint8)
    write_adm_npz(reference, head="12", images=images, path=tmp_path / "out.npz")
    back = read_foreign(tmp_path / "out.npz")
    for head in ("12", "spatial"):
        np.testing.assert_array_equal(back.head(head).covariance, reference.head(head).covariance)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"mu", "sigma", "mu_s", "sigma_s", "arr_0"}
    with pytest.raises(InvalidInputError, match="arr_0"):
        write_adm_npz(reference, head="12", images=images[0], path=tmp_path / "out.npz")
    with pytest.raises(NothingMeasuredError, match="'2048'"):
        write_adm_npz(reference, path=tmp_path / "no.npz")


def test_pytorch_fid_reads_what_we_write(tmp_path: Path):
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    mu, sigma = moments(12)
    reference = read_foreign(saved(tmp_path / "in.npz", mu=mu, sigma=sigma))
    write_pytorch_fid_npz(reference, head="12", path=tmp_path / "out.npz")
    read_mu, read_sigma = fid_score.compute_statistics_of_path(
        str(tmp_path / "out.npz"), model=None, batch_size=1, dims=12, device="cpu"
    )
    np.testing.assert_array_equal(read_mu, mu)
    np.testing.assert_allclose(read_sigma, sigma, rtol=1e-15)
