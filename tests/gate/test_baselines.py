"""Where the sides of a gate come from: files, folders, accepted runs, rows of a leaderboard."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from scipy.stats import t as student_t

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.gate.baselines import ACCEPTED, find_baseline, find_candidate
from evalkit.gate.quantities import quantities
from evalkit.gate.subjects import identity
from evalkit.spec import Interval


@pytest.fixture
def save(tmp_path):
    """Write records as files of a folder, named by run id; returns the folder."""

    def write(*records, folder="runs"):
        for record in records:
            record.write(tmp_path / folder / f"{record.run_id}.json")
        return tmp_path / folder

    return write


def run_of(baseline):
    return baseline.side.run_id


def accept(folder, *pairs):
    lines = [json.dumps({"run_id": new, "old_run_id": old, "why": "because"}) for new, old in pairs]
    (folder / ACCEPTED).write_text("\n".join([*lines, ""]))


def test_a_candidate_is_a_record(make, save):
    record = make.run(make.score())
    folder = save(record)
    assert find_candidate(folder / f"{record.run_id}.json") == (record,)


def test_of_a_folder_the_newest_run_is_the_candidate_and_older_ones_alike_its_replicates(make, save):
    newest = make.run(make.score(), day=5)
    alike = [make.run(make.score(), day=3, seeds=1), make.run(make.score(), day=4, seeds=2)]
    others = [
        make.run(make.score(), day=1, model="gan"),
        make.run(make.score(), day=2, sha="b" * 64),
        make.run(make.score(), day=2, seeds=3, fields={"num_images": 7}),
        make.run(make.score(), day=2, seeds=4, status="partial"),
    ]
    folder = save(newest, *alike, *others)
    assert find_candidate(folder) == (newest, alike[1], alike[0])
    save(others[0], folder="runs/deeper/still")
    assert len(find_candidate(folder)) == 3  # the same run twice is one


@pytest.mark.parametrize("status", ["started", "partial", "error"])
def test_a_candidate_must_be_complete(make, save, status):
    """Else a crashed run would pass on the scores of the one before it."""
    older, record = make.run(make.score(), day=1), make.run(day=2, status=status)
    folder = save(older, record)
    for path in (folder, folder / f"{record.run_id}.json"):
        with pytest.raises(NothingMeasuredError, match=f"is {status}, not complete") as caught:
            find_candidate(path)
        assert "resumes" in (caught.value.hint or "")


def test_no_candidate(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"schema": 3}')
    (tmp_path / "other" / "list.json").write_text("[1]")
    for name in ("nothing", "nothing.json", "empty", "other"):
        with pytest.raises(NothingMeasuredError) as caught:
            find_candidate(tmp_path / name)
        assert caught.value.exit_code == 5
        assert caught.value.hint


BROKEN = {
    "cut short": lambda text: text[: len(text) // 2],
    "NaN": lambda text: text.replace('"value": 2.0', '"value": NaN'),
    "null": lambda text: text.replace('"value": 2.0', '"value": null'),
    "unknown key": lambda text: text.replace('"notes"', '"note"'),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_record_is_refused_wherever_it_lies(make, save, how):
    """A folder does not fall back to an older record: the broken one may be the one that was meant."""
    older, record = make.run(make.score(), day=1), make.run(make.score(), day=2)
    folder = save(older, record)
    path = folder / f"{record.run_id}.json"
    path.write_text(BROKEN[how](path.read_text()))
    calls = [
        lambda: find_candidate(path),
        lambda: find_candidate(folder),
        lambda: find_baseline(path, [older]),
        lambda: find_baseline(folder, [older]),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.exit_code == 6
        assert str(path) in caught.value.message


def test_bytes_that_are_no_text_are_refused(make, save):
    folder = save(make.run(make.score()))
    path = folder / "picture.json"
    path.write_bytes(b"\xff\xd8\xff")
    for call in (find_candidate, lambda where: find_baseline(where, [make.run(day=2)])):
        for where in (folder, path):
            with pytest.raises(InvalidInputError, match="not UTF-8 text"):
                call(where)
    path.unlink()
    (folder / ACCEPTED).write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        find_baseline(folder, [make.run(day=2)])


def test_a_baseline_is_a_record(make, save):
    record, candidate = make.run(make.score("kd:lite", 2.0, 0.1)), make.run(make.score(), day=2)
    path = save(record) / f"{record.run_id}.json"
    found = find_baseline(str(path), [candidate])
    assert (found.side.model, found.side.run_id, found.side.source) == ("ddpm", record.run_id, str(path))
    assert found.side.seeds == "base 0, 1024 images"
    assert found.records == (record,)
    assert found.identity == identity(record) == ("a" * 64, "ddim", 20.0, 1.0, 0, 1023)
    assert [q.metric for q in found.quantities] == ["kd:lite", "nfe"]
    assert found.notes == ()


def test_a_baseline_that_is_not_complete_is_said(make, save):
    record = make.run(make.score(), status="partial")
    found = find_baseline(save(record) / f"{record.run_id}.json", [make.run(day=2)])
    assert found.notes == ("the baseline is partial, not complete",)


def test_a_candidate_named_as_its_own_baseline_is_said(make, save):
    record = make.run(make.score())
    found = find_baseline(save(record) / f"{record.run_id}.json", [record])
    assert found.notes == ("the candidate is compared with itself",)


def test_of_a_folder_the_newest_comparable_complete_run_is_the_baseline(make, save):
    candidate = make.run(make.score(), day=9)
    right = make.run(make.score(), day=4, sha="b" * 64)
    folder = save(
        candidate,
        make.run(make.score(), day=3, sha="b" * 64, seeds=1),
        right,
        make.run(make.score(), day=5, fields={"num_images": 7}),
        make.run(day=6, status="error"),
    )
    found = find_baseline(folder, [candidate])
    assert run_of(found) == right.run_id
    assert [record.created_utc[8:10] for record in found.records] == ["04", "03"]
    assert found.side.source == str(folder / f"{right.run_id}.json")


def test_of_several_models_the_candidates_own_comes_first_and_it_is_said(make, save):
    candidate = make.run(make.score(), day=9)
    own, other = make.run(make.score(), day=1), make.run(make.score(), day=5, model="gan")
    found = find_baseline(save(own, other), [candidate])
    assert run_of(found) == own.run_id
    assert "holds 2 models" in found.notes[0]
    assert "newest record of the candidate's model" in found.notes[0]
    stranger = make.run(make.score(), day=9, model="vae")
    with pytest.raises(NothingMeasuredError, match=r"2 models \(ddpm, gan\), and none of them is vae"):
        find_baseline(save(own, other), [stranger])
    lone = find_baseline(save(make.run(make.score(), day=5, model="gan"), folder="lone"), [stranger])
    assert lone.side.model == "gan"


def test_a_folder_without_a_comparable_run_gives_one_to_show_what_differs(make, save):
    candidate = make.run(make.score(), day=9, fields={"num_images": 7})
    records = [make.run(make.score(), day=1), make.run(make.score(), day=2, sha="b" * 64)]
    assert run_of(find_baseline(save(*records), [candidate])) == records[1].run_id


def test_a_folder_with_nothing_but_the_candidate_has_no_baseline_yet(make, save):
    candidate = [make.run(make.score(), day=2), make.run(make.score(), seeds=1)]
    with pytest.raises(NothingMeasuredError, match="no complete record but the candidate's") as caught:
        find_baseline(save(*candidate), candidate)
    assert caught.value.exit_code == 5
    with pytest.raises(NothingMeasuredError, match="no complete record in"):
        find_baseline(save(make.run(status="error"), folder="other"), candidate)


def test_the_run_accepted_last_is_the_baseline_whatever_is_newer(make, save):
    candidate, newest = make.run(make.score(), day=9), make.run(make.score(), day=5, sha="b" * 64)
    old, accepted = make.run(make.score(), day=1, sha="c" * 64), make.run(make.score(), day=2, sha="d" * 64)
    folder = save(candidate, newest, old, accepted)
    accept(folder, (old.run_id, None), (accepted.run_id, old.run_id))
    assert run_of(find_baseline(folder, [candidate])) == accepted.run_id
    accept(folder, (old.run_id, None), (accepted.run_id, old.run_id), (old.run_id, accepted.run_id))
    assert run_of(find_baseline(folder, [candidate])) == old.run_id


def test_baselines_of_several_models_may_be_accepted_side_by_side(make, save):
    first, gan = make.run(make.score(), day=1), make.run(make.score(), day=2, model="gan")
    better = make.run(make.score(), day=3, model="ddpm-v2")
    folder = save(first, gan, better)
    candidate = make.run(make.score(), day=9)
    accept(folder, (first.run_id, None), (gan.run_id, None))
    assert run_of(find_baseline(folder, [candidate])) == first.run_id
    # Once replaced by a model of another name it is no baseline any more.
    accept(folder, (first.run_id, None), (gan.run_id, None), (better.run_id, first.run_id))
    assert run_of(find_baseline(folder, [candidate])) == better.run_id


def test_of_several_accepted_models_none_of_which_is_the_candidates_none_is_the_baseline(make, save):
    ddpm, gan = make.run(make.score(), day=1), make.run(make.score(), day=2, model="gan")
    folder, vae = save(ddpm, gan), make.run(make.score(), day=9, model="vae")
    accept(folder, (ddpm.run_id, None), (gan.run_id, None))
    with pytest.raises(NothingMeasuredError, match=r"of 2 models \(ddpm, gan\), and none of them is vae"):
        find_baseline(folder, [vae])
    accept(folder, (ddpm.run_id, None))
    assert run_of(find_baseline(folder, [vae])) == ddpm.run_id  # one model under another name


def test_beside_other_baselines_a_replaced_model_has_the_one_in_its_place(make, save):
    runs = [make.run(make.score(), day=day, model=name) for day, name in enumerate(("a", "b", "c", "d"), 1)]
    folder, ids = save(*runs), [run.run_id for run in runs]
    accept(folder, (ids[0], None), (ids[2], ids[0]), (ids[3], ids[2]), (ids[1], None))
    assert run_of(find_baseline(folder, [make.run(make.score(), day=9, model="a")])) == ids[3]
    assert run_of(find_baseline(folder, [make.run(make.score(), day=9, model="b")])) == ids[1]


def test_what_no_file_can_be_named_is_not_there(make):
    name = "x" * 300
    with pytest.raises(NothingMeasuredError, match="no baseline at"):
        find_baseline(name, [make.run()])
    with pytest.raises(NothingMeasuredError, match="no candidate at"):
        find_candidate(name)


def test_an_empty_name_is_not_the_folder_one_is_in(make):
    with pytest.raises(UsageError, match="the baseline is empty"):
        find_baseline("", [make.run()])
    with pytest.raises(UsageError, match="the candidate is empty"):
        find_candidate("")


def test_the_accepted_baseline_may_be_the_candidate(make, save):
    candidate = make.run(make.score())
    folder = save(candidate)
    accept(folder, (candidate.run_id, None))
    found = find_baseline(folder, [candidate])
    assert run_of(found) == candidate.run_id
    assert found.notes == ("the candidate is itself the accepted baseline",)


BAD_LOGS = {
    '{"run_id": "gone"}': (NothingMeasuredError, "gone is not in"),
    "": (NothingMeasuredError, "no baseline was accepted"),
    '{"run_id": 3}': (InvalidInputError, "line 1: it does not say which run"),
    '{"run": "x"}': (InvalidInputError, "line 1: it does not say which run"),
    '{"run_id": "x", "old_run_id": 3}': (InvalidInputError, "line 1"),
    "[]": (InvalidInputError, "line 1"),
    '{"run_id": "x"}\n{"run_id": ': (InvalidInputError, "line 2: not valid JSON"),
}


@pytest.mark.parametrize("text", BAD_LOGS)
def test_a_broken_log_of_acceptances_is_told(make, save, text):
    folder = save(make.run(make.score()))
    (folder / ACCEPTED).write_text(text)
    error, message = BAD_LOGS[text]
    with pytest.raises(error, match=message) as caught:
        find_baseline(folder, [make.run(day=2)])
    assert caught.value.hint


def test_a_baseline_that_is_not_there(make, tmp_path):
    for ref in ("nothing.json", "nothing", "nothing.csv#ddpm", "a#b"):
        with pytest.raises(NothingMeasuredError, match="no baseline at") as caught:
            find_baseline(str(tmp_path / ref), [make.run()])
        assert "scores.csv#model" in (caught.value.hint or "")


def test_a_file_whose_name_has_a_hash_is_itself(make, tmp_path):
    record = make.run(make.score())
    record.write(tmp_path / "a#1.json")
    assert run_of(find_baseline(str(tmp_path / "a#1.json"), [make.run(day=2)])) == record.run_id


COLUMNS = [
    "schema_version", "board", "dataset", "split", "resolution_px", "protocol", "fingerprint",
    "model_id", "model_revision", "model_sha256", "family", "n_params", "metric", "variant",
    "direction", "value", "unit", "se", "ci_low", "ci_high", "ci_method", "value_bias_corrected",
    "n_gen", "n_ref", "seed_first", "seed_last", "sampler", "nfe", "guidance_scale", "run_id",
    "date_utc", "evalkit_version", "torch_version", "device", "dtype", "trust", "source_url", "notes",
]  # fmt: skip


def row_of(**cells):
    reach = 0.1 * float(student_t.ppf(0.975, 19))
    default = {
        "fingerprint": "f" * 64, "model_id": "ddpm", "model_sha256": "a" * 64, "n_params": 7,
        "metric": "kd:lite",
        "variant": "block", "direction": "lower", "value": 2.0, "se": 0.1, "ci_low": 2 - reach,
        "ci_high": 2 + reach, "ci_method": "jackknife-t", "n_gen": 1024, "seed_first": 0, "seed_last": 1023,
        "sampler": "ddim", "nfe": 20, "guidance_scale": 1.0, "run_id": "r1",
        "date_utc": "2026-01-01T00:00:00Z",
        "notes": "a, \"b\"",
    }  # fmt: skip
    return dict.fromkeys(COLUMNS, "") | default | cells


@pytest.fixture
def board(tmp_path):
    """Write rows as a leaderboard's CSV."""

    def write(*rows):
        path = tmp_path / "scores.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def test_a_row_of_a_leaderboard_is_a_baseline_without_blocks(make, board):
    path = board(
        row_of(),
        row_of(metric="throughput", variant="offline", direction="higher", value=50.0, unit="img/s", se="",
               ci_low="", ci_high="", ci_method="", device="cpu", dtype="float32"),
    )  # fmt: skip
    found = find_baseline(f"{path}#ddpm", [make.run()])
    assert (found.side.model, found.side.run_id, found.side.fingerprint) == ("ddpm", "r1", "f" * 64)
    assert (found.side.source, found.side.seeds, found.records) == (f"{path}#ddpm", "0..1023", ())
    assert found.identity == identity(make.run())
    kd, speed, nfe, parameters = found.quantities
    assert (kd.metric, kd.variant, kd.value, kd.se, kd.n, kd.loo) == ("kd:lite", "block", 2.0, 0.1, 1024, ())
    assert kd.degrees == 19  # from the width of its interval
    assert (speed.metric, speed.variant, speed.value, speed.se, speed.n) == ("throughput", "", 50.0, None, 0)
    assert dict(speed.conditions) == {"device": "cpu", "dtype": "float32", "scenario": "offline"}
    assert (nfe.metric, nfe.value, parameters.metric, parameters.value) == ("nfe", 20.0, "n_params", 7.0)


