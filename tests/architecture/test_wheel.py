"""The build puts the bundled files into the package."""

from __future__ import annotations

import tomllib
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_bundled_files_lie_where_the_wheel_takes_them_from():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["evalkit"]
    assert build["force-include"] == {"reference_stats": "evalkit/reference_stats"}
    bundled = {path.name for path in (ROOT / "evalkit" / "generators" / "bundled").iterdir()}
    for name in ("cgan", "ddpm", "gated-pixelcnn", "sngan", "stylegan", "vae", "vq-vae"):
        assert {f"{name}.safetensors", f"{name}.md"} <= bundled
    assert {"cifar10-jpeg-train.safetensors", "cifar10-jpeg-test.safetensors", "INDEX.md"} <= {
        path.name for path in (ROOT / "reference_stats").iterdir()
    }
    folders = (ROOT / "reference_stats", ROOT / "evalkit" / "generators" / "bundled")
    packed = sum(len(zlib.compress(path.read_bytes(), 1)) for folder in folders for path in folder.iterdir())
    assert packed <= 59_000_000  # the wheel's limit is 60 MB; the code takes less than one
