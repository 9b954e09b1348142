"""Files on other machines: found where they are the same, brought where they are not, never taken unseen."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, TemporaryError
from evalkit.executors import shipping
from evalkit.executors.shipping import Lacking, chunks_of, local_path, sent_path


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "driver" / "model"
    (root / "unet").mkdir(parents=True)
    (root / "index.json").write_text("{}")
    (root / "unet" / "weights.bin").write_bytes(bytes(range(256)))
    (root / "empty.txt").touch()
    return root


def pieces_of(path: Path):
    files = {file.sha256: path / file.place if file.place else path for file in sent_path(path).files}
    return lambda digest: chunks_of(files[digest])


def gone(path: Path, aside: Path) -> None:
    path.rename(aside)


def test_the_same_path_serves_where_its_content_is_the_same(folder):
    sent = sent_path(folder)
    assert local_path(sent) == folder
    weights = folder / "unet" / "weights.bin"
    os.utime(weights, (1, 1))  # as a copy on another machine
    assert local_path(sent) == folder


@pytest.mark.parametrize("change", ["other bytes", "one more", "one fewer", "a file instead", "nothing"])
def test_another_content_at_the_same_path_does_not_serve(folder, tmp_path, change):
    sent = sent_path(folder)
    match change:
        case "other bytes":
            (folder / "unet" / "weights.bin").write_bytes(bytes(256))
        case "one more":
            (folder / "more.bin").touch()
        case "one fewer":
            (folder / "empty.txt").unlink()
        case _:
            gone(folder, tmp_path / "aside")
            if change == "a file instead":
                folder.touch()
    with pytest.raises(Lacking) as caught:
        local_path(sent)
    assert caught.value.path == str(folder)


def test_a_folder_is_brought_whole_and_once(folder, tmp_path):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)
    copy = local_path(sent, pieces_of(aside))
    assert copy.name == "model"
    assert copy.is_relative_to(tmp_path / "cache" / "sent")
    assert {file.relative_to(copy): file.read_bytes() for file in copy.rglob("*") if file.is_file()} == {
        file.relative_to(aside): file.read_bytes() for file in aside.rglob("*") if file.is_file()
    }
    assert local_path(sent) == copy  # nobody is asked again
    assert not list((tmp_path / "cache" / "sent").glob(".part-*"))


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "one fewer", "one more", "a file instead"])
def test_a_damaged_copy_is_found_and_brought_again(folder, tmp_path, damage):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)
    copy = local_path(sent, pieces_of(aside))
    weights = copy / "unet" / "weights.bin"
    when = weights.stat()
    match damage:
        case "cut short":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "a flipped bit":  # as a disk that was never told to keep the bytes leaves them
            weights.write_bytes(b"\xff" + weights.read_bytes()[1:])
            os.utime(weights, ns=(when.st_atime_ns, when.st_mtime_ns))
        case "one fewer":
            (copy / "empty.txt").unlink()
        case "one more":
            (copy / "more.bin").touch()
        case _:
            shutil.rmtree(copy)
            copy.touch()
    shipping._digest_of.cache_clear()  # another process
    with pytest.raises(Lacking):
        local_path(sent)
    assert local_path(sent, pieces_of(aside)) == copy
    assert sent_path(copy).digest == sent.digest
    assert not list((tmp_path / "cache" / "sent").glob(".part-*"))


def test_a_process_reads_a_copy_through_once(folder, tmp_path, monkeypatch):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)
    local_path(sent, pieces_of(aside))
    read: list[Path] = []
    monkeypatch.setattr(shipping, "file_sha256", lambda path: read.append(path) or file_sha256(path))
    copies = {local_path(sent) for _ in range(3)}
    assert len(read) == len(set(read)) == len(sent.files)
    assert all(path.is_relative_to(*copies) for path in read)


def test_what_a_killed_process_left_half_brought_is_in_nobodys_way(folder, tmp_path):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)

    def killed(digest: str):
        yield b"half"
        raise KeyboardInterrupt  # the finally of a killed process does not run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping.shutil, "rmtree", lambda *_arguments, **_options: None)
        with pytest.raises(KeyboardInterrupt):
            local_path(sent, killed)
    assert list((tmp_path / "cache" / "sent").glob(".part-*"))
    assert sent_path(local_path(sent, pieces_of(aside))).digest == sent.digest
    assert not list((tmp_path / "cache" / "sent").glob(".part-*"))


def test_the_same_content_under_two_names_is_kept_under_both(tmp_path):
    copies = []
    for name in ("a.pt", "b.pt"):
        path = tmp_path / "driver" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights")
        sent, pieces = sent_path(path), list(chunks_of(path))
        path.unlink()
        copies.append(local_path(sent, lambda _digest, pieces=pieces: iter(pieces)))
    assert [copy.name for copy in copies] == ["a.pt", "b.pt"]
    assert [copy.read_bytes() for copy in copies] == [b"weights"] * 2


def test_what_was_brought_is_on_the_disk_before_it_has_its_name(folder, tmp_path, monkeypatch):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)
    order: list[str] = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda number: order.append("sync") or sync(number))
    monkeypatch.setattr(Path, "rename", lambda path, to: order.append("name") or rename(path, to))
    local_path(sent, pieces_of(aside))
    assert order == ["sync"] * len(sent.files) + ["name"]


def test_a_full_disk_is_told_and_leaves_nothing(folder, tmp_path, monkeypatch):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)

    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TemporaryError, match="No space left") as caught:
        local_path(sent, pieces_of(aside))
    assert caught.value.hint == "is the disk full?"
    assert not [path for path in (tmp_path / "cache" / "sent").iterdir() if path.suffix != ".lock"]


def test_a_file_keeps_its_name_and_travels_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "CHUNK", 100)
    path = tmp_path / "driver.safetensors"
    path.write_bytes(os.urandom(256))
    sent, content = sent_path(path), path.read_bytes()
    pieces = list(chunks_of(path))
    assert [len(piece) for piece in pieces] == [100, 100, 56]
    path.unlink()
    copy = local_path(sent, lambda _digest: iter(pieces))
    assert copy.name == "driver.safetensors"
    assert copy.read_bytes() == content


def test_what_changed_on_the_way_is_refused_and_leaves_nothing(folder, tmp_path):
    sent = sent_path(folder)
    gone(folder, tmp_path / "aside")
    with pytest.raises(InvalidInputError, match="changed while it was sent"):
        local_path(sent, lambda _digest: iter([b"something else"]))
    assert [
        path.name for path in (tmp_path / "cache" / "sent").iterdir() if not path.name.endswith(".lock")
    ] == []


def test_processes_of_one_machine_bring_it_once(folder, tmp_path):
    sent, aside = sent_path(folder), tmp_path / "aside"
    gone(folder, aside)
    asked: list[str] = []
    pieces = pieces_of(aside)

    def count(digest: str):
        asked.append(digest)
        return pieces(digest)

    threads = [threading.Thread(target=local_path, args=(sent, count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == len(sent.files)
