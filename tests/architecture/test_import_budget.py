"""What starts without torch stays so, and --help is quick because it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "diffusers", "pandas", "scipy", "timm", "open_clip", "lpips")


def _heavy_after(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter; return which heavy packages it loaded."""
    probe = f"{code}\nimport sys; print('loaded', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    word, *found = done.stdout.splitlines()[-1].split()
    assert word == "loaded"
    return set(found)


@pytest.mark.parametrize(
    "code",
    [
        "import evalkit",
        "import evalkit.record, evalkit.protocol, evalkit.reporting.table",
        "import evalkit.extractors.facts",
        "import evalkit.cli.main; evalkit.cli.main.run(['--help'])",
        "import evalkit.cli.main; evalkit.cli.main.run(['list', 'protocols'])",
        "import evalkit.cli.main; evalkit.cli.main.run(['list', 'extractors'])",
        "import evalkit.cli.main; evalkit.cli.main.run(['list', 'measures'])",
        "import evalkit.cli.compare",
        "import evalkit.cli.memorisation, evalkit.cli.pairs, evalkit.cli.reference_build, evalkit.cli.score",
    ],
)
def test_starts_without_anything_heavy(code):
    assert _heavy_after(code) == set()


def test_listing_models_loads_no_torch():
    assert "torch" not in _heavy_after("import evalkit.cli.main; evalkit.cli.main.run(['list', 'models'])")


def test_public_names_are_pinned_and_load():
    import evalkit

    assert evalkit.__all__ == [
        "EvalkitError",
        "Reference",
        "RunRecord",
        "SamplingOptions",
        "load_generator",
        "load_reference",
        "numerics",
        "score",
    ]
    for name in evalkit.__all__:
        assert getattr(evalkit, name) is not None
    with pytest.raises(AttributeError):
        evalkit.no_such_name  # noqa: B018
