"""``evalkit assets``: what a user sees and what a script can rely on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evalkit.asset_catalogue import ASSETS, Published
from evalkit.assets import Asset
from evalkit.cli.assets import assets
from evalkit.errors import InvalidInputError, OfflineError, UsageError

BODY = b"the weights" * 1000
NAMES = ("test-weights", "test-other")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EVALKIT_CACHE", str(folder))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    for name in NAMES:
        digest = hashlib.sha256(BODY).hexdigest()
        asset = Asset(f"weights of {name}", f"https://example.org/{name}.pt", digest, f"{name}.pt", len(BODY))
        monkeypatch.setitem(ASSETS._items, name, Published(asset, "these tests", "MIT"))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "Downloads" / "w (1).pt"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


def call(*words: str) -> Result:
    return CliRunner().invoke(assets, list(words), standalone_mode=False)


def rows(*words: str) -> list[dict[str, Any]]:
    done = call(*words, "--format", "json")
    assert done.exception is None
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_list_tells_what_each_is_for_and_whether_it_is_here(source: Path) -> None:
    listed = {row["name"]: row for row in rows("list")}
    assert set(listed) == set(ASSETS)
    assert not listed["test-weights"]["at_hand"]
    row = listed["clip-vit-b-32"]
    assert row["sha256"] == ASSETS["clip-vit-b-32"].asset.sha256
    assert {"size", "licence", "purpose", "url", "path"} <= set(row)
    call("import", "test-weights", str(source))
    assert {row["name"] for row in rows("list") if row["at_hand"]} == {"test-weights"}


def test_the_table_is_for_people() -> None:
    text = call("list").stdout
    heading, *lines = text.splitlines()
    assert heading.split() == ["name", "at", "hand", "size", "sha256", "licence", "for"]
    assert any(line.startswith("dinov2 ") and "1218 MB" in line and "d5383ea8…" in line for line in lines)


def test_import_copies_after_the_check(cache: Path, source: Path) -> None:
    assert rows("import", "test-weights", str(source)) == [
        {"name": "test-weights", "path": str(cache / "test-weights.pt")}
    ]
    assert (cache / "test-weights.pt").read_bytes() == BODY


def test_import_refuses_another_file(cache: Path, source: Path) -> None:
    source.write_bytes(BODY[::-1])
    done = call("import", "test-weights", str(source))
    assert isinstance(done.exception, InvalidInputError)
    assert done.exception.exit_code == 6
    assert not (cache / "test-weights.pt").exists()


def test_fetch_without_network_says_where_to_put_it(cache: Path) -> None:
    done = call("fetch", "test-weights")
    assert isinstance(done.exception, OfflineError)
    assert done.exception.exit_code == 75
    for part in (
        "https://example.org/test-weights.pt",
        hashlib.sha256(BODY).hexdigest(),
        str(cache / "test-weights.pt"),
    ):
        assert part in (done.exception.hint or "")


def test_fetch_of_what_is_here_needs_no_network(cache: Path, source: Path) -> None:
    call("import", "test-weights", str(source))
    assert rows("fetch", "test-weights")[0]["path"] == str(cache / "test-weights.pt")


def test_a_misspelt_name_fetches_nothing(source: Path) -> None:
    done = call("fetch", "test-weights", "test-wights")
    assert isinstance(done.exception, UsageError)
    assert "test-weights" in (done.exception.hint or "")
    assert call("fetch").exception is not None


def test_verify_of_an_empty_cache() -> None:
    assert rows("verify") == []
    assert rows("verify", "test-other")[0]["state"] == "not here"


def test_verify_finds_damage_and_names_it(cache: Path, source: Path) -> None:
    for name in NAMES:
        call("import", name, str(source))
    assert [row["state"] for row in rows("verify")] == ["whole", "whole"]
    (cache / "test-other.pt").write_bytes(BODY[:-1] + b"x")
    done = call("verify", "--format", "json")
    assert isinstance(done.exception, InvalidInputError)
    assert done.exception.exit_code == 6
    assert "test-other" in done.exception.message
    assert {row["name"]: row["state"] for row in json.loads(done.stdout)} == {
        "test-weights": "whole",
        "test-other": "damaged",
    }
    assert call("verify", "test-weights").exception is None


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_it_starts_without_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom evalkit.cli.assets import assets\n"
        f"assets.main(args={words!r}, standalone_mode=False)\n"
        "heavy = ('torch', 'numpy', 'scipy', 'pandas', 'timm', 'open_clip')\n"
        "print('loaded', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
