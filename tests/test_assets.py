"""Every fault that a download or a cache can have, injected; a real server on the loopback interface."""

from __future__ import annotations

import hashlib
import multiprocessing
import stat
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evalkit import assets
from evalkit.assets import Asset, cached, fetch, import_file, open_https
from evalkit.errors import InvalidInputError, OfflineError, TemporaryError

BODY = bytes(range(256)) * 8192  # 2 MiB: more than one block
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY at /whole, half of it at /half (with the whole length announced), else an error."""

    requests: list[str]

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        if self.path not in {"/whole", "/half", "/unannounced-half", "/other"}:
            self.send_error(503)
            return
        body = {"/whole": BODY, "/other": b"other"}.get(self.path, BODY[: len(BODY) // 2])
        self.send_response(200)
        if self.path != "/unannounced-half":
            self.send_header("Content-Length", str(len(BODY) if self.path == "/half" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def loopback(server: Any) -> Any:
    """An opener that asks the local server for the path of the https URL it is given."""
    server.seen.clear()

    def opener(url: str) -> Any:
        path = url.removeprefix("https://example.org")
        return urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=5)

    return opener


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EVALKIT_CACHE", str(folder))
    monkeypatch.delenv("EVALKIT_OFFLINE", raising=False)
    return folder


def asset(path: str = "/whole", *, sha256: str = DIGEST, size: int | None = None) -> Asset:
    return Asset("the weights", f"https://example.org{path}", sha256, "weights.pth", size)


def unreachable(url: str) -> Any:
    raise urllib.request.URLError(f"no route to {url}")  # type: ignore[attr-defined]


def forbidden(url: str) -> Any:
    raise AssertionError(f"the network was used for {url}")


def leftovers(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.fault("no-network")
def test_downloads_once_and_then_uses_the_cache(loopback: Any, cache: Path) -> None:
    path = fetch(asset(), opener=loopback)
    assert path == cache / "weights.pth"
    assert path.read_bytes() == BODY
    assert fetch(asset(), opener=forbidden) == path
    assert leftovers(cache) == {"weights.pth", "weights.pth.sha256"}


@pytest.mark.fault("cache-planted")
def test_cache_folder_is_private(loopback: Any, cache: Path) -> None:
    path = fetch(asset(), opener=loopback)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.fault("download-wrong-hash")
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_wrong_hash_leaves_nothing(loopback: Any, cache: Path, size: int | None) -> None:
    with pytest.raises(InvalidInputError, match="0000abcd") as caught:
        fetch(asset(sha256="0000abcd", size=size), opener=loopback)
    assert caught.value.exit_code == 6
    assert leftovers(cache) == set()


@pytest.mark.fault("download-interrupted")
def test_interrupted_download_is_temporary_and_is_fetched_anew(loopback: Any, cache: Path) -> None:
    with pytest.raises(TemporaryError) as caught:
        fetch(asset("/half", size=len(BODY)), opener=loopback)
    assert caught.value.exit_code == 75
    assert leftovers(cache) == set()
    assert fetch(asset(), opener=loopback).read_bytes() == BODY


@pytest.mark.fault("download-interrupted")
def test_half_a_file_of_unknown_length_is_refused_by_its_hash(loopback: Any, cache: Path) -> None:
    with pytest.raises(InvalidInputError):
        fetch(asset("/unannounced-half"), opener=loopback)
    assert leftovers(cache) == set()


def test_a_leftover_part_file_is_not_used(loopback: Any, cache: Path) -> None:
    cache.mkdir(mode=0o700)
    (cache / ".weights.pth.abc.part").write_bytes(b"killed here")
    assert fetch(asset(), opener=loopback).read_bytes() == BODY


def test_a_body_longer_than_announced_is_cut_off(loopback: Any, cache: Path) -> None:
    with pytest.raises(InvalidInputError, match="more than 10 bytes"):
        fetch(asset(size=10), opener=loopback)
    assert leftovers(cache) == set()


@pytest.mark.fault("cache-planted")
def test_preplanted_file_is_refused_and_left_alone(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    (cache / "weights.pth").write_bytes(b"malice")
    with pytest.raises(InvalidInputError, match=r"weights\.pth") as caught:
        fetch(asset(), opener=forbidden)
    assert caught.value.exit_code == 6
    assert (cache / "weights.pth").read_bytes() == b"malice"
    with pytest.raises(InvalidInputError):
        cached(asset())


@pytest.mark.fault("no-network")
def test_server_error_and_no_route_say_where_to_put_the_file(loopback: Any, cache: Path) -> None:
    for opener, path in ((loopback, "/503"), (unreachable, "/whole")):
        with pytest.raises(OfflineError) as caught:
            fetch(asset(path), opener=opener)
        hint = caught.value.hint or ""
        assert caught.value.exit_code == 75
        assert f"https://example.org{path}" in hint
        assert DIGEST in hint
        assert str(cache / "weights.pth") in hint
        assert leftovers(cache) == set()


@pytest.mark.fault("no-network")
@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_mode_never_touches_the_network(
    loopback: Any, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_OFFLINE", value)
    with pytest.raises(OfflineError, match="EVALKIT_OFFLINE"):
        fetch(asset(), opener=forbidden)
    monkeypatch.setenv("EVALKIT_OFFLINE", "0")
    path = fetch(asset(), opener=loopback)
    monkeypatch.setenv("EVALKIT_OFFLINE", value)
    assert fetch(asset(), opener=forbidden) == path


def test_a_file_placed_by_hand_is_used(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    (cache / "weights.pth").write_bytes(BODY)
    assert fetch(asset(), opener=forbidden).read_bytes() == BODY


def test_a_prefix_is_checked_and_the_full_digest_recorded(loopback: Any, cache: Path) -> None:
    path = fetch(asset(sha256=DIGEST[:8]), opener=loopback)
    assert (cache / "weights.pth.sha256").read_text().strip() == DIGEST
    assert fetch(asset(sha256=DIGEST[:8]), opener=forbidden) == path


def test_the_recorded_digest_binds_where_the_prefix_would_not(loopback: Any, cache: Path) -> None:
    fetch(asset(sha256=DIGEST[:8]), opener=loopback)
    (cache / "weights.pth.sha256").write_text(DIGEST[:8] + "0" * 56)
    with pytest.raises(InvalidInputError, match="was recorded"):
        fetch(asset(sha256=DIGEST[:8]), opener=forbidden)


def test_a_changed_file_is_found_at_the_next_use(loopback: Any) -> None:
    path = fetch(asset(), opener=loopback)
    path.write_bytes(BODY[:-1] + b"\0")
    with pytest.raises(InvalidInputError):
        fetch(asset(), opener=forbidden)


@pytest.mark.fault("disk-full")
def test_full_disk_is_temporary(loopback: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets.os, "fsync", no_space)
    with pytest.raises(TemporaryError, match="No space left"):
        fetch(asset(), opener=loopback)
    assert leftovers(cache) == set()


def test_many_at_once_download_once(server: Any, loopback: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(asset(), opener=loopback), range(4)))
    assert len(set(paths)) == 1
    assert server.seen == ["/whole"]


def test_a_lock_held_for_too_long_is_temporary(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_LOCK_TIMEOUT_S", 0.05)
    cache.mkdir(mode=0o700)
    with assets.FileLock(cache / ".weights.pth.lock"), ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(fetch, asset(), opener=forbidden)
        with pytest.raises(TemporaryError, match="another process"):
            attempt.result()


def _hold_and_die(path: str) -> None:
    import os

    from filelock import FileLock

    FileLock(path).acquire()
    os._exit(9)


@pytest.mark.fault("two-runs")
def test_a_lock_of_a_dead_process_releases_itself(loopback: Any, cache: Path) -> None:
    cache.mkdir(mode=0o700)
    process = multiprocessing.get_context("spawn").Process(
        target=_hold_and_die, args=(str(cache / ".weights.pth.lock"),)
    )
    process.start()
    process.join()
    assert fetch(asset(), opener=loopback).read_bytes() == BODY


def test_a_local_file_is_imported_after_its_hash_was_checked(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "downloaded (1).pth"
    source.write_bytes(BODY)
    path = import_file(asset(size=len(BODY)), source)
    assert path == cache / "weights.pth"
    assert path.read_bytes() == BODY
    assert source.exists()
    assert leftovers(cache) == {"weights.pth", "weights.pth.sha256"}
    assert fetch(asset(), opener=forbidden) == path
    assert import_file(asset(), tmp_path / "not read again") == path


@pytest.mark.parametrize("size", [None, len(BODY)])
@pytest.mark.parametrize("content", [b"other", BODY[:-1] + b"x", None])
def test_another_file_is_not_imported(
    cache: Path, tmp_path: Path, content: bytes | None, size: int | None
) -> None:
    source = tmp_path / "weights.pth"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"weights\.pth") as caught:
        import_file(asset(size=size), source)
    assert caught.value.exit_code == 6
    assert leftovers(cache) == set()


def test_an_import_does_not_replace_a_file_that_is_there(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(mode=0o700)
    (cache / "weights.pth").write_bytes(b"malice")
    source = tmp_path / "good.pth"
    source.write_bytes(BODY)
    with pytest.raises(InvalidInputError):
        import_file(asset(), source)
    assert (cache / "weights.pth").read_bytes() == b"malice"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://example.org/x"),
        ("url", "file:///etc/passwd"),
        ("filename", "../escape"),
        ("filename", ".hidden"),
        ("filename", ""),
        ("sha256", "ABCDEF01"),
        ("sha256", "abc"),
        ("sha256", "a" * 65),
    ],
)
def test_malformed_assets_cannot_be_made(field: str, value: str) -> None:
    good = {"name": "x", "url": "https://example.org/x", "sha256": "a" * 64, "filename": "x"}
    with pytest.raises(ValueError, match=r"\S"):
        Asset(**(good | {field: value}))


def test_redirects_leave_https_for_nothing() -> None:
    handler = assets._HttpsOnly()
    request = urllib.request.Request("https://example.org/x")
    for target in ("http://example.org/x", "file:///etc/passwd"):
        with pytest.raises(OSError, match="not https"):
            handler.redirect_request(request, None, 302, "Found", Message(), target)  # type: ignore[arg-type]
    followed = handler.redirect_request(request, None, 302, "Found", Message(), "https://cdn.example.org/x")  # type: ignore[arg-type]
    assert followed is not None
    assert followed.full_url == "https://cdn.example.org/x"


def test_the_default_opener_reports_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_TIMEOUT_S", 1.0)
    with pytest.raises(OSError, match=r"."):
        open_https("https://127.0.0.1:9/nothing")
