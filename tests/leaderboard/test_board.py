"""Settings, groups, names of rows, and which of several runs counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import UsageError
from evalkit.leaderboard.board import board_of, create_board, read_board, read_info
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.facts import Board, BoardInfo
from evalkit.leaderboard.naming import row_names
from evalkit.leaderboard.storage import Stored
from evalkit.leaderboard.wide import group_table

INFO = BoardInfo(name="toys", title="Toys")


def stored(record, **entry):
    return Stored(record=record, entry=EntryFile(run_id=record.run_id, **entry))


def names(board):
    return [entry.name for group in board.groups for entry in group.entries]


def test_a_new_board_reads_back_and_is_empty(tmp_path):
    info = BoardInfo(
        name="toys", title='"Quoted" \\ ünïcode', description="One.\n\nTwo.", headline="kd:efficientnet-lite0"
    )
    create_board(tmp_path / "b", info)
    assert read_info(tmp_path / "b") == info
    assert read_board(tmp_path / "b") == Board(info=info, groups=())
    assert (tmp_path / "b" / ".gitignore").read_text() == ".lock\n.*.tmp\n"
    assert (tmp_path / "b" / ".gitattributes").read_text() == "* -text\n"
    with pytest.raises(UsageError, match="a board already"):
        create_board(tmp_path / "b", info)


def test_a_new_board_keeps_what_a_folder_tells_git(tmp_path):
    (tmp_path / ".gitignore").write_bytes(b"*.pt\n.lock\n\xff")
    create_board(tmp_path, INFO)
    assert (tmp_path / ".gitignore").read_bytes() == b"*.pt\n.lock\n\xff\n.*.tmp\n"


def test_a_title_that_is_no_utf8_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no UTF-8"):
        create_board(tmp_path, BoardInfo(name="toys", title="a\udcff"))


@given(st.text(max_size=50), st.text(max_size=50))
@settings(max_examples=50)
def test_every_text_that_a_setting_may_hold_survives_toml(tmp_path_factory, title, description):
    folder = tmp_path_factory.mktemp("b")
    info = BoardInfo(name="toys", title=title or "t", description=description)
    try:
        create_board(folder, info)
    except UsageError:
        assert not (folder / "board.toml").exists()
        return
    assert read_info(folder) == info


def test_a_board_without_a_name_is_called_as_its_folder(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "board.toml").write_text("")
    assert read_info(tmp_path / "cats") == BoardInfo(name="cats", title="cats")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('titel = "x"', "unknown key 'titel'", "did you mean 'title'"),
        ("title = 3", "title must be text", "title ="),
        ("title = ", "not TOML", ""),
        ('name = "../x"', "not an identifier", ""),
        ('title = "a\\nb"', "line end", ""),
        ('headline = "=1"', "not an identifier", ""),
    ],
)
def test_a_wrong_setting_is_a_usage_error_that_names_the_file(tmp_path, text, message, hint):
    (tmp_path / "board.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_info(tmp_path)
    assert "board.toml" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_folder_without_settings_is_no_board(tmp_path):
    with pytest.raises(UsageError, match="no leaderboard") as caught:
        read_board(tmp_path)
    assert "leaderboard new" in caught.value.hint


def test_entries_are_ranked_best_first_with_ranges_and_the_pareto_front(board):
    (group,) = read_board(board).groups
    assert [(e.name, e.ranks, e.pareto) for e in group.entries] == [
        ("ddpm", (1, 2), True),
        ("gan", (1, 2), True),
        ("vae", (3, 3), False),
    ]
    assert (group.headline, group.fingerprint) == ("kd:lite", "p1")


def test_a_metric_where_higher_is_better_turns_the_order_around(make_record):
    rows = [stored(make_record(m, v, direction="higher")) for m, v in (("a", 1.0), ("b", 9.0))]
    (group,) = board_of(INFO, rows).groups
    assert [(e.name, e.ranks) for e in group.entries] == [("b", (1, 1)), ("a", (2, 2))]


def test_protocols_rank_apart_and_the_largest_comes_first(make_record):
    rows = [
        stored(make_record("a", 9.0, fingerprint="p1")),
        stored(make_record("b", 1.0, fingerprint="p2")),
        stored(make_record("c", 5.0, fingerprint="p2")),
    ]
    groups = board_of(INFO, rows).groups
    assert [(g.fingerprint, [(e.name, e.ranks) for e in g.entries]) for g in groups] == [
        ("p2", [("b", (1, 1)), ("c", (2, 2))]),
        ("p1", [("a", (1, 1))]),
    ]


def test_a_row_without_the_headline_comes_last_and_has_no_rank(make_record, changed):
    bare = changed(make_record("b"), results=make_record().results[1:])
    (group,) = board_of(INFO, [stored(bare), stored(make_record("a"))]).groups
    assert [(e.name, e.ranks, e.pareto) for e in group.entries] == [("a", (1, 1), True), ("b", None, False)]


def test_speeds_alone_make_a_group_that_ranks_nobody(make_record, changed):
    rows = [stored(changed(make_record(m), results=())) for m in "ab"]
    (group,) = board_of(INFO, rows).groups
    assert group.headline == ""
    assert [(e.name, e.ranks, e.pareto) for e in group.entries] == [("a", None, False), ("b", None, False)]


def test_the_headline_of_the_settings_ranks_where_it_is_measured(make_record):
    info = BoardInfo(name="toys", title="Toys", headline="is:lite")
    assert board_of(info, [stored(make_record())]).groups[0].headline == "is:lite"
    wrong = BoardInfo(name="toys", title="Toys", headline="is:lit")
    with pytest.raises(UsageError, match="no record holds the headline") as caught:
        board_of(wrong, [stored(make_record())])
    assert "did you mean 'is:lite'" in caught.value.hint


def test_of_several_runs_of_one_model_the_newest_counts(make_record):
    rows = [stored(make_record("a", float(day), day=day)) for day in (2, 3, 1)]
    (group,) = board_of(INFO, rows).groups
    assert [entry.record.results[0].value for entry in group.entries] == [3.0]


def test_one_model_in_two_precisions_has_two_rows(make_record, changed):
    full = make_record("a")
    half = changed(make_record("a", day=2), model=changed(full.model, dtype="bfloat16"))
    full = changed(full, model=changed(full.model, dtype="float32"))
    assert names(board_of(INFO, [stored(full), stored(half)])) == ["a (bfloat16)", "a (float32)"]


def test_a_variant_never_ranks_against_another_one(make_record, changed):
    def run(model, *scores):
        record = make_record(model)
        results = tuple(changed(record.results[0], variant=v, value=x, ci=None) for v, x in scores)
        return stored(changed(record, results=results))

    rows = [run("a", ("x", 5.0), ("y", 1.0)), run("b", ("y", 2.0), ("x", 3.0)), run("c", ("y", 0.0))]
    (group,) = board_of(INFO, rows).groups
    assert (group.headline, group.variant) == ("kd:lite", "x")
    assert [(e.name, e.ranks) for e in group.entries] == [("b", (1, 1)), ("a", (2, 2)), ("c", None)]
    table = group_table(group)
    assert [c.title for c in table.columns[3:5]] == ["kd:lite/x ↓", "kd:lite/y ↓"]


def test_a_reported_number_does_not_hide_a_measured_one(make_record):
    rows = [stored(make_record("a", 2.0)), stored(make_record("a", 0.1, day=2), trust="reported")]
    assert names(board_of(INFO, rows)) == ["a (reported)", "a (measured)"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"steps": 10}, {"steps": 50}, ["a (10 steps)", "a (50 steps)"]),
        ({"sampler": "ddim"}, {"sampler": "heun"}, ["a (ddim)", "a (heun)"]),
        ({"sampler": None}, {"sampler": "heun"}, ["a", "a (heun)"]),
        ({"weights": "1"}, {"weights": "2"}, ["a (weights 11111111)", "a (weights 22222222)"]),
        ({"fingerprint": "p1"}, {"fingerprint": "p2"}, ["a (protocol p1)", "a (protocol p2)"]),
    ],
)
def test_rows_of_one_model_are_told_apart_by_what_differs(make_record, one, other, expected):
    rows = [stored(make_record("a", run="1", **one)), stored(make_record("a", run="2", **other))]
    assert sorted(names(board_of(INFO, rows))) == expected


def test_a_name_that_was_given_is_kept_and_told_apart_too(make_record):
    rows = [
        stored(make_record("a", run="1"), name="mine"),
        stored(make_record("b", run="2"), name="mine"),
        stored(make_record("a", run="3")),
    ]
    assert sorted(names(board_of(INFO, rows))) == ["a", "mine (1)", "mine (2)"]


def test_a_hostile_sampler_cannot_break_a_name(make_record):
    rows = [stored(make_record("a", run=str(i), sampler=f"<b>\n{i}" + "x" * 90)) for i in (1, 2)]
    for name in names(board_of(INFO, rows)):
        assert "\n" not in name
        assert len(name) < 60


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from([None, "ddim"]),
            st.sampled_from([None, 5, 6]),
            st.sampled_from("xy"),
        ),
        max_size=8,
    )
)
def test_names_are_unique_and_begin_with_the_models_id(make_record, choices):
    rows = [
        stored(make_record(model, run=f"r{i}", sampler=sampler, steps=steps, fingerprint=protocol))
        for i, (model, sampler, steps, protocol) in enumerate(choices)
    ]
    found = row_names(rows)
    assert len(set(found.values())) == len(rows)
    assert all(found[row.record.run_id].split(" ")[0] == row.record.model.id for row in rows)


@given(st.permutations(range(4)))
def test_a_board_does_not_depend_on_the_order_of_its_runs(make_record, order):
    rows = [
        stored(make_record(m, v, day=d)) for m, v, d in (("a", 2, 1), ("a", 1, 2), ("b", 2, 3), ("c", 2, 4))
    ]
    assert board_of(INFO, [rows[i] for i in order]) == board_of(INFO, rows)