def test_a_real_leaderboard_says_what_its_record_says(make, tmp_path):
    from evalkit.leaderboard.entries import EntryFile
    from evalkit.leaderboard.storage import Stored
    from evalkit.leaderboard.tidy import scores_csv

    reach = 0.1 * float(student_t.ppf(0.975, 15))
    record = make.run(
        make.score("kd:lite", 2.0, 0.1, ci=Interval(2 - reach, 2 + reach)),
        make.score("is:lite", 1 / 3, direction="higher"),
        performance=(make.speed(peak_memory_bytes=5, parameters=7, nfe=20, flops_per_image=11),),
    )
    path = tmp_path / "scores.csv"
    path.write_text(scores_csv("test", [Stored(record=record, entry=EntryFile(run_id=record.run_id))]))
    row = find_baseline(f"{path}#ddpm", [record])
    assert row.side.fingerprint == record.protocol.fingerprint
    assert row.identity == identity(record)
    whole = {(q.metric, q.variant): replace(q, loo=(), sizes=()) for q in quantities(record)}
    read = {(q.metric, q.variant): q for q in row.quantities}
    assert read.keys() == whole.keys()
    for key, quantity in read.items():
        assert replace(quantity, conditions=()) == replace(whole[key], conditions=())
        told = {name for name, _ in quantity.conditions}
        assert set(quantity.conditions) <= set(whole[key].conditions)
        assert told == ({"device", "dtype", "scenario"} if whole[key].conditions else set())


