"""The board of this repository is up to date, and shows what its records hold."""

from __future__ import annotations

from pathlib import Path

from evalkit.gate.baselines import find_baseline
from evalkit.leaderboard.board import read_board
from evalkit.leaderboard.check import check
from evalkit.leaderboard.export import export
from evalkit.leaderboard.samples import sample_grid

BOARD = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg"


def test_the_board_is_not_stale():
    assert check(BOARD) == (), f"evalkit leaderboard build {BOARD}"


def test_every_bundled_model_has_a_row_with_a_rank_and_samples():
    (group,) = read_board(BOARD).groups
    assert group.headline == "kd:efficientnet-lite0"
    assert [entry.name for entry in group.entries] == [
        "ddpm",
        "stylegan",
        "cgan",
        "sngan",
        "vq-vae",
        "vae-mixture",
        "vae",
        "gated-pixelcnn",
    ]
    for rank, entry in enumerate(group.entries, start=1):
        assert entry.ranks is not None
        assert entry.ranks[0] <= rank <= entry.ranks[1]
        assert entry.grid is not None
        assert entry.grid[8:12] == b"WEBP"


def test_its_grids_are_pictures_that_a_board_takes(tmp_path):
    for path in (BOARD / "samples").iterdir():
        assert sample_grid(path)


def test_its_page_is_small_and_asks_for_nothing():
    page = (BOARD / "index.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 300_000
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert 'src="http' not in page


def test_a_row_is_a_baseline_for_the_gate():
    (group,) = read_board(BOARD).groups
    ddpm = group.entries[0].record
    baseline = find_baseline(f"{BOARD / 'scores.csv'}#ddpm", (ddpm,))
    by_name = {q.metric: q.value for q in baseline.quantities}
    assert by_name["kd:efficientnet-lite0"] == next(
        r.value for r in ddpm.results if r.metric == "kd:efficientnet-lite0"
    )


def test_its_best_model_has_a_card():
    assert "kd:efficientnet-lite0" in export(BOARD, "model-card", model="ddpm")
