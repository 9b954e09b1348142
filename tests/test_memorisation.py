"""The memorisation search from image files to the table, the sheet and the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from evalkit.cli.memorisation import memorisation
from evalkit.console import Silent
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.memorisation import MemorisationRequest, _default_head, _Work, search
from evalkit.numerics.memorisation import memorisation_table
from evalkit.references import load_reference
from evalkit.reporting.memorisation import write_table

TRAINING, SAMPLES = 40, 12


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def save(folder: Path, images, names):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Smooth 16 x 16 pictures: training ones, and samples of which 3 repeats 7 and 5 is nearly 9."""
    rng = np.random.default_rng(0)

    def smooth(count):
        coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        return [np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BICUBIC)) for c in coarse]

    training, samples = smooth(TRAINING), smooth(SAMPLES)
    samples[3] = training[7].copy()
    samples[5] = training[9].copy()
    samples[5][:4, :4] ^= 3
    return training, samples


@pytest.fixture
def folders(tmp_path, pictures):
    training = save(tmp_path / "train", pictures[0], [f"t{i:02d}.png" for i in range(TRAINING)])
    samples = save(
        tmp_path / "made", pictures[1], [f"{'=' if i == 3 else 's'}{i:02d}.png" for i in range(SAMPLES)]
    )
    return training, samples


@pytest.fixture
def request_(tmp_path, folders):
    return MemorisationRequest(
        training=str(folders[0]), images=folders[1], extractor="pixels", head="pixels", device="cpu",
        out=tmp_path / "runs",
    )  # fmt: skip


def by_name(found):
    return {Path(name).name: row for row, name in enumerate(found.report.generated_names)}


def test_copies_are_found_with_their_training_images(request_):
    found = search(request_, console=Silent())
    rows, table = by_name(found), found.report.table
    copy, almost = rows["=03.png"], rows["s05.png"]
    assert found.report.training_names[copy] == "t07.png"
    assert found.report.training_names[almost] == "t09.png"
    assert table.exact.tolist() == [row == copy for row in range(SAMPLES)]
    assert table.near.tolist() == [row == almost for row in range(SAMPLES)]
    assert found.report.identical.tolist() == table.exact.tolist()
    assert [found.report.kind(row) for row in (copy, almost)] == ["identical", "near"]
    assert table.most_alike(2).tolist() == [copy, almost]
    again = memorisation_table(found.generated.features, found.training.features)
    np.testing.assert_array_equal(again.distance, table.distance)


def test_equal_features_need_not_be_equal_pixels(tmp_path, request_, pictures):
    # The thumbnail of 4 x 4 averages: two swapped pixels of a tile leave it as it is.
    other = pictures[0][7].copy()
    other[0, 0], other[1, 1] = pictures[0][7][1, 1], pictures[0][7][0, 0]
    assert not np.array_equal(other, pictures[0][7])
    images = save(tmp_path / "swapped", [other, pictures[0][8]], ["a.png", "b.png"])
    found = search(replace(request_, images=images, head="thumbnail"), console=Silent())
    assert found.report.table.exact.tolist() == [True, True]
    assert found.report.identical.tolist() == [False, True]
    assert found.report.kind(0) == "exact"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_table_reads_back_and_is_no_formula(tmp_path, request_, suffix):
    found = search(request_, console=Silent())
    path = tmp_path / f"table{suffix}"
    write_table(path, found.report)
    frame = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert len(frame) == SAMPLES
    np.testing.assert_allclose(frame["distance"], found.report.table.distance, rtol=1e-6)
    assert frame["exact"].sum() == frame["identical_pixels"].sum() == 1
    row = frame[frame["exact"]].iloc[0]
    assert row["generated"] == ("'=03.png" if suffix == ".csv" else "=03.png")
    assert (row["training"], row["training_index"]) == ("t07.png", 7)
    with pytest.raises(UsageError, match="table"):
        write_table(tmp_path / "table.xlsx", found.report)


def test_a_second_search_extracts_nothing_anew(request_, monkeypatch):
    first = search(request_, console=Silent())
    from evalkit import lanes

    monkeypatch.setattr(lanes, "_extracted", lambda *_: pytest.fail("extracted again"))
    np.testing.assert_array_equal(
        search(request_, console=Silent()).report.table.distance, first.report.table.distance
    )


def test_a_subset_keeps_its_names(request_, pictures):
    found = search(replace(request_, num_samples=5), console=Silent())
    assert found.generated.count == 5
    for row, name in enumerate(found.report.generated_names):
        np.testing.assert_array_equal(found.generated.image(row), pictures[1][int(name[1:3])])


