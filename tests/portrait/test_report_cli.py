"""``evalkit report`` end to end: one model, two, images; every refusal with its code; in Chromium."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators import GENERATOR_FACTS
from evalkit.reporting.formatting import measured
from evalkit.sample_files import write_samples
from evalkit.shards import ShardStore

TOY = "evalkit.generators.toy:make"


def changed(file: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a changed copy of a record into ``folder``."""
    data = json.loads(file.read_text())
    change(data)
    copy = folder / f"changed-{len(list(folder.iterdir()))}.json"
    copy.write_text(json.dumps(data))
    return copy


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", html))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> str:
    """Both models side by side."""
    out = tmp_path_factory.mktemp("pages") / "report.html"
    files = [str(runs.files[name]) for name in ("cgan", "vae")]
    assert run(["report", *files, "--out", str(out), "--grid", "24", "--curve-n", "32"]) == 0
    return out.read_text(encoding="utf-8")


def test_two_models_are_on_one_page(page, runs):
    shown = text_of(page)
    assert "cgan against vae" in shown
    for heading in ("Scores", "Samples", "Nearest real images", "Interpolation", "Classes", "Provenance"):
        assert heading in shown
    for record in map(runs.record, ("cgan", "vae")):
        assert record.run_id in shown
        assert record.protocol.fingerprint in shown
        assert record.model.sha256 in shown
    assert "Errors are unpaired" in shown
    assert "vae minus cgan" in shown
    assert page.count('alt="sample 23') >= 2
    assert len(page) < 4e6


def test_the_state_of_the_run_is_reused(runs, tmp_path, monkeypatch):
    """Nothing is extracted again, and nothing is left behind beside what was asked for."""
    written = []
    monkeypatch.setattr(ShardStore, "write", lambda self, shard, result: written.append(shard))
    before = sorted((runs.folder / "runs").glob("*"))
    out = tmp_path / "r.html"
    assert run(["report", str(runs.files["cgan"]), "--out", str(out), "--curve-n", "none"]) == 0
    assert written == []
    assert sorted((runs.folder / "runs").glob("*")) == before
    assert "Number of images" not in out.read_text()


def test_a_record_alone_is_enough(runs, tmp_path, capsys):
    """Moved away from its state, under another name of its checkpoint, told by its digest."""
    record = shutil.copy(runs.files["vae"], tmp_path / "moved.json")
    ckpt = shutil.copy(GENERATOR_FACTS["vae"].checkpoint, tmp_path / "weights.safetensors")
    out = tmp_path / "r.html"
    arguments = [
        "report",
        str(record),
        "--ckpt",
        str(ckpt),
        "--out",
        str(out),
        "--curve-n",
        "none",
        "--grid",
        "4",
    ]
    assert run([*arguments, "--real", str(runs.real), "--state", str(tmp_path / "kept")]) == 0
    assert "not kept" not in capsys.readouterr().err
    assert list((tmp_path / "kept").glob("*/*.safetensors"))
    assert "Nearest of all" in out.read_text()
    assert run(arguments) == 0
    assert "features were not kept: --state FOLDER" in capsys.readouterr().err


def test_scored_images_are_shown(runs, tmp_path):
    images = tmp_path / "mine.npz"
    draws = np.random.default_rng(5).integers(0, 256, (32, 3, 32, 32), dtype=np.uint8)
    write_samples(images, draws, labels=None)
    arguments = [
        "--images",
        str(images),
        "--reference",
        str(runs.real),
        "--protocol",
        "pixels",
        "--metrics",
        "kd",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evalkit", "score", *arguments])
        assert run(["score", *arguments, "--out", str(tmp_path / "runs")]) == 0
    out = tmp_path / "r.html"
    assert run(["report", str(tmp_path / "runs"), "--out", str(out), "--curve-n", "none"]) == 0
    shown = text_of(out.read_text())
    assert "Images have no latent space" in shown
    assert 'alt="image 0"' in out.read_text()
    write_samples(images, draws[::-1].copy(), labels=None)
    assert run(["report", str(tmp_path / "runs"), "--out", str(out)]) == 6


def test_own_code_is_shown_where_it_is_named(runs, tmp_path, capsys):
    arguments = ["--model", TOY, "--reference", str(runs.real), "--protocol", "pixels", "--num-samples", "32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evalkit", "score", *arguments, "--metrics", "kd"])
        assert run(["score", *arguments, "--metrics", "kd", "--out", str(tmp_path / "runs")]) == 0
    shown = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "r.html"), "--curve-n", "none"]
    assert run(shown) == 2
    assert f"--model {TOY}" in capsys.readouterr().err
    assert run([*shown, "--model", TOY]) == 0


def test_different_protocols_are_shown_without_differences(runs, tmp_path):
    def cut(data: dict[str, Any]) -> None:
        data["protocol"]["fields"]["numerics_version"] = "1"
        data["protocol"]["fingerprint"] = "0" * 64

    other = changed(runs.files["vae"], tmp_path, cut)
    out = tmp_path / "r.html"
    state = str(runs.folder / "runs" / "state")
    assert run(["report", str(runs.files["cgan"]), str(other), "--out", str(out), "--state", state]) == 0
    shown = text_of(out.read_text())
    assert "No differences are shown" in shown
    assert "numerics_version" in shown
    assert "less cgan" not in shown


def test_one_model_twice_is_told_apart(runs, tmp_path):
    out = tmp_path / "r.html"
    file = str(runs.files["cgan"])
    assert run(["report", file, file, "--out", str(out), "--grid", "1", "--curve-n", "none"]) == 0
    shown = text_of(out.read_text())
    assert "cgan (1) against cgan (2)" in shown
    assert "Errors are paired" in shown


