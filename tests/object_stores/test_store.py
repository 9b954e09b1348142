"""URLs: what is refused and how, what is shown, and that files appear whole."""

from __future__ import annotations

import pytest

from evalkit.errors import TemporaryError, UsageError
from evalkit.object_stores import ObjectStore, is_url, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/runs", True),
        ("memory://a", True),
        ("file:///tmp/a", True),
        ("runs", False),
        ("/tmp/runs", False),
        ("C:/runs", False),
        ("odd:name", False),
    ],
)
def test_what_is_a_url(text, expected):
    assert is_url(text) is expected


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://bucket/runs", "s3fs"), ("gs://bucket/runs", "gcsfs"), ("az://c/runs", "adlfs")],
)
def test_a_package_that_is_not_installed_is_named(url, package, monkeypatch):
    def missing(_url: str) -> None:
        raise ImportError("install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UsageError, match="needs a package that is not installed") as caught:
        ObjectStore.of_url(url)
    assert caught.value.hint == f"pip install {package}"


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UsageError, match="zz://runs: Protocol not known: zz"):
        ObjectStore.of_url("zz://runs")


@pytest.mark.parametrize("url", ["memory://a/*", "memory://a?versionId=1", "simplecache::memory://a"])
def test_what_is_no_folder_is_refused(url):
    with pytest.raises(UsageError, match="a folder is wanted"):
        ObjectStore.of_url(url)


def test_credentials_are_not_shown(monkeypatch):
    assert shown("sftp://me:hunter2secret@host/runs") == "sftp://[redacted]@host/runs"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdefghijkl")
    assert "abcdefghijkl" not in shown("cannot sign with abcdefghijkl for s3://bucket")


def test_credentials_are_in_no_message(monkeypatch):
    monkeypatch.setenv("STORE_TOKEN", "t0ken-of-the-store")
    store = ObjectStore.of_url("memory://me:hunter2secret@bucket/runs")

    def refuse(*_values: object, **_options: object) -> None:
        raise OSError("401 for memory://me:hunter2secret@bucket with t0ken-of-the-store")

    monkeypatch.setattr(store.filesystem, "cat_file", refuse)
    with pytest.raises(TemporaryError) as caught:
        store.read("a.json")
    told = f"{caught.value.message} {caught.value.hint}"
    assert "hunter2secret" not in told
    assert "t0ken-of-the-store" not in told
    assert "cannot read memory://[redacted]@bucket/runs/a.json: 401 for memory://[redacted]@bucket" in told


def test_files_are_listed_read_replaced_and_removed(url):
    store = ObjectStore.of_url(url)
    assert store.names() == frozenset()
    assert store.read("a/b.bin") is None
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two"
    assert store.names("a") == {"b.bin"}
    assert store.folders() == {"a"}
    assert dict(store.read_all(["a/b.bin", "a/none.bin"])) == {"a/b.bin": b"two"}
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert store.names("a") == frozenset()


def test_a_file_is_created_once(url):
    store = ObjectStore.of_url(url)
    assert store.create("a/lease.json", b"first")
    assert not store.create("a/lease.json", b"second")
    assert store.read("a/lease.json") == b"first"


def test_a_put_that_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    store = ObjectStore.of_url(f"file://{tmp_path}")
    store.write("a/b.bin", b"old")
    put = store.filesystem.pipe_file

    def half(path: str, value: bytes, **options: object) -> None:
        put(path, value[:2], **options)
        raise OSError("the connection was reset")

    monkeypatch.setattr(store.filesystem, "pipe_file", half)
    with pytest.raises(TemporaryError, match="the connection was reset"):
        store.write("a/b.bin", b"new content")
    assert store.read("a/b.bin") == b"old"
    assert store.names("a") == {"b.bin"}


def test_a_store_that_cannot_be_written_to_is_a_usage_error(monkeypatch):
    store = ObjectStore.of_url("memory://readonly/runs")

    def refuse(*_values: object, **_options: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(store.filesystem, "pipe_file", refuse)
    with pytest.raises(UsageError, match="this kind of store does not do that"):
        store.write("a.json", b"{}")