def test_of_several_runs_of_a_model_the_newest_comparable_counts_and_it_is_said(make, board):
    candidate = make.run()
    same = candidate.protocol.fingerprint
    path = board(
        row_of(fingerprint=same, run_id="r1", value=1.0),
        row_of(fingerprint=same, run_id="r2", value=2.0, date_utc="2026-01-03T00:00:00Z"),
        row_of(run_id="r3", value=3.0, date_utc="2026-01-05T00:00:00Z"),
        row_of(fingerprint=same, run_id="r4", model_id="gan", date_utc="2026-01-09T00:00:00Z"),
    )
    found = find_baseline(f"{path}#ddpm", [candidate])
    assert run_of(found) == "r2"
    assert [q.value for q in found.quantities if q.metric == "kd:lite"] == [2.0]
    assert found.notes == (f"{path} has 2 runs of ddpm; the baseline is the newest: r2",)
    other = make.run(fields={"num_images": 7})
    assert run_of(find_baseline(f"{path}#ddpm", [other])) == "r3"  # to show that the fingerprint differs


def test_a_leaderboard_needs_a_model_and_one_that_it_has(make, board):
    path = board(row_of(), row_of(model_id="gan", run_id="r2"))
    for ref in (str(path), f"{path}#"):
        with pytest.raises(UsageError, match="holds many models") as caught:
            find_baseline(ref, [make.run()])
        assert "#" in (caught.value.hint or "")
    with pytest.raises(NothingMeasuredError, match="has no model 'dpm'") as caught:
        find_baseline(f"{path}#dpm", [make.run()])
    assert caught.value.hint == "did you mean 'ddpm'?"


