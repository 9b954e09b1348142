"""The append-only folders: nothing is overwritten, nothing is lost, and one writes at a time."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.manifest import (
    broken_files,
    extend_manifest,
    lost_since,
    read_manifest,
)
from evalkit.leaderboard.storage import Wishes, add_runs, locked, read_stored
from evalkit.record import RunRecord


def test_a_run_is_stored_with_what_is_said_of_it(empty, publish, make_record):
    record = make_record()
    assert publish(empty, record, trust="reported", notes="by mail", grid=b"picture") == (record.run_id,)
    (stored,) = read_stored(empty)
    assert stored.record == record
    assert stored.entry == EntryFile(run_id=record.run_id, trust="reported", notes="by mail")
    assert stored.grid == b"picture"
    assert broken_files(empty) == {}


def test_the_manifest_lists_every_file_sorted_as_sha256sum_reads_it(board):
    lines = (board / "records.sha256").read_text().splitlines()
    assert len(lines) == 6
    assert [line.split("  ")[1] for line in lines] == sorted(read_manifest(board))
    for line in lines:
        digest, path = line.split("  ")
        assert hashlib.sha256((board / path).read_bytes()).hexdigest() == digest


def test_the_same_run_again_changes_nothing(board, publish, make_record):
    before = {path: path.stat().st_mtime_ns for path in board.rglob("*") if path.name != ".lock"}
    assert publish(board, make_record("gan", 2.1, speed=100.0)) == ()
    assert publish(board, make_record("gan", 2.1, speed=100.0), trust="measured") == ()
    assert {path: path.stat().st_mtime_ns for path in board.rglob("*") if path.name != ".lock"} == before


def test_another_record_of_the_same_run_is_refused_and_nothing_of_the_call_is_kept(
    board, publish, make_record
):
    files = sorted(board.rglob("*"))
    with pytest.raises(UsageError, match="another record of run"):
        publish(board, make_record("new"), make_record("gan", 2.2, speed=100.0))
    assert sorted(board.rglob("*")) == files
    assert {stored.record.results[0].value for stored in read_stored(board)} == {2.0, 2.1, 5.0}


def test_two_contents_of_one_run_in_one_call_are_refused(empty, publish, make_record):
    with pytest.raises(UsageError, match="two different records"):
        publish(empty, make_record(value=1.0), make_record(value=2.0))
    assert read_stored(empty) == ()


@pytest.mark.parametrize(
    "wish", [{"trust": "reported"}, {"notes": "x"}, {"name": "y"}, {"source_url": "https://a.org"}]
)
def test_other_words_for_a_published_run_are_refused(board, publish, make_record, wish):
    with pytest.raises(UsageError, match="is there with") as caught:
        publish(board, make_record("gan", 2.1, speed=100.0), **wish)
    assert "append-only" in (caught.value.hint or "")


def test_samples_can_be_added_later_but_not_changed(board, publish, make_record):
    record = make_record("gan", 2.1, speed=100.0)
    assert publish(board, record, grid=b"one") == (record.run_id,)
    assert publish(board, record, grid=b"one") == publish(board, record) == ()
    with pytest.raises(UsageError, match="another grid"):
        publish(board, record, grid=b"two")
    assert broken_files(board) == {}


def test_a_record_that_somebody_copied_is_adopted_as_it_is(empty, publish, make_record):
    record = make_record()
    path = empty / "records" / f"{record.run_id}.json"
    record.write(path)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UsageError, match="was not added"):
        read_stored(empty)
    content = path.read_bytes()
    assert publish(empty, record) == (record.run_id,)
    assert path.read_bytes() == content
    assert broken_files(empty) == {}


@pytest.mark.parametrize("last", ["entries", "records.sha256"])
def test_adding_that_was_cut_short_is_completed(empty, publish, make_record, last, monkeypatch):
    def full(path, content):
        if last in str(path):
            raise TemporaryError("disk full")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    for module in ("storage", "manifest"):
        monkeypatch.setattr(f"evalkit.leaderboard.{module}.write_atomically", full)
    with pytest.raises(TemporaryError):
        publish(empty, make_record(), notes="n")
    monkeypatch.undo()
    assert publish(empty, make_record(), notes="n") == (make_record().run_id,)
    assert [stored.entry.notes for stored in read_stored(empty)] == ["n"]
    assert broken_files(empty) == {}


def test_a_changed_missing_or_smuggled_file_is_found(board):
    gan, ddpm = (
        next((board / "records").glob("*-gan.json")),
        next((board / "records").glob("*ddpm.json")),
    )
    gan.write_text(gan.read_text().replace("2.1", "1.1"))
    ddpm.unlink()
    (board / "entries" / "x.json").write_text("{}")
    assert broken_files(board) == {
        f"records/{gan.name}": "was changed after it was published",
        f"records/{ddpm.name}": "was published and is missing",
        "entries/x.json": "was not added by evalkit leaderboard add",
    }


def test_a_published_file_that_was_changed_is_not_blessed_by_adding_it_again(board, publish, make_record):
    path = next((board / "records").glob("*-gan.json"))
    changed = make_record("gan", 1.0, speed=100.0)
    changed.write(path)
    with pytest.raises(UsageError, match="not the file that was published"):
        publish(board, changed)
    path.unlink()
    with pytest.raises(UsageError, match="not the file that was published"):
        publish(board, changed)
    assert not path.exists()
    assert publish(board, make_record("gan", 2.1, speed=100.0)) == (changed.run_id,)
    assert broken_files(board) == {}


@pytest.mark.parametrize(
    "line",
    [
        "0" * 64 + " records/a.json",
        "0" * 63 + "  records/a.json",
        "0" * 64 + "  ../a.json",
        "0" * 64 + "  records/../../a.json",
        "0" * 64 + "  other/a.json",
        "",
    ],
)
def test_a_manifest_that_evalkit_did_not_write_is_refused(empty, line):
    (empty / "records.sha256").write_text(f"{'1' * 64}  records/ok.json\n{line}\n")
    with pytest.raises(InvalidInputError, match="line 2"):
        read_manifest(empty)


def test_a_digest_that_is_listed_stays(empty):
    extend_manifest(empty, {"records/a.json": "1" * 64})
    extend_manifest(empty, {"records/a.json": "2" * 64, "entries/a.json": "3" * 64})
    assert read_manifest(empty) == {"records/a.json": "1" * 64, "entries/a.json": "3" * 64}
    (empty / "records.sha256").write_text(f"{'1' * 64}  records/a.json\n" * 2)
    with pytest.raises(InvalidInputError, match="twice"):
        read_manifest(empty)


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_what_a_git_revision_had_must_still_be_listed(board, publish, make_record):
    git(board.parent, "init", "-b", "trunk")
    git(board.parent, "add", "-A")
    git(board.parent, "commit", "-m", "one")
    publish(board, make_record("new"))
    assert lost_since(board, "trunk") == {}
    path, *rest = (board / "records.sha256").read_text().splitlines(keepends=True)
    (board / "records.sha256").write_text("".join([f"{'0' * 64}{path[64:]}", *rest[1:]]))
    assert sorted(lost_since(board, "trunk").values()) == [
        "is not the file that was published at trunk",
        "was published at trunk and is no longer listed",
    ]
    with pytest.raises(UsageError, match="no revision"):
        lost_since(board, "no-such-branch")
    with pytest.raises(UsageError, match="not a git revision"):
        lost_since(board, "--output=/tmp/x")


def test_a_board_younger_than_the_revision_lost_nothing_and_without_git_nobody_can_tell(tmp_path, board):
    with pytest.raises(UsageError, match="no revision"):
        lost_since(board, "HEAD")
    git(board.parent, "init", "-b", "trunk")
    git(board.parent, "commit", "--allow-empty", "-m", "none")
    assert lost_since(board, "trunk") == {}


def test_what_git_says_is_passed_on(board):
    git(board.parent, "init", "-b", "trunk")
    (board.parent / ".git" / "config").write_text("[broken")
    with pytest.raises(UsageError, match="bad config"):
        lost_since(board, "trunk")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_record_is_an_error_that_names_it(board, content):
    path = next((board / "records").glob("*-gan.json"))
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=path.name):
        read_stored(board)


def test_a_file_under_another_name_is_an_error(board):
    path = next((board / "records").glob("*-gan.json"))
    path.rename(path.with_name("other.json"))
    with pytest.raises(InvalidInputError, match="not other"):
        read_stored(board)


def test_a_writer_that_waits_too_long_gives_up(empty):
    with locked(empty), pytest.raises(TemporaryError, match="another process"), locked(empty, seconds=0.05):
        raise AssertionError("two held the board at once")


_ADD = """
import sys
from pathlib import Path
from evalkit.leaderboard.storage import Wishes, add_runs, locked
from evalkit.record import RunRecord

