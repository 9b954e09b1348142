"""What may be said of a run, and which records may be published."""

from __future__ import annotations

import json

import pytest

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.leaderboard.entries import EntryFile, check_publishable


def test_an_entry_reads_back(tmp_path):
    entry = EntryFile(
        run_id="r-1",
        name="mine",
        trust="reported",
        source_url="https://a.org/x?y=(1)#z",
        notes="=1+1 <b> “ü”",
    )
    (tmp_path / "e.json").write_text(json.dumps(entry.to_json()), encoding="utf-8")
    assert EntryFile.read(tmp_path / "e.json") == entry


@pytest.mark.parametrize(
    "url",
    [
        "http://a.org",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user:secret@a.org/",
        "https://a.org/a b",
        'https://a.org/"><script>',
        "https://a.org/\n",
        "https://a.org/ü",
        "https://[a.org/",
        "HTTPS://a.org",
        "https://a.org/" + "x" * 500,
    ],
)
def test_an_address_that_no_page_should_link_to_is_refused(url):
    with pytest.raises(UsageError):
        EntryFile(run_id="r", source_url=url)


@pytest.mark.parametrize("notes", ["two\nlines", "a\rb", "bell\x07", "right\u202eto left", "x" * 501])
def test_notes_are_one_short_line(notes):
    with pytest.raises(UsageError, match="notes"):
        EntryFile(run_id="r", notes=notes)


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a/b", "a:b", ".hidden", "", "a b", "x" * 201])
def test_a_run_id_that_leads_out_of_its_folder_is_refused(run_id):
    with pytest.raises(UsageError, match="run id"):
        EntryFile(run_id=run_id)


def test_a_name_is_an_identifier():
    with pytest.raises(UsageError, match="name"):
        EntryFile(run_id="r", name="<script>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema": "evalkit.entry/2"}', "schema"),
        ('{"schema": "evalkit.entry/1", "run_id": "r", "note": ""}', "unknown key"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_broken_entry_is_an_error_that_names_the_file(tmp_path, text, message):
    path = tmp_path / "e.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInputError, match=message) as caught:
        EntryFile.read(path)
    assert str(path) in caught.value.message


def test_a_hostile_entry_on_disk_is_refused_too(tmp_path):
    data = EntryFile(run_id="r").to_json() | {"source_url": "javascript:alert(1)"}
    (tmp_path / "e.json").write_text(json.dumps(data))
    with pytest.raises(InvalidInputError, match="https"):
        EntryFile.read(tmp_path / "e.json")


@pytest.mark.parametrize("status", ["started", "partial", "error"])
def test_only_complete_runs_are_published(make_record, status):
    with pytest.raises(InvalidInputError, match=f"is {status}, not complete"):
        check_publishable(make_record(status=status))


def test_a_record_of_nothing_is_not_published_and_one_of_speed_alone_is(make_record, changed):
    with pytest.raises(NothingMeasuredError):
        check_publishable(changed(make_record(speed=None), results=()))
    check_publishable(changed(make_record(), results=()))
