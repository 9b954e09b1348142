"""Tables of a suite: one comparison a fingerprint, one over seeds, and what is missing said out loud."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.record import MetricResult
from evalkit.reporting.rendering import to_json, to_markdown, to_terminal
from evalkit.suites import score_rows, seeds_table, suite_tables
from evalkit.suites.seeds import Spread
from tests.suites.stage import make_cell, make_record

SMALL = "small sample: 16 images are fewer than 5 x 48 dimensions"


def measured(*wanted, **more):
    """Cells and their records: (row, seed, value) each."""
    cells = [make_cell(row, seed) for row, seed, _ in wanted]
    records = {
        cell.key: make_record(row, value, **{"run": f"run-{row}-{seed}", **more})
        for cell, (row, seed, value) in zip(cells, wanted, strict=True)
    }
    return cells, records


def rows_of(table):
    return json.loads(to_json(table))


def test_one_seed_gives_one_comparison_under_the_names_of_the_rows():
    cells, records = measured(("a", 0, 2.0), ("b", 0, 1.0))
    (made,) = suite_tables(cells, records)
    assert (made.kind, made.protocol, made.stem) == ("models", "pixels", "table-pixels")
    assert [(row["model"], row["fd:pixels"]) for row in rows_of(made.table)] == [("b", 1.0), ("a", 2.0)]


def test_several_seeds_give_a_table_over_them():
    cells, records = measured(("a", 0, 2.0), ("a", 1, 4.0), ("b", 0, 1.0), ("b", 1, 1.0))
    models, seeds = suite_tables(cells, records)
    assert [row["model"] for row in rows_of(models.table)] == ["b@seed0", "b@seed1", "a@seed0", "a@seed1"]
    assert models.table.title.startswith("2 models on toy")
    assert (seeds.kind, seeds.stem) == ("seeds", "table-pixels-seeds")
    first, second = rows_of(seeds.table)
    assert (first["model"], first["seeds"], first["fd:pixels"], first["fd:pixels_se"]) == ("b", 2, 1.0, 0.0)
    assert (second["fd:pixels"], second["fd:pixels_sd"]) == (3.0, statistics.stdev([2.0, 4.0]))
    assert second["fd:pixels_se"] == pytest.approx(1.0)
    assert second["run_ids"] == "run-a-0 run-a-1"
    assert "3.0 ± 1.0" in to_terminal(seeds.table)


def test_fingerprints_never_share_a_table():
    cells, records = measured(("a", 0, 2.0), ("b", 0, 1.0))
    records[cells[1].key] = make_record("b", 1.0, fingerprint="0" * 64)
    one, other = suite_tables(cells, records)
    assert {one.stem, other.stem} == {"table-pixels-ffffffff", "table-pixels-00000000"}
    assert [len(made.table.rows) for made in (one, other)] == [1, 1]


def test_protocols_have_tables_of_their_own():
    cells = [make_cell("a"), make_cell("a", protocol="embedded")]
    records = {
        cell.key: make_record("a", protocol=cell.protocol, fingerprint=cell.protocol) for cell in cells
    }
    assert [made.stem for made in suite_tables(cells, records)] == ["table-pixels", "table-embedded"]


def test_what_is_missing_is_said_below_the_table():
    cells, records = measured(("a", 0, 2.0), ("b", 0, 1.0))
    del records[cells[1].key]
    (made,) = suite_tables(cells, records)
    assert "Not measured: b · pixels · seed 0." in to_markdown(made.table)
    assert suite_tables(cells, {}) == ()


def test_a_row_whose_name_with_its_seed_is_too_long_keeps_its_own():
    name = "a" * 198
    cells, records = measured((name, 0, 1.0), (name, 1, 2.0), run="r")
    models, _ = suite_tables(cells, records)
    assert all(row["model"].startswith(name) for row in rows_of(models.table))


def result(metric, value, variant="", **more):
    return MetricResult(metric, variant, value, **{"direction": "lower", "n_gen": 16, **more})


def test_the_kernel_distance_ranks_where_the_sample_is_small():
    def record(kd, fd, run):
        results = (result("fd:pixels", fd, warnings=(SMALL,)), result("kd:pixels", kd))
        return make_record(run=run, results=results)

    runs = [("a", record(1.0, 9.0, "1")), ("b", record(2.0, 3.0, "2")), ("a", record(1.0, 9.0, "3"))]
    table = seeds_table(runs, title="t")
    assert [column.title for column in table.columns] == ["model", "seeds", "kd:pixels ↓", "fd:pixels ↓"]
    assert [column.short for column in table.columns[2:]] == ["kd ↓", "fd ↓"]
    assert [row[0].text for row in table.rows] == ["a", "b"]
    assert [row[1].text for row in table.rows] == ["2", "1"]
    assert table.rows[0][2].best
    assert table.rows[1][3].best
    assert table.notes == (("*", SMALL),)


def test_a_metric_that_one_model_lacks_is_a_dash_and_higher_can_be_better():
    with_both = make_record(results=(result("is", 2.0, direction="higher"), result("fd", 1.0)), run="1")
    with_one = make_record(results=(result("is", 3.0, direction="higher"),), run="2")
    table = seeds_table([("a", with_both), ("b", with_one)], title="t")
    assert [row[0].text for row in table.rows] == ["b", "a"]
    assert table.rows[0][3].text == "—"
    assert rows_of(table)[0]["fd"] is None


def test_variants_of_one_metric_are_told_apart():
    record = make_record(results=(result("fd", 1.0, "block"), result("fd", 2.0, "logits")))
    table = seeds_table([("a", record)], title="t")
    assert [column.title for column in table.columns[2:]] == ["fd/block ↓", "fd/logits ↓"]


def test_records_without_scores_give_a_table_of_names():
    table = seeds_table([("a", make_record(results=()))], title="t")
    assert [cell.text for cell in table.rows[0]] == ["a", "1"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(-1e3, 1e3))
def test_the_spread_over_seeds_is_that_of_the_textbook(values, shift):
    spread, moved = Spread.of(values), Spread.of([value + shift for value in values])
    assert min(values) - 1e-6 <= spread.mean <= max(values) + 1e-6
    assert moved.mean == pytest.approx(spread.mean + shift, abs=1e-6)
    if len(values) == 1:
        assert spread.deviation is spread.error is None
        return
    squares = sum((value - spread.mean) ** 2 for value in values)
    assert spread.error == pytest.approx(
        (squares / (len(values) - 1) / len(values)) ** 0.5, rel=1e-9, abs=1e-9
    )
    assert moved.error == pytest.approx(spread.error, rel=1e-6, abs=1e-6)


def test_no_values_have_no_spread():
    assert Spread.of([]) is None


def test_the_tidy_form_has_a_row_for_each_cell_and_metric():
    cells, records = measured(("a", 0, 2.0), ("b", 3, 1.0))
    rows = score_rows([*cells, make_cell("gone")], records)
    assert [(row["model"], row["seed"], row["metric"], row["value"]) for row in rows] == [
        ("a", 0, "fd:pixels", 2.0),
        ("b", 3, "fd:pixels", 1.0),
    ]
    assert rows[0]["ci_low"] is None