folder, record = Path(sys.argv[1]), RunRecord.read(Path(sys.argv[2]))
sys.stdin.read()
with locked(folder):
    add_runs(folder, [record], Wishes(notes=record.run_id))
assert "torch" not in sys.modules
"""


def test_eight_processes_that_add_at_once_lose_nothing(empty, tmp_path, make_record):
    records = [make_record(f"m{i}", float(i)) for i in range(8)]
    for record in records:
        record.write(tmp_path / f"{record.run_id}.json")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _ADD, str(empty), str(tmp_path / f"{record.run_id}.json")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for record in records
    ]
    for writer in writers:  # all wait for this, so that they start together
        writer.stdin.close()
    for writer in writers:
        assert writer.wait() == 0, writer.stderr.read().decode()
        writer.stderr.close()
    assert [stored.record for stored in read_stored(empty)] == sorted(records, key=lambda r: r.run_id)
    assert broken_files(empty) == {}
    assert len(read_manifest(empty)) == 16


def test_records_are_stored_byte_for_byte_as_evalkit_writes_them(empty, publish, make_record, tmp_path):
    record = make_record()
    record.write(tmp_path / "r.json")
    publish(empty, RunRecord.read(tmp_path / "r.json"))
    assert (empty / "records" / f"{record.run_id}.json").read_bytes() == (tmp_path / "r.json").read_bytes()


def test_a_board_is_read_without_its_lock(board, make_record):
    with locked(board):
        assert len(read_stored(board)) == 3
        assert add_runs(board, [make_record("x")], Wishes()) == (make_record("x").run_id,)
