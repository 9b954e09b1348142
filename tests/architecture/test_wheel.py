"""The build puts the bundled files into the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_bundled_files_lie_where_the_wheel_takes_them_from():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["evalkit"]
    assert build["force-include"] == {"reference_stats": "evalkit/reference_stats"}
    bundled = {path.name for path in (ROOT / "evalkit" / "generators" / "bundled").iterdir()}
    for name in ("cgan", "ddpm", "stylegan", "vae"):
        assert {f"{name}.safetensors", f"{name}.md"} <= bundled
    assert {"cifar10-jpeg-train.safetensors", "cifar10-jpeg-test.safetensors", "INDEX.md"} <= {
        path.name for path in (ROOT / "reference_stats").iterdir()
    }
    total = sum(path.stat().st_size for folder in ("reference_stats", "evalkit/generators/bundled")
                for path in (ROOT / folder).iterdir())  # fmt: skip
    assert total <= 60_000_000
