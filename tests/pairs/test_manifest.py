"""The list of pairs: its three forms mean the same, and whatever is wrong is named by line."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.pairs.manifest import PairManifest, parse_manifest

ROWS = [
    {"generated": "a/1.png", "reference": "b/1.png", "mask": "m/1.png", "prompt": 'a "cat", asleep'},
    {"generated": "a/2.png", "reference": "b/2.png", "mask": None, "prompt": "日本\nzwei Zeilen"},
]


def as_csv(rows: list[dict[str, str | None]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_json_lines(rows: list[dict[str, str | None]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def as_parquet(rows: list[dict[str, str | None]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def contents(manifest: PairManifest) -> list[tuple[str | None, ...]]:
    return [(r.generated, r.reference, r.source, r.mask, r.prompt, r.source_prompt) for r in manifest.rows]


@pytest.mark.parametrize("write", [as_csv, as_json_lines, as_parquet])
def test_three_forms_of_one_list(write):
    manifest = parse_manifest(write(ROWS))
    assert contents(manifest) == [
        ("a/1.png", "b/1.png", None, "m/1.png", 'a "cat", asleep', None),
        ("a/2.png", "b/2.png", None, None, "日本\nzwei Zeilen", None),
    ]
    assert manifest.lines_without("source") == tuple(row.line for row in manifest.rows)


def test_lines_are_those_of_an_editor():
    manifest = parse_manifest(b'generated,reference,prompt\n"a","b","two\nlines"\n\nc,d,\n')
    assert [row.line for row in manifest.rows] == [2, 5]
    manifest = parse_manifest(b'\n{"generated":"a","reference":"b"}\n\n{"generated":"c","reference":"d"}\n')
    assert [row.line for row in manifest.rows] == [2, 4]


def test_synonyms_of_editing_and_a_byte_order_mark():
    manifest = parse_manifest("\ufeffsource,edited,target,source_prompt,prompt\ns,e,t,a cat,a dog\n".encode())
    (row,) = manifest.rows
    assert (row.generated, row.reference, row.source) == ("e", "t", "s")
    assert (row.source_prompt, row.prompt) == ("a cat", "a dog")
    assert row.path("source") == "s"


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"", "no pair", None),
        (b"generated,reference\n", "no pair", None),
        (b"generated,refrence\na,b\n", "line 1: unknown column 'refrence'", "did you mean 'reference'?"),
        (b"generated\na\n", "line 1: there is no column 'reference'", None),
        (b"generated,edited,reference\na,b,c\n", "one meaning in several columns: generated, edited", None),
        (b"generated,reference,generated\na,b,c\n", "one meaning in several columns", None),
        (b"generated,reference\na,b\na,b,c\n", "line 3: 3 cells under 2 columns", "double quotes"),
        (b"generated,reference\na\n", "line 2: 1 cells under 2 columns", None),
        (b"generated,reference\n,b\n", "line 2: generated is empty", None),
        (b'generated,reference\n"a,b\n', "not CSV", None),
        (b"generated,reference\na,\xff\n", "line 2: not UTF-8", "save the manifest as UTF-8"),
        (b"generated,reference\na,b\x00\n", "line 2", None),
        (b'{"generated":"a","reference":"b"}\n{"generated":"a"', "line 2: not JSON", "one whole object"),
        (b'{"generated":"a","reference":"b"}\n["generated","reference"]', "line 2: not a JSON object", None),
        (b'{"generated":"a","generated":"b","reference":"c"}', "line 1: one meaning in several", None),
        (b'{"generated":"a","reference":7}', "line 1: reference is not text but '7'", None),
        (b'{"generated":"a","reference":{"b":1}}', "line 1: reference is not text", None),
        (b'{"generated":"a","reference":null}', "line 1: reference is empty", None),
        (b'{"generated":"a","reference":"\\ud800"}', "half a character", None),
        (b'{"generated":"a\\u0000","reference":"b"}', "NUL byte", None),
        (b'{"generated":"a","reference":"b","labels":1}', "line 1: unknown column 'labels'", "known"),
        (b"PAR1 and no more", "not a readable parquet file", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(data, message, hint):
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(data)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_parquet_with_an_unknown_column_or_a_number():
    with pytest.raises(InvalidInputError, match="unknown column 'promt'"):
        parse_manifest(as_parquet([{**ROWS[0], "promt": "x"}]))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"generated": ["a", "b"], "reference": [["x"], ["y"]]}), buffer)
    with pytest.raises(InvalidInputError, match="line 1: reference is not text"):
        parse_manifest(buffer.getvalue())


@pytest.mark.parametrize(
    "path", ["../x.png", "a/../../x.png", "/etc/passwd", "..\\x.png", "C:\\x.png", "\\\\host\\x.png", ".."]
)
def test_paths_may_not_leave_the_folder_unasked(path):
    data = json.dumps({"generated": path, "reference": "b.png"}).encode()
    with pytest.raises(InvalidInputError, match="line 1: generated") as caught:
        parse_manifest(data)
    assert "--allow-outside" in (caught.value.hint or "")
    assert parse_manifest(data, allow_outside=True).rows[0].generated == path


def test_dots_in_names_are_no_escape():
    assert parse_manifest(b"generated,reference\n./a..b/..c.png,b\n").rows[0].generated == "./a..b/..c.png"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_named_fault(data):
    # Any other exception fails the test.
    with suppress(InvalidInputError):
        assert len(parse_manifest(data)) > 0


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([as_csv(ROWS), as_json_lines(ROWS), as_parquet(ROWS)]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes_are_a_manifest_or_a_named_fault(data, flips):
    damaged = bytearray(data)
    for position, value in flips:
        damaged[position % len(damaged)] = value
    with suppress(InvalidInputError):
        assert len(parse_manifest(bytes(damaged))) > 0


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\:"), min_size=1).filter(
    lambda t: t.strip(".")
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(text, text, st.none() | text), min_size=1, max_size=5))
def test_what_is_written_is_read(rows):
    table = [{"generated": g, "reference": r, "prompt": p} for g, r, p in rows]
    expected = [(g, r, None, None, p, None) for g, r, p in rows]
    assert contents(parse_manifest(as_json_lines(table))) == expected
    assert contents(parse_manifest(as_csv(table))) == expected
