"""``scores.csv``, ``table.csv`` and ``table.md``: schema, exact numbers, and text that nobody runs."""

from __future__ import annotations

import csv
import io
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.leaderboard.board import board_of, read_board
from evalkit.leaderboard.delimited import csv_text
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.facts import BoardInfo
from evalkit.leaderboard.storage import Stored, read_stored
from evalkit.leaderboard.tidy import COLUMNS, scores_csv
from evalkit.leaderboard.wide import group_table, rank_text, table_csv, table_md

INFO = BoardInfo(name="toys", title="Toys")
# Before release 3, pandas read floats exactly only when asked to.
EXACT = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
HOSTILE = '=HYPERLINK("https://evil.example","x") <script>alert(1)</script> | `**$x$**`'


def stored(record, **entry):
    return Stored(record=record, entry=EntryFile(run_id=record.run_id, **entry))


def read(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_columns_are_the_published_ones_in_order(board):
    header = scores_csv("toys", read_stored(board)).split("\n")[0]
    assert header == (
        "schema_version,board,dataset,split,resolution_px,protocol,fingerprint,model_id,model_revision,"
        "model_sha256,family,n_params,metric,variant,direction,value,unit,se,ci_low,ci_high,ci_method,"
        "value_bias_corrected,n_gen,n_ref,seed_first,seed_last,sampler,nfe,guidance_scale,run_id,date_utc,"
        "evalkit_version,torch_version,device,dtype,trust,source_url,notes"
    )


def test_a_run_has_a_row_for_every_score_and_every_speed(make_record):
    run = stored(make_record("a", 2.0), notes="n", source_url="https://a.org", trust="reported")
    rows = {row["metric"]: row for row in read(scores_csv("toys", [run]))}
    assert {metric: (row["value"], row["unit"], row["direction"]) for metric, row in rows.items()} == {
        "energy": ("0.25", "J/img", "lower"),
        "flops": ("1000000.0", "FLOP/img", "lower"),
        "is:lite": ("1.5", "", "higher"),
        "kd:lite": ("2.0", "", "lower"),
        "latency_p50": ("1.5", "ms", "lower"),
        "latency_p90": ("2.5", "ms", "lower"),
        "peak_memory": ("2048", "B", "lower"),
        "throughput": ("10.0", "img/s", "higher"),
    }
    score, speed = rows["kd:lite"], rows["throughput"]
    assert (score["variant"], score["se"], score["ci_low"], score["ci_high"]) == (
        "block",
        "0.1",
        "1.8",
        "2.2",
    )
    assert (score["ci_method"], score["n_gen"], score["n_ref"]) == ("jackknife-t", "64", "100")
    assert (speed["variant"], speed["device"], speed["dtype"], speed["se"]) == (
        "offline",
        "cpu",
        "float32",
        "",
    )
    for row in rows.values():
        assert list(row) == list(COLUMNS)
        assert (row["board"], row["dataset"], row["split"], row["resolution_px"]) == (
            "toys",
            "toy",
            "train",
            "32",
        )
        assert (row["seed_first"], row["seed_last"], row["nfe"]) == (str(2**63 + 1), str(2**64 - 1), "20")
        assert (row["evalkit_version"], row["torch_version"]) == ("0.1.0", "2.15.0")
        assert (row["trust"], row["source_url"], row["notes"]) == ("reported", "https://a.org", "n")


def test_latencies_are_of_one_image_at_a_time_where_that_was_measured(make_record, changed):
    (offline,) = make_record().performance
    single = changed(
        offline,
        scenario="single-stream",
        latency_p50_ms=7.0,
        latency_p99_ms=9.0,
        throughput=3.0,
        device="gpu",
    )
    record = changed(make_record(), performance=(offline, single))
    rows = {
        r["metric"]: (r["variant"], r["value"], r["device"]) for r in read(scores_csv("t", [stored(record)]))
    }
    assert rows["latency_p50"] == ("single-stream", "7.0", "gpu")
    assert rows["latency_p99"] == ("single-stream", "9.0", "gpu")
    assert rows["throughput"] == ("offline", "10.0", "cpu")


def test_older_runs_stay_in_the_scores_and_leave_the_table(make_record):
    runs = [stored(make_record("a", float(day), day=day)) for day in (1, 2)]
    scores = [row["value"] for row in read(scores_csv("toys", runs)) if row["metric"] == "kd:lite"]
    assert scores == ["1.0", "2.0"]
    assert [row["kd:lite"] for row in read(table_csv(board_of(INFO, runs)))] == ["2.0"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**64 - 1))
def test_numbers_read_back_exactly(value, count):
    text = csv_text(["a", "b"], [{"a": value, "b": count}])
    frame = pd.read_csv(io.StringIO(text), dtype={"b": "UInt64"}, **EXACT)
    assert math.copysign(1, frame["a"][0]) == math.copysign(1, value)
    assert frame["a"][0] == value
    assert frame["b"][0] == count
    assert len(text.split("\n")[1].split(",")[0]) == len(repr(value))


@pytest.mark.fault("formula-name")
@given(st.lists(st.one_of(st.none(), st.text()), min_size=1, max_size=3))
def test_every_text_stays_in_its_cell_and_none_is_a_formula(texts):
    names = [f"c{i}" for i in range(len(texts))]
    found = csv_text(["first", *names], [{"first": 1} | dict(zip(names, texts, strict=True))])
    assert found.count("\n") == 2
    assert "\r" not in found
    (row,) = read(found)
    assert row["first"] == "1"
    assert not any(row[name].startswith(("=", "+", "-", "@", "\t", "\r")) for name in names)


