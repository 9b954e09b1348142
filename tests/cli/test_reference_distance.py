"""``evalkit reference distance``: its number, its names, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from evalkit.cli.reference import reference as command
from evalkit.errors import EvalkitError
from evalkit.numerics import frechet_distance
from evalkit.references import Description, HeadStatistics, Reference, write_reference
from evalkit.spec import Spec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))


def moments(width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([width, seed]).standard_normal((3 * width, width)) * (1 + seed)
    return x.mean(axis=0), np.cov(x, rowvar=False)


def foreign(path: Path, width: int = 12, seed: int = 0) -> Path:
    mean, cov = moments(width, seed)
    np.savez(path, mu=mean, sigma=cov)
    return path


def own(path: Path, widths: dict[str, int], seed: int = 0, **extractor: str) -> Path:
    spec = Spec.of("extractor", extractor.pop("name", "pixels"), sha256="a" * 64, **extractor)
    about = Description(path.stem, "A title", "toys", count=99, images_sha256="b" * 64, extractor=spec)
    heads = {head: HeadStatistics(99, *moments(width, seed)) for head, width in widths.items()}
    write_reference(Reference.of(about, heads), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["distance", *map(str, arguments)])


def refusal(*arguments: object) -> EvalkitError:
    error = run(*arguments).exception
    assert isinstance(error, EvalkitError)
    return error


def test_files_of_other_tools(tmp_path: Path):
    files = foreign(tmp_path / "a.npz"), foreign(tmp_path / "b.npz", seed=1)
    result = run(*files, "--format", "json")
    assert result.stdout.count("\n") == 1
    facts = json.loads(result.stdout)
    assert facts["value"] == frechet_distance(*moments(12, 0), *moments(12, 1))
    assert (facts["metric"], facts["name"], facts["head"]) == ("fd", "Fréchet distance", "12")
    assert facts["extractor"] is None
    assert facts["a"]["images"] is None
    lines = run(*files).stdout.splitlines()
    assert lines[0] == f"Fréchet distance  {facts['value']:.6g}"
    assert "FID only if both" in lines[2]
    assert lines[3:] == [
        "A                 a: number of images unknown",
        "B                 b: number of images unknown",
    ]
    assert len({line.index(line[16:].strip()) for line in lines}) == 1


def test_references_of_evalkit_name_their_extractor(tmp_path: Path):
    a = own(tmp_path / "a.safetensors", {"block": 5, "pooled": 7}, resizer="area")
    b = own(tmp_path / "b.safetensors", {"pooled": 7}, seed=1, resizer="area")
    text = run(a, b).stdout
    assert f"Fréchet distance  {frechet_distance(*moments(7, 0), *moments(7, 1)):.6g}\n" in text
    assert "pixels (resizer area)" in text
    assert "99 images" in text
    assert "FID" not in text


def test_the_name_fid_is_for_inception(tmp_path: Path):
    a, b = (
        own(tmp_path / f"{seed}.safetensors", {"64": 6, "2048": 9}, seed=seed, name="inception-v3")
        for seed in (0, 1)
    )
    pool = json.loads(run(a, b, "--format", "json").stdout)
    assert (pool["head"], pool["name"]) == ("2048", "Fréchet distance (FID)")
    early = json.loads(run(a, b, "--head", "64", "--format", "json").stdout)
    assert (early["dimensions"], early["name"]) == (6, "Fréchet distance")
    # The other side does not say who made it.
    mixed = json.loads(run(a, foreign(tmp_path / "c.npz", width=9), "--format", "json").stdout)
    assert (mixed["head"], mixed["name"], mixed["extractor"]) == ("2048", "Fréchet distance", None)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_foreign_file_takes_the_head_that_fits(tmp_path: Path, swapped: bool):
    files = [
        own(tmp_path / "a.safetensors", {"block": 5, "pooled": 7}),
        foreign(tmp_path / "b.npz", 7, seed=1),
    ]
    for extra in ((), ("--head", "pooled")):
        facts = json.loads(run(*(files[::-1] if swapped else files), *extra, "--format", "json").stdout)
        assert facts["head"] == "pooled"
        assert facts["value"] == pytest.approx(frechet_distance(*moments(7, 0), *moments(7, 1)), rel=1e-12)


def test_what_does_not_compare_is_refused(tmp_path: Path):
    a = own(tmp_path / "a.safetensors", {"block": 5, "pooled": 7}, resizer="area")
    twin = own(tmp_path / "b.safetensors", {"block": 5, "pooled": 7}, resizer="area")
    other = own(tmp_path / "c.safetensors", {"pooled": 7}, resizer="bicubic")
    small = foreign(tmp_path / "d.npz", width=3)
    several = refusal(a, twin)
    assert several.exit_code == 2
    assert several.hint == "choose one, for example --head block"
    resizer = refusal(a, other)
    assert resizer.exit_code == 3
    assert "resizer 'bicubic', in use 'area'" in resizer.message
    none = refusal(a, small)
    assert none.exit_code == 5
    assert "block (5), pooled (7); 3 (3)" in none.message
    assert refusal(a, twin, "--head", "blok").exit_code == 5
    assert refusal(a, twin, "--head", "blok").hint is not None
    assert refusal(a, small, "--head", "block").exit_code == 5
    assert refusal(tmp_path / "missing.npz", a).exit_code == 2
    (tmp_path / "broken.npz").write_bytes(small.read_bytes()[:-40])
    assert refusal(tmp_path / "broken.npz", a).exit_code in {2, 6}


def test_no_torch_is_loaded(tmp_path: Path):
    files = foreign(tmp_path / "a.npz"), foreign(tmp_path / "b.npz", seed=1)
    code = (
        "import sys; from evalkit.cli.main import run; code = run(sys.argv[1:]);"
        "print(code, *(name for name in ('torch', 'pandas', 'scipy.stats') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "reference", "distance", *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0"