BAD_ROWS = {
    "value": ("nan", "is 'nan', not a finite number"),
    "se": ("-0.1", "an error bar below 0"),
    "ci_low": ("x", "ci_low of r1 is 'x'"),
    "direction": ("down", "has no value or no direction"),
    "seed_first": ("1e3", "a seed of r1 is not a whole number"),
    "n_gen": ("many", "n_gen of r1 is 'many'"),
    "nfe": ("inf", "nfe of r1 is 'inf'"),
}


@pytest.mark.parametrize("column", BAD_ROWS)
def test_a_row_that_cannot_be_is_invalid_input(make, board, column):
    text, message = BAD_ROWS[column]
    with pytest.raises(InvalidInputError, match=message):
        find_baseline(f"{board(row_of(**{column: text}))}#ddpm", [make.run()])


def test_a_row_without_a_value_is_invalid_input(make, board):
    with pytest.raises(InvalidInputError, match="has no value"):
        find_baseline(f"{board(row_of(value=''))}#ddpm", [make.run()])


def test_a_row_without_seeds_or_weights_has_no_identity(make, board):
    for column in ("model_sha256", "seed_first", "seed_last"):
        found = find_baseline(f"{board(row_of(**{column: ''}))}#ddpm", [make.run()])
        assert found.identity is None
        assert (found.side.seeds == "") == column.startswith("seed")


def test_files_that_are_no_leaderboard(make, tmp_path):
    path = tmp_path / "scores.csv"
    cases = {
        b"a,b\n1,2\n": (UsageError, "has no column 'model_id'"),
        b"": (UsageError, "has no column"),
        (",".join(COLUMNS) + "\n").encode(): (NothingMeasuredError, "has no rows"),
        (",".join(COLUMNS) + "\n1,2\n").encode(): (InvalidInputError, "row 2: not as many cells"),
        (",".join(COLUMNS) + "\n" + "x," * 50 + "\n").encode(): (
            InvalidInputError,
            "row 2: not as many cells",
        ),
        b"\xff\xfe": (InvalidInputError, "is not CSV in UTF-8"),
        (",".join(COLUMNS) + '\n"a"b,').encode(): (InvalidInputError, "is not CSV in UTF-8"),
    }
    for content, (error, message) in cases.items():
        path.write_bytes(content)
        with pytest.raises(error, match=message):
            find_baseline(f"{path}#ddpm", [make.run()])