def test_the_sheet_shows_pairs_even_of_other_sizes(tmp_path, request_, pictures):
    found = search(request_, console=Silent())
    assert found.write_pairs(tmp_path / "pairs.png", count=3) == 3
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.size > (500, 200)
    large = [np.kron(image, np.ones((2, 2, 1), dtype=np.uint8)) for image in pictures[1]]
    images = save(tmp_path / "large", large, [f"{i:02d}.png" for i in range(SAMPLES)])
    other = search(replace(request_, images=images), console=Silent())
    assert other.write_pairs(tmp_path / "other.png", count=2) == 2


def test_a_reference_of_features_will_do_but_says_what_it_misses(request_, tmp_path, monkeypatch):
    request = replace(
        request_, training="cifar10-jpeg-train", images=None, model="vae", num_samples=16,
        extractor="efficientnet-lite0", head="block",
    )  # fmt: skip
    notes = Notes()
    found = search(request, console=notes)
    assert found.report.identical is None
    assert any("copies of the others go unseen" in note for note in notes.notes)
    assert found.report.table.training_rows < found.report.training_count
    assert found.report.generated_names[3] == "3"
    with pytest.raises(UsageError, match="not at hand"):
        found.write_pairs(tmp_path / "pairs.png", count=2)
    monkeypatch.setattr(_Work, "samples", lambda _: pytest.fail("sampled before the check"))
    with pytest.raises(NothingMeasuredError, match="no features of head 'pooled'") as refusal:
        search(replace(request, head="pooled"), console=Silent())
    assert refusal.value.hint == "--head block"


def test_the_head_is_one_that_the_reference_keeps(request_):
    request = replace(
        request_, training="cifar10-jpeg-train", images=None, model="vae", num_samples=16,
        extractor="efficientnet-lite0", head=None,
    )  # fmt: skip
    notes = Notes()
    assert search(request, console=notes).report.head == "block"
    assert any(note.startswith("--head block: the reference") and "'pooled'" in note for note in notes.notes)


def test_the_head_for_features_is_preferred():
    reference = load_reference("cifar10-jpeg-train")
    notes = Notes()
    bank = reference.heads["block"].kept
    both = reference.with_banks(dict.fromkeys(reference.heads, bank))
    assert "pooled" in both.heads
    assert _default_head("efficientnet-lite0", both, notes) == "pooled"
    assert _default_head("efficientnet-lite0", None, notes) == "pooled"
    assert notes.notes == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "exactly one subject"),
        ({"model": "vae"}, "exactly one subject"),
        ({"ckpt": Path("x.pt")}, "--ckpt"),
        ({"num_samples": 0}, "--num-samples"),
        ({"num_samples": 99}, "fewer than the 99"),
        ({"near_quantile": 1.0}, "--near-quantile"),
        ({"head": "nose"}, "no head"),
        ({"training": "no-such-thing"}, "no-such-thing"),
    ],
)
def test_what_is_refused(request_, changes, message):
    with pytest.raises(UsageError, match=message):
        search(replace(request_, **changes), console=Silent())


def test_the_command(tmp_path, folders):
    arguments = [
        "--images", str(folders[1]), "--training", str(folders[0]), "--extractor", "pixels",
        "--head", "pixels",
        "--out", str(tmp_path / "runs"), "--table", str(tmp_path / "t.csv"),
        "--pairs", str(tmp_path / "p.png"),
        "--count", "2", "--device", "cpu",
    ]  # fmt: skip
    text = CliRunner().invoke(memorisation, arguments)
    assert text.exit_code == 0, text.output
    assert f"{SAMPLES} samples against {TRAINING} training images, pixels pixels" in text.stdout
    assert "=03.png - t07.png  0  0  identical" in text.stdout
    assert (tmp_path / "t.csv").exists()
    assert (tmp_path / "p.png").exists()
    data = json.loads(CliRunner().invoke(memorisation, [*arguments, "--format", "json"]).stdout)
    assert data["summary"]["exact"]["count"] == data["identical_pixels"] == 1
    assert data["summary"]["near"]["low"] < 1 / SAMPLES < data["summary"]["near"]["high"]
    assert data["distinct_training_images"] == 2
    assert [pair["kind"] for pair in data["most_alike"]] == ["identical", "near"]
    refused = CliRunner().invoke(memorisation, [*arguments, "--table", "t.xlsx"])
    assert isinstance(refused.exception, UsageError)
