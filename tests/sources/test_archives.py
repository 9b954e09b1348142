"""Hostile and damaged archives: nothing is written, nothing hangs, bombs end early."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.sources import open_source
from evalkit.sources.archive import ZipArchive
from evalkit.sources.members import ArchiveLimits
from evalkit.sources.tar_archive import TarArchive


@pytest.fixture
def image(encode):
    return encode(np.full((2, 2, 3), 9, np.uint8))


def names(source):
    return [source.name_of(i) for i in range(len(source))]


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("name", ["outer/set.zip", "outer/set.tar", "outer/set.tgz"])
def test_traversal_names_are_only_names(tmp_path, write, image, name):
    (tmp_path / "outer").mkdir()
    absolute = str(tmp_path / "absolute.png")
    source = open_source(write(name, {"../x.png": image, absolute: image, "in/../../y.png": image}))
    assert names(source) == sorted(["../x.png", absolute, "in/../../y.png"])
    assert source.class_names is None
    source.check()
    assert len(source.read(np.arange(3))) == 3
    assert [path.name for path in tmp_path.rglob("*")] == ["outer", name.split("/")[1]]


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tgz"])
def test_dotfiles_nested_archives_and_leading_dots(write, image, name):
    files = {"./a/1.png": image, "__MACOSX/._1.png": b"x", "a/.2.png": b"x", "b.zip": b"PK", "c.PNG": image}
    assert names(open_source(write(name, files))) == ["a/1.png", "c.PNG"]


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices_named_like_images_are_refused(tmp_path, image, kind):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("1.png")
        member.size = len(image)
        archive.addfile(member, io.BytesIO(image))
        special = tarfile.TarInfo("2.png")
        special.type, special.linkname = kind, "/etc/passwd"
        archive.addfile(special)
    with pytest.raises(InvalidInputError, match=r"'2\.png' is not a regular file"):
        open_source(path)


@pytest.mark.fault("hostile-archive")
def test_zip_links_named_like_images_are_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("2.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidInputError, match="not a regular file"):
        open_source(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_name_that_occurs_twice_is_refused(tmp_path, image, suffix):
    path = tmp_path / f"set.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1.png", image)
            archive.writestr("1.png", image)
    else:
        with tarfile.open(path, "w") as archive:
            for name in ("1.png", "./1.png"):
                member = tarfile.TarInfo(name)
                member.size = len(image)
                archive.addfile(member, io.BytesIO(image))
    with pytest.raises(InvalidInputError, match="twice"):
        open_source(path)


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tgz"])
def test_caps_on_members_and_bytes(write, image, name):
    path = write(name, {f"{i}.png": image for i in range(5)})
    kind = ZipArchive if name.endswith("zip") else TarArchive
    assert len(kind(path, limits=ArchiveLimits(max_members=5)).names) == 5
    with pytest.raises(InvalidInputError, match="more than 4 members"):
        kind(path, limits=ArchiveLimits(max_members=4))
    with pytest.raises(InvalidInputError, match="unpacks to"):
        kind(path, limits=ArchiveLimits(max_member_bytes=len(image) - 1))


def refused_within_a_second(path, match="bomb"):
    start = time.perf_counter()
    with pytest.raises(InvalidInputError, match=match):
        open_source(path)
    assert time.perf_counter() - start < 1


@pytest.mark.fault("hostile-archive")
def test_zip_bomb_is_refused_by_its_directory(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(2**25))
    refused_within_a_second(path)


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("member", ["1.png", "padding.bin"])
def test_tar_bomb_is_refused_while_its_headers_are_read(tmp_path, member):
    """2 GiB of zeros packed to 2 MB; a member that is no image must be skipped over and so is a bomb too."""
    path = tmp_path / "bomb.tgz"
    info = tarfile.TarInfo(member)
    info.size = 2**28
    zeros = gzip.compress(bytes(2**24), 9)
    path.write_bytes(gzip.compress(info.tobuf()) + zeros * 16)
    refused_within_a_second(path, match=r"bomb")


def test_huge_tar_header_is_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path = tmp_path / "set.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused_within_a_second(path, match="header")


def test_chained_tar_headers_are_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    path = tmp_path / "set.tar"
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 3000)
    refused_within_a_second(path, match="not a readable tar")


def test_negative_tar_size_is_refused(tmp_path):
    info = tarfile.TarInfo("1.png")
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "set.tar"
    path.write_bytes(bytes(header) + bytes(10240))
    refused_within_a_second(path, match="negative")


@pytest.mark.fault("hostile-archive")
def test_a_zip_that_lies_about_sizes_gives_no_more_than_declared(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(2**20))
    data = path.read_bytes().replace((2**20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(data)
    assert [bad.reason for bad in open_source(path).check()] == ["'1.png' is corrupt in its archive"]


def test_corrupt_zip_member_is_found_by_its_checksum(write, files):
    path = write("set.zip", files)
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    assert len(open_source(path).check()) == 1


@pytest.mark.parametrize(
    "name", ["set.zip", "set.tar", "set.tgz", "set.tar.bz2", "set.tar.xz", "set.parquet"]
)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_containers_are_refused(write, files, name, part):
    path = write(name, files)
    data = path.read_bytes()
    # tar pads to 10 KiB behind its end mark
    length = len(data) if name != "set.tar" else 9 * 1024
    path.write_bytes(data[: int(length * part)])
    with pytest.raises(InvalidInputError):
        open_source(path)


def test_tar_cut_between_members_or_with_a_damaged_header_is_refused(write, files):
    path = write("set.tar", files)
    data = path.read_bytes()
    path.write_bytes(data[:3072])
    with pytest.raises(InvalidInputError, match="end mark"):
        open_source(path)
    path.write_bytes(data[:2048] + bytes([data[2048] ^ 1]) + data[2049:])
    with pytest.raises(InvalidInputError, match="end mark"):
        open_source(path)


def test_packed_but_no_tar_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"not a tar" * 200))
    with pytest.raises(InvalidInputError, match="not a readable tar"):
        open_source(path)


def test_old_tar_without_magic_is_told_by_its_name(write):
    path = write("set.tar", {})
    path.write_bytes(bytes(10240))
    with pytest.raises(NothingMeasuredError):
        open_source(path)


def test_encrypted_and_exotic_zip_members_are_refused(write):
    path = write("set.zip", {"1.png": b"x" * 50})
    plain = path.read_bytes()
    central = plain.index(b"PK\x01\x02")
    encrypted = bytearray(plain)
    encrypted[central + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(InvalidInputError, match="encrypted"):
        open_source(path)
    exotic = bytearray(plain)
    exotic[central + 10] = 9
    path.write_bytes(exotic)
    assert "zip method 9" in open_source(path).check()[0].reason


def test_window_of_a_packed_tar_bounds_memory_and_passes(write, files, monkeypatch):
    """Members stand in reverse order, the worst case: each window costs one pass and no more."""
    path = write("set.tgz", files)
    sizes = [len(data) for data in files.values()]
    archive = TarArchive(path, window_bytes=3 * max(sizes))
    passes = []
    fill = TarArchive._fill_window
    monkeypatch.setattr(
        TarArchive, "_fill_window", lambda self, wanted: (passes.append(wanted), fill(self, wanted))
    )
    for position in range(9):
        (load,) = archive.loaders([position])
        assert load() == files[archive.names[position]]
        assert sum(map(len, archive._window.values())) <= 3 * max(sizes)
    assert len(passes) == 3
    passes.clear()
    whole = TarArchive(path)
    for position in (8, 0, 4, 3, 7):
        assert whole.loaders([position])[0]() == files[whole.names[position]]
    assert len(passes) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_no_container_keeps_a_file_open(write, files):
    """Threads and forked workers may then share a source."""
    paths = [write(name, files) for name in ("set", "set.zip", "set.tar", "set.tgz", "set.parquet")]
    before = len(list(Path("/proc/self/fd").iterdir()))
    sources = [open_source(path) for path in paths]
    assert [len(source.read(np.arange(4))) for source in sources] == [4] * 5
    assert len(list(Path("/proc/self/fd").iterdir())) == before
