"""The table of published files: whole, without doubles, and what extractors name is in it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.asset_catalogue import ASSETS, cached_any, fetch_any, present, published
from evalkit.errors import OfflineError, UsageError
from evalkit.extractors.facts import FACTS


@pytest.mark.parametrize("name", ASSETS)
def test_every_entry_is_whole(name: str) -> None:
    entry = published(name)
    assert entry.asset.url.startswith("https://")
    assert entry.asset.url.endswith(entry.asset.filename)
    assert re.fullmatch(r"[0-9a-f]{64}", entry.asset.sha256)
    assert entry.asset.size is None or entry.asset.size > 1_000_000
    assert entry.purpose
    assert entry.licence


@pytest.mark.parametrize("name", ASSETS)
def test_digests_agree_with_what_publishers_put_into_addresses(name: str) -> None:
    """torchvision and torch-fidelity put eight digits into the name, OpenAI the digest into the path."""
    asset = published(name).asset
    told = re.findall(r"[-/]([0-9a-f]{8}(?:[0-9a-f]{56})?)(?=[./])", asset.url)
    assert all(asset.sha256.startswith(part) for part in told)
    assert told or "fbaipublicfiles" in asset.url


def test_no_file_stands_in_for_another() -> None:
    names = [published(name).asset.filename for name in ASSETS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", FACTS)
def test_what_an_extractor_names_is_there(name: str) -> None:
    facts = FACTS[name]
    assert facts.downloads == bool(facts.assets)
    assert all(asset in ASSETS for asset in facts.assets)


def test_any_of_several_files_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    body = b"weights"
    digest = hashlib.sha256(body).hexdigest()
    for name in ("first", "second"):
        entry = published("vgg16")
        asset = type(entry.asset)(name, f"https://example.org/{name}.pt", digest, f"{name}.pt")
        monkeypatch.setitem(ASSETS._items, name, type(entry)(asset, "tests", "MIT"))
    assert cached_any(("first", "second")) is None
    assert not present(("first", "second"))
    with pytest.raises(OfflineError, match="first"):
        fetch_any(("first", "second"))
    (tmp_path / "second.pt").write_bytes(body)
    assert fetch_any(("first", "second")) == tmp_path / "second.pt"
    assert present(("first", "second"))
    assert not present(())


def test_a_misspelt_name_is_explained() -> None:
    with pytest.raises(UsageError) as caught:
        published("clip-vit-b32")
    assert "clip-vit-b-32" in (caught.value.hint or "")


def test_it_starts_without_torch() -> None:
    code = "import evalkit.asset_catalogue, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
