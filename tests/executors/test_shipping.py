"""Files on other machines: found where they are the same, brought where they are not, never taken unseen."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from evalkit.errors import InvalidInputError
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