def test_fewer_steps_are_drawn_and_scored(runs, tmp_path):
    """The same seeds at each number of steps; the run's own steps need no new sample."""
    arguments = ["--model", "ddpm", "--steps", "2", "--num-samples", "32", "--protocol", "pixels"]
    arguments += ["--reference", str(runs.real), "--metrics", "kd"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evalkit", "score", *arguments])
        assert run(["score", *arguments, "--out", str(tmp_path / "runs")]) == 0
    out = tmp_path / "r.html"
    flags = ["--nfe", "1", "--nfe-images", "32", "--grid", "4", "--out", str(out)]
    assert run(["report", str(tmp_path / "runs"), *flags]) == 0
    shown = re.sub(r"\s+", " ", text_of(out.read_text()))
    assert "1 step, NFE 1 " in shown
    assert "2 steps, NFE 2 (as scored)" in shown
    (file,) = (tmp_path / "runs").glob("*.json")
    (result,) = json.loads(file.read_text())["results"]
    assert f"ddpm 2 2 32 {measured(result['value'], result['se'])} " in shown
    assert out.read_text().count('with 1 step"') == 8


def wrong_digest(data: dict[str, Any]) -> None:
    data["model"]["sha256"] = "0" * 64


def incomplete(data: dict[str, Any]) -> None:
    data["status"] = "partial"


def speed_only(data: dict[str, Any]) -> None:
    data["protocol"] = {"name": "speed", "fields": {"trial": 1}, "fingerprint": "a"}


def other_features(data: dict[str, Any]) -> None:
    data["protocol"]["fields"]["extractor"]["sha256"] = "1" * 64


def infinite(data: dict[str, Any]) -> None:
    data["results"][0]["value"] = float("nan")


def hostile_name(data: dict[str, Any]) -> None:
    data["model"]["id"] = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (wrong_digest, 6, "not the checkpoint that was scored"),
        (incomplete, 5, "partial, not complete"),
        (speed_only, 5, "no scores of a set of images"),
        (other_features, 6, "other weights"),
        (infinite, 6, ""),
        (hostile_name, 6, "not an identifier"),
    ],
)
def test_records_that_cannot_be_shown(runs, tmp_path, capsys, change, code, said):
    file = changed(runs.files["cgan"], tmp_path, change)
    assert run(["report", str(file), "--out", str(tmp_path / "r.html")]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["nowhere.json"], 5, "no record at nowhere.json"),
        (["{folder}"], 2, "2 complete records"),
        (["{cgan}"] * 3, 2, "one record or two"),
        ([], 2, "RECORD"),
        (["{cgan}", "--grid", "0"], 2, "--grid"),
        (["{cgan}", "--grid", "401"], 2, "--grid"),
        (["{cgan}", "--nfe", "5,10"], 2, "sample in steps"),
        (["{cgan}", "--nfe", "five"], 2, "list of numbers"),
        (["{cgan}", "--curve-n", "2"], 2, "--curve-n"),
        (["{cgan}", "--ckpt", "nowhere.pt"], 2, "no checkpoint nowhere.pt"),
        (["{cgan}", "--ckpt", "{real}"], 6, "does not fit"),
        (["{cgan}", "--ckpt", "{real}", "--ckpt", "{real}"], 6, "none of the records"),
        (["{cgan}", "--model", "cgan", "--model", "vae"], 2, "2 --model for 1 records"),
        (["{cgan}", "--model", "vae"], 6, "not the checkpoint"),
        (["{cgan}", "--real", "nowhere"], 2, "nowhere"),
        (["{cgan}", "--real", "{file}"], 2, "not a known kind"),
    ],
)
def test_flags_that_cannot_work(runs, tmp_path, capsys, monkeypatch, flags, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("no image")
    known = {"folder": runs.folder / "runs", "cgan": runs.files["cgan"], "real": runs.real}
    known["file"] = tmp_path / "note.txt"
    assert run(["report", *(flag.format(**known) for flag in flags)]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_record(tmp_path, capsys):
    (tmp_path / "other.json").write_text("{}")
    assert run(["report", str(tmp_path)]) == 5
    assert "no complete record" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_chromium(page, browser, tmp_path, scheme):
    """No request, no complaint, nothing serious for axe; every picture decodes; fits on a phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True
    )
    opened = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(file.as_uri())
    images = "[...document.images]"
    assert opened.evaluate(f"Promise.all({images}.map(i => i.decode())).then(() => {images}.length)") > 50
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    found = axe.Axe().run(opened)
    serious = [v["id"] for v in found.response["violations"] if v["impact"] in {"serious", "critical"}]
    assert serious == []
    assert [url for url in asked if not url.startswith("data:") and url != file.as_uri()] == []
    assert complaints == []
    context.close()


def test_printed_matches_stay_in_one_row_and_no_table_is_cut_off(page, browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    opened = browser.new_page(viewport={"width": 794, "height": 1123})  # A4 at 96 dots an inch
    opened.emulate_media(media="print")
    opened.goto(file.as_uri())
    tops = "m => [...m.querySelectorAll('figure')].map(f => f.offsetTop)"
    rows = opened.evaluate(f"[...document.querySelectorAll('.match')].map({tops})")
    assert rows
    assert all(row[0] == row[1] for row in rows)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 794
    opened.close()


def test_the_page_is_complete_without_scripts(page, browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert opened.get_by_role("heading", level=2).count() == page.count("<h2")
    assert opened.locator("svg.chart").first.is_visible()
    opened.locator("summary").first.click()
    assert opened.locator("details[open] table").first.is_visible()
    context.close()
