"""A board for spreadsheets, programs, papers and model cards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import huggingface_hub
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.leaderboard.board import board_of, read_board
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.export import FORMS, entries_of, export
from evalkit.leaderboard.facts import BoardInfo
from evalkit.leaderboard.latex import latex, to_latex
from evalkit.leaderboard.model_index import model_card_yaml
from evalkit.leaderboard.storage import Stored
from evalkit.reporting.rendering import Cell, Column, Table

INFO = BoardInfo(name="toys", title="Toys")


def entries(*records, **said):
    rows = [Stored(record=r, entry=EntryFile(run_id=r.run_id, **said)) for r in records]
    return board_of(INFO, rows).groups[0].entries


def card(*found):
    text = model_card_yaml(found)
    assert text.startswith("---\n")
    assert text.endswith("\n---\n")
    return yaml.safe_load(text[4:-4])["model-index"]


def test_a_model_card_holds_every_score_in_the_hubs_form(make_record):
    (model,) = card(*entries(make_record("ddpm", 2.0), source_url="https://a.org/x"))
    assert model["name"] == "ddpm"
    (result,) = model["results"]
    assert result["task"] == {"type": "unconditional-image-generation"}
    assert result["dataset"] == {"type": "toy", "name": "toy", "split": "train"}
    assert result["source"]["url"] == "https://a.org/x"
    first, second = result["metrics"]
    assert (first["type"], first["name"], first["value"], first["config"]) == ("kd", "kd:lite", 2.0, "block")
    assert first["args"]["ci_low"] == 1.8
    assert (second["type"], second["value"]) == ("is", 1.5)
    assert "verified" not in json.dumps(model)


def test_the_hub_reads_the_card(make_record):
    found = entries(make_record("ddpm", 1e-12), source_url="https://a.org/x")
    data = huggingface_hub.ModelCard(model_card_yaml(found) + "\n# ddpm\n").data
    assert data.model_name == "ddpm"
    assert [(r.metric_type, r.metric_value, r.dataset_type) for r in data.eval_results] == [
        ("kd", 1e-12, "toy"),
        ("is", 1.5, "toy"),
    ]
    assert not any(result.verified for result in data.eval_results)


@pytest.mark.parametrize(
    ("fields", "task"),
    [({"task": "translate"}, "image-to-image"), ({"prompts": "x"}, "text-to-image")],
)
def test_the_task_follows_the_protocol(make_record, changed, fields, task):
    record = make_record()
    record = changed(record, protocol=changed(record.protocol, fields=fields))
    assert card(*entries(record))[0]["results"][0]["task"] == {"type": task}


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=30))
def test_yaml_reads_back_every_number_and_no_text_leaves_its_quotes(make_record, value, text):
    from dataclasses import replace

    record = make_record(value=value, half=None)
    record = replace(record, data=replace(record.data, split=text or None))
    (result,) = card(*entries(record))[0]["results"]
    found = result["metrics"][0]["value"]
    assert isinstance(found, float)
    assert repr(found) == repr(value)
    assert set(result) == {"task", "dataset", "metrics", "source"}
    if text.isprintable() and text:
        assert result["dataset"]["split"] == text


def test_a_model_is_found_by_its_rows_name_or_by_its_id(make_record):
    rows = [
        Stored(record=r, entry=EntryFile(run_id=r.run_id))
        for r in (make_record("a", run="1", steps=5), make_record("a", run="2", steps=9), make_record("b"))
    ]
    found = board_of(INFO, rows)
    assert [e.name for e in entries_of(found, "a (9 steps)")] == ["a (9 steps)"]
    assert len(card(*entries_of(found, "a"))[0]["results"]) == 2
    with pytest.raises(NothingMeasuredError, match="no model 'c'") as caught:
        entries_of(found, "c")
    assert "'b'" in caught.value.hint or "b" in caught.value.hint


def test_every_form_is_exported(board):
    for form in FORMS:
        text = export(board, form, model="gan" if form == "model-card" else None)
        assert "gan" in text
        assert text.endswith("\n")


def test_csv_can_begin_with_a_byte_order_mark(board):
    plain = export(board, "csv")
    assert export(board, "csv", bom=True) == f"\ufeff{plain}"
    assert export(board, "scores-csv", bom=True).encode().startswith(b"\xef\xbb\xbfschema_version")


def test_json_holds_the_rows_with_all_digits(board):
    data = json.loads(export(board, "json"))
    (group,) = data["groups"]
    assert (data["board"], group["headline"]) == ("toys", "kd:lite")
    first = group["rows"][0]
    assert (first["model"], first["rank_best"], first["kd:lite"], first["pareto"]) == ("ddpm", 1, 2.0, True)


@pytest.mark.parametrize(
    ("form", "flags", "message"),
    [
        ("xls", {}, "no format"),
        ("json", {"bom": True}, "--bom belongs to CSV"),
        ("json", {"model": "gan"}, "takes no --model"),
        ("model-card", {}, "needs --model"),
    ],
)
def test_flags_that_do_not_fit_are_refused(board, form, flags, message):
    with pytest.raises(UsageError, match=message):
        export(board, form, **flags)


def test_a_board_without_runs_has_nothing_to_export(empty):
    with pytest.raises(NothingMeasuredError):
        export(empty, "latex")
    assert export(empty, "scores-csv").count("\n") == 1


def test_a_latex_table_is_ascii_with_booktabs_and_bold_best_values(board):
    text = export(board, "latex")
    assert text.isascii()
    assert r"ddpm & 1--2 & diffusion & \textbf{2.00 $\pm$ 0.10}" in text
    rows = [line for line in text.split("\n") if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


@given(st.text(max_size=40))
def test_no_text_is_a_command_in_latex(text):
    found = latex(text)
    assert found.isascii()
    known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}"
    rest = re.sub(known, "", found)
    rest = re.sub(r"\\[&%$#_{}]", "", rest)
    rest = re.sub(r"\$\\(pm|downarrow|uparrow|bullet|cdot|times|infty)\$", "", rest)
    assert not re.search(r"[\\&%$#_{}~^\n]", rest)


def test_a_footnote_cannot_end_its_comment():
    table = Table(
        title="t",
        columns=(Column("a_b"),),
        rows=((Cell("x", marks=" *"),),),
        notes=(("*", "one\n\\input{/etc/passwd}\u2028two"),),
    )
    text = to_latex(table)
    assert "\n\\input" not in text
    assert "a\\_b" in text
    assert "x$^{*}$" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(board, tmp_path):
    body = export(board, "latex")
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_the_published_board_exports_a_card_of_each_model(board):
    for entry in read_board(board).groups[0].entries:
        assert entry.name in export(board, "model-card", model=entry.name)
