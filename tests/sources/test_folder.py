"""Folders: what counts, in which order, and links that lead in circles."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from evalkit.errors import InvalidInputError
from evalkit.sources import open_source


@pytest.fixture
def image(encode):
    return encode(np.full((2, 2, 3), 9, np.uint8))


def names(source):
    return [source.name_of(i) for i in range(len(source))]


@pytest.mark.fault("strange-names")
def test_suffixes_in_any_case_dotfiles_and_other_files(write, image):
    listed = ["B.PNG", "a.Jpg", "deep/er/c.png"]
    hidden = [".d.png", ".cache/e.png", "deep/.f.png", "notes.txt", "g.png.bak", "h.zip"]
    source = open_source(write("set", dict.fromkeys(listed + hidden, image)))
    assert names(source) == listed


@pytest.mark.fault("strange-names")
def test_order_is_that_of_bytes(write, image):
    unsorted = ["ü.png", "z.png", "a/z.png", "a.png", "a-b.png", "Z.png", "10.png", "9.png", "日.png"]
    source = open_source(write("set", dict.fromkeys(unsorted, image)))
    assert names(source) == sorted(unsorted, key=lambda name: name.encode())
    assert source.class_names is None


@pytest.mark.fault("strange-names")
@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="file names are not bytes there")
def test_names_that_are_not_utf8(tmp_path, image):
    folder = tmp_path / "set"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "x.png").write_bytes(image)
    odd = folder / os.fsdecode(b"a\xff")
    odd.mkdir()
    (odd / "1.png").write_bytes(b"")
    source = open_source(folder)
    assert source.class_names == ("a\\xff", "b")
    assert len(source.spec.sha256) == 64
    with pytest.raises(InvalidInputError) as error:
        source.read(np.arange(2))
    error.value.message.encode()  # can be printed


def test_digest_and_order_do_not_depend_on_the_locale(write, image):
    path = write("set", {"ü/1.png": image, "日/2.png": image, "a/3.png": image})
    source = open_source(path)
    here = [ascii([source.name_of(i) for i in range(3)]), source.spec.sha256, ascii(source.class_names), "3"]
    code = (
        "import sys; from evalkit.sources import open_source; source = open_source(sys.argv[1]);"
        "import numpy; print(ascii([source.name_of(i) for i in range(3)]), source.spec.sha256,"
        "ascii(source.class_names), len(source.read(numpy.arange(3))), sys.getfilesystemencoding(), sep=';')"
    )
    plain_c = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env={**os.environ, **plain_c}, capture_output=True, check=True, text=True)
    *there, encoding = done.stdout.strip().split(";")
    assert there == here
    if sys.platform == "linux":
        assert encoding == "ascii"  # or the test has tested nothing


@pytest.mark.fault("strange-names")
def test_a_loop_of_links_ends_and_each_directory_counts_once(write, image):
    path = write("set", {"a/1.png": image, "b/2.png": image})
    (path / "a" / "up").symlink_to(path)
    (path / "a" / "self").symlink_to(path / "a" / "self")
    (path / "b" / "other").symlink_to(path / "a")
    (path / "c").symlink_to(path / "b")
    assert names(open_source(path)) == ["a/1.png", "b/2.png"]


def test_links_to_files_are_followed_and_dangling_ones_are_offenders(write, image):
    path = write("set", {"1.png": image})
    (path / "2.png").symlink_to(path / "1.png")
    (path / "3.png").symlink_to(path / "gone.png")
    (path / "4.png").symlink_to(path / "4.png")
    source = open_source(path)
    assert names(source) == ["1.png", "2.png", "3.png", "4.png"]
    assert [bad.name for bad in source.check()] == ["3.png", "4.png"]
    assert len(open_source(path, on_bad="skip", max_bad=2).spec.sha256) == 64


def test_labels_only_where_every_image_lies_in_a_folder(write, image):
    assert open_source(write("all", {"b/x/1.png": image, "a/2.png": image})).class_names == ("a", "b")
    mixed = open_source(write("mixed", {"b/1.png": image, "2.png": image}))
    assert mixed.class_names is None
    assert mixed.read(np.arange(2)).labels is None


@pytest.mark.parametrize("name", ["set", "set.zip", "set.tar", "set.tgz"])
def test_dataset_json_overrules_the_folders(write, image, name):
    """StyleGAN and EDM data sets number their folders by thousands."""
    files = {"00000/img1.png": image, "00000/img2.png": image, "00001/img3.png": image}
    unlabelled = {**files, "dataset.json": b'{"labels": null}'}
    assert open_source(write(f"none-{name}", unlabelled)).read(np.arange(3)).labels is None
    labels = json.dumps({"labels": [[n, 5 - i] for i, n in enumerate(files)]}).encode()
    source = open_source(write(name, {**files, "dataset.json": labels}))
    assert source.read(np.arange(3)).labels.tolist() == [5, 4, 3]
    assert source.class_names is None
    assert source.spec.sha256 != open_source(write(f"none-{name}", unlabelled)).spec.sha256


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"labels": 3}', b'{"labels": []}', b'{"labels": [["1.png", "x"]]}']
)
def test_unusable_dataset_json_is_refused(write, image, text):
    with pytest.raises(InvalidInputError, match=r"dataset\.json"):
        open_source(write("set", {"1.png": image, "dataset.json": text}))