def test_text_is_quoted_only_where_it_must_be_and_a_hidden_formula_is_found():
    text = csv_text(["a"], [{"a": v} for v in ("plain", 'a "b", c', None, True, False, " \t=1+1", "-1", -1)])
    assert text == 'a\nplain\n"a ""b"", c"\n""\ntrue\nfalse\n\'=1+1\n\'-1\n-1\n'


def test_pandas_reads_the_scores_of_a_board(board):
    frame = pd.read_csv(
        io.StringIO(scores_csv("toys", read_stored(board))),
        dtype={"seed_first": "UInt64"},
        **EXACT,
    )
    assert tuple(frame.columns) == COLUMNS
    kd = frame[frame["metric"] == "kd:lite"].set_index("model_id")
    assert kd["value"].to_dict() == {"ddpm": 2.0, "gan": 2.1, "vae": 5.0}
    assert set(frame["seed_first"]) == {2**63 + 1}
    assert not frame.duplicated(["run_id", "metric", "variant"]).any()


@pytest.mark.fault("formula-name")
def test_hostile_notes_are_inert_in_every_table(make_record):
    runs = [stored(make_record("a"), notes=HOSTILE, source_url="https://a.org/_x_*y*")]
    found = board_of(INFO, runs)
    assert {row["notes"] for row in read(scores_csv("toys", runs))} == {f"'{HOSTILE}"}
    assert read(table_csv(found))[0]["notes"] == f"'{HOSTILE}"
    text = table_md(found)
    assert "<script>" not in text
    assert "\\<script\\>" in text
    assert "a: =HYPERLINK" in text


def test_a_hostile_record_cannot_leave_its_cell(make_record, changed):
    record = make_record("a")
    record = changed(
        record,
        data=changed(record.data, dataset="=cmd|' /C calc'!A0\n", split="<b>"),
        env={"evalkit": "+1", "torch": "@x"},
        warnings=("| a\n| --- |",),
    )
    (row, *_) = read(scores_csv("toys", [stored(record)]))
    assert row["dataset"] == "'=cmd|' /C calc'!A0"
    assert (row["evalkit_version"], row["torch_version"]) == ("'+1", "'@x")
    text = table_md(board_of(INFO, [stored(record)]))
    assert "<b>" not in text
    assert "\n| a" not in text.split("\n\n")[-2]


def test_the_wide_table_has_a_row_a_model_with_ranks_errors_speed_and_the_pareto_mark(board):
    first, second, third = read(table_csv(read_board(board)))
    assert list(first)[:5] == ["model", "family", "rank_best", "rank_worst", "kd:lite"]
    assert list(first)[-3:] == ["protocol", "fingerprint", "run_id"]
    assert [(r["model"], r["rank_best"], r["rank_worst"], r["pareto"]) for r in (first, second, third)] == [
        ("ddpm", "1", "2", "true"),
        ("gan", "1", "2", "true"),
        ("vae", "3", "3", "false"),
    ]
    assert (first["kd:lite_se"], first["kd:lite_ci_low"], first["images_per_second"]) == (
        "0.1",
        "1.8",
        "10.0",
    )
    assert (first["nfe"], first["n_params"]) == ("20", "1000")


def test_groups_of_other_metrics_share_one_table(make_record):
    runs = [stored(make_record("a")), stored(make_record("b", metric="fid", fingerprint="p2"))]
    rows = {row["model"]: row for row in read(table_csv(board_of(INFO, runs)))}
    assert (rows["a"]["kd:lite"], rows["a"]["fid"]) == ("2.0", "")
    assert (rows["b"]["kd:lite"], rows["b"]["fid"]) == ("", "2.0")


def test_the_table_for_people_shows_ties_and_puts_the_headline_first(board):
    text = table_md(read_board(board))
    assert text.startswith("# Toys\n")
    assert "| ddpm | 1\N{EN DASH}2 | diffusion | **2.00 ± 0.10** |" in text
    assert "| vae | 3 | vae |" in text
    info = BoardInfo(name="toys", title="Toys", headline="is:lite")
    columns = group_table(board_of(info, read_stored(board)).groups[0]).columns
    assert [column.title for column in columns[:5]] == ["model", "rank", "family", "is:lite ↑", "kd:lite ↓"]


def test_rows_of_one_model_carry_the_names_of_the_board(make_record):
    runs = [stored(make_record("a", run=str(s), steps=s, value=s)) for s in (10, 50)]
    table = group_table(board_of(INFO, runs).groups[0])
    assert [row[0].text for row in table.rows] == ["a (10 steps)", "a (50 steps)"]
    assert [data["model"] for data in table.data] == ["a (10 steps)", "a (50 steps)"]


def test_a_board_without_runs_has_headers_and_says_so():
    found = board_of(INFO, [])
    assert read(scores_csv("toys", [])) == read(table_csv(found)) == []
    assert "No runs yet." in table_md(found)


@pytest.mark.parametrize(("ranks", "text"), [(None, "—"), ((2, 2), "2"), ((2, 4), "2\N{EN DASH}4")])
def test_a_range_of_ranks_is_shown_as_one(ranks, text):
    assert rank_text(ranks) == text


def test_speeds_alone_can_be_tabled(make_record, changed):
    runs = [stored(changed(make_record(m), results=())) for m in "ab"]
    assert [row["images_per_second"] for row in read(table_csv(board_of(INFO, runs)))] == ["10.0", "10.0"]
    assert "Ranked by" not in table_md(board_of(INFO, runs))
