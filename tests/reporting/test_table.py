"""Score tables and comparison tables: order, marks, footnotes, refusal to mix, no heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from evalkit.errors import NothingMeasuredError
from evalkit.reporting.formatting import to_ascii
from evalkit.reporting.table import comparison_table, render, score_table
from evalkit.spec import Interval

SMALL = "small sample: 1 024 images for 1 280 dimensions"


def column(table, title):
    (position,) = [i for i, c in enumerate(table.columns) if c.title.startswith(title)]
    return [row[position] for row in table.rows]


def texts(cells):
    return [cell.text for cell in cells]


def test_comparison_sorts_by_the_first_metric_and_marks_the_best(three):
    table = comparison_table(three)
    assert texts(column(table, "model")) == ["ddpm", "gan", "vae"]
    assert texts(column(table, "fd:lite")) == ["20.00 ± 0.50", "30.00 ± 0.50", "50.00 ± 0.50"]
    assert [cell.best for cell in column(table, "fd:lite")] == [True, False, False]
    assert [cell.best for cell in column(table, "is:lite")] == [True, False, False]
    assert [cell.best for cell in column(table, "images/s")] == [False, False, True]
    assert [cell.best for cell in column(table, "ms/image")] == [False, False, True]
    assert [cell.best for cell in column(table, "NFE")] == [False, True, True]
    assert texts(column(table, "params")) == ["50k", "1k", "1k"]
    assert texts(column(table, "family")) == ["diffusion", "gan", "vae"]


def test_the_order_of_records_does_not_matter(three):
    assert comparison_table(three) == comparison_table(three[::-1])


def test_sorting_follows_the_better_direction(make):
    records = [make.record(str(v), make.result("is", v, direction="higher")) for v in (1.0, 3.0, 2.0)]
    table = comparison_table(records)
    assert texts(column(table, "model")) == ["3.0", "2.0", "1.0"]
    assert "↑" in table.columns[2].title


def test_a_missing_metric_goes_last_and_shows_a_dash(make):
    records = [make.record("b", make.result("fd", 2.0)), make.record("a", make.result("kd", 1.0))]
    table = comparison_table(records)
    assert texts(column(table, "model")) == ["b", "a"]
    assert texts(column(table, "fd")) == ["2.000", "—"]
    assert table.data[1]["fd"] is None


def test_a_single_value_is_not_the_best_of_anything(make):
    table = comparison_table([make.record("a", make.result("fd", 2.0))])
    assert not any(cell.best for row in table.rows for cell in row)
    assert table.title.startswith("1 model on")


def test_data_holds_unrounded_numbers_with_intervals(three):
    row = comparison_table(three).data[0]
    assert row["fd:lite"] == 20.0
    assert row["fd:lite_se"] == 0.5
    assert (row["fd:lite_ci_low"], row["fd:lite_ci_high"]) == (19.0, 21.0)
    assert (row["images_per_second"], row["ms_per_image"], row["nfe"], row["n_params"]) == (
        10.0,
        100.0,
        50,
        50_000,
    )
    assert row["fingerprint"] == three[0].protocol.fingerprint
    assert json.loads(render(comparison_table(three), "json"))[0] == dict(row)


def test_small_samples_put_the_kernel_distance_first(make):
    def record(name, fd, kd, warnings):
        return make.record(
            name, make.result("fd:x", fd, 0.1, warnings=warnings), make.result("kd:x", kd, 0.001)
        )

    records = [record("a", 1.0, 0.2, [SMALL]), record("b", 2.0, 0.1, [])]
    table = comparison_table(records)
    assert [c.title for c in table.columns[2:4]] == ["kd:x ↓", "fd:x ↓"]
    assert texts(column(table, "model")) == ["b", "a"]
    assert [cell.marks for cell in column(table, "fd:x")] == ["", " *"]
    assert table.notes == (("*", SMALL),)
    calm = comparison_table([record("a", 1.0, 0.2, []), record("b", 2.0, 0.1, [])])
    assert [c.title for c in calm.columns[2:4]] == ["fd:x ↓", "kd:x ↓"]


def test_small_samples_put_the_kernel_distance_first_in_one_run_too(make):
    for warnings, first in (([SMALL], "kd:x ↓"), ([], "fd:x ↓")):
        record = make.record(
            "a", make.result("fd:x", 1.0, 0.1, warnings=warnings), make.result("kd:x", 0.2, 0.001)
        )
        assert score_table(record).rows[0][0].text == first


def test_other_warnings_do_not_reorder(make):
    records = [
        make.record("a", make.result("fd", 1.0, warnings=["odd"]), make.result("kd", 1.0, warnings=[SMALL]))
    ]
    table = comparison_table(records)
    assert [c.title for c in table.columns[2:4]] == ["fd ↓", "kd ↓"]
    assert table.notes == (("[1]", "odd"), ("[2]", SMALL))


def test_footnotes_are_deduplicated(make):
    records = [
        make.record(name, make.result("fd", v, warnings=["same", f"only {name}"]), warnings=("same",))
        for name, v in (("a", 1.0), ("b", 2.0))
    ]
    table = comparison_table(records)
    assert table.notes == (("[1]", "same"), ("[2]", "only a"), ("[3]", "only b"))
    assert [cell.marks for cell in column(table, "fd")] == [" [1] [2]", " [1] [3]"]
    assert [cell.marks for cell in column(table, "model")] == [" [1]", " [1]"]
    assert table.data[0]["warnings"] == "same; only a"


@pytest.mark.parametrize(("gap", "close"), [(1.0, True), (2.0, False)])
def test_a_close_call_is_said(make, gap, close):
    records = [
        make.record("a", make.result("fd", 10.0, 0.5)),
        make.record("b", make.result("fd", 10.0 + gap, 0.5)),
    ]
    assert any("Close call: a, b" in fact for fact in comparison_table(records).facts) is close


def test_variants_are_named_only_where_they_tell_columns_apart(make):
    both = make.record("a", make.result("fd", 1.0, variant="x"), make.result("fd", 2.0, variant="y"))
    assert [c.title for c in comparison_table([both]).columns[2:]] == ["fd/x ↓", "fd/y ↓"]
    assert texts(column(score_table(both), "metric")) == ["fd ↓ (x)", "fd ↓ (y)"]
    one = make.record("a", make.result("fd", 1.0, variant="block"))
    assert [c.title for c in comparison_table([one]).columns[2:]] == ["fd ↓"]
    assert texts(column(score_table(one), "metric")) == ["fd ↓"]


def test_one_extractor_is_named_once_on_the_terminal(three, make):
    table = comparison_table(three)
    assert table.title.endswith("features lite")
    assert [c.short for c in table.columns[2:4]] == ["fd ↓", "is ↑"]
    # The name of the published FID is never cut short.
    clean = comparison_table([make.record("a", make.result("fid:clean-fid", 1.0))])
    assert clean.columns[2].short == "fid:\nclean-fid ↓"


def test_one_model_twice_is_told_apart_by_run(make):
    records = [
        make.record("a", make.result("fd", v), run_id=f"20260131T120000.00000{i}Z-0000000{i}")
        for i, v in enumerate((1.0, 2.0))
    ]
    assert texts(column(comparison_table(records), "model")) == ["a (0000)", "a (0001)"]


def test_speeds_of_different_devices_are_not_ranked(make):
    records = [
        make.record(device, make.result("fd", v), performance=[make.performance(throughput=v, device=device)])
        for device, v in (("cpu", 1.0), ("cuda", 2.0))
    ]
    table = comparison_table(records)
    assert not any(cell.best for cell in column(table, "images/s"))
    assert any("different devices (cpu, cuda)" in fact for fact in table.facts)


def test_latency_prefers_one_image_at_a_time_and_speed_prefers_offline(make):
    performances = [
        make.performance(throughput=100.0, latency_p50_ms=10.0),
        make.performance(throughput=200.0, latency_p50_ms=None),
        make.performance(scenario="single-stream", throughput=300.0, latency_p50_ms=33.0),
    ]
    row = comparison_table([make.record("a", make.result("fd", 1.0), performance=performances)]).data[0]
    assert (row["images_per_second"], row["ms_per_image"]) == (200.0, 33.0)


def test_only_speeds_make_a_table_too(make):
    table = comparison_table([make.record("a", performance=[make.performance()])])
    assert [c.title for c in table.columns] == ["model", "family", "images/s ↑", "ms/image ↓"]


def test_nothing_to_compare(make):
    for records in ([], [make.record("a")]):
        with pytest.raises(NothingMeasuredError) as caught:
            comparison_table(records)
        assert caught.value.exit_code == 5


def test_score_table(make):
    record = make.record(
        "ddpm",
        make.result("fd:lite", 52.3456, 0.8, warnings=[SMALL], bias_corrected=49.98765),
        make.result("is", 5.0123, direction="higher", unit="nats"),
        performance=[
            make.performance(
                nfe=50,
                parameters=35_713_027,
                flops_per_image=1.2e9,
                peak_memory_bytes=2**30,
                energy_per_image_joule=2.5,
            )
        ],
    )
    table = score_table(record)
    assert table.title == "ddpm (diffusion) · cifar10/train · protocol embedded"
    assert [c.title for c in table.columns] == [
        "metric",
        "value",
        "95 % interval",
        "bias-corrected",
        "N",
        "notes",
    ]
    assert texts(table.rows[0]) == ["fd:lite ↓", "52.35 ± 0.80", "[50.75, 53.95]", "49.99", "1,024", "*"]
    assert texts(table.rows[1]) == ["is ↑", "5.012 nats", "—", "—", "1,024", ""]
    assert table.legend == (
        "↓ lower is better, ↑ higher is better; ± jackknife standard error; [low, high] 95 % interval"
    )
    speed = next(fact for fact in table.facts if fact.startswith("Speed"))
    for part in ("10 images/s on cpu", "35.7M parameters", "1.2 GFLOPs", "1 GiB", "2.5 J", "100 ms/image"):
        assert part in speed
    assert table.data[0]["bias_corrected"] == 49.98765
    assert table.data[1]["ci_low"] is None


def test_score_table_shows_the_warnings_of_the_record(make):
    table = score_table(make.record("a", make.result("fd", 1.0), warnings=("3 images were rejected",)))
    assert table.notes == (("[1]", "3 images were rejected"),)


def test_score_table_of_nothing(make):
    with pytest.raises(NothingMeasuredError, match="no score"):
        score_table(make.record("a"))


def test_the_standard_metrics_fit_in_one_hundred_columns(make):
    names = [
        ("fid", "lower"),
        ("kid", "lower"),
        ("is", "higher"),
        ("precision", "higher"),
        ("recall", "higher"),
    ]
    records = [
        make.record(
            m, *(make.result(n, 0.512 + i, 0.012, direction=d) for n, d in names), sampling=make.sampling(50)
        )
        for i, m in enumerate(("org/a-rather-long-model-name", "b"))
    ]
    for form in (comparison_table(records), score_table(records[0])):
        assert max(map(len, render(form, "table").splitlines())) <= 100


def test_imports_are_light():
    code = (
        "import sys, evalkit.record, evalkit.reporting.table, evalkit.cli.compare;"
        "print([m for m in ('torch', 'pandas', 'numpy', 'scipy', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_error_bars_say_which_kind_they_are(make):
    mean = Interval(0.9, 1.1, method="mean-t")
    psnr, ssim = (replace(make.result(n, 1.0, 0.05), ci=mean) for n in ("psnr", "ssim"))
    jackknife = make.result("fd", 1.0, 0.1)
    assert "; ± standard error of the mean; [" in score_table(make.record("a", psnr, ssim)).legend
    both = score_table(make.record("a", jackknife, psnr, ssim)).legend
    assert "± jackknife standard error (psnr, ssim: standard error of the mean)" in both
    assert "of the mean" not in score_table(make.record("a", jackknife)).legend


def test_a_column_without_any_value_is_left_out(make):
    table = score_table(make.record("a", make.result("psnr", 1.0, 0.1), make.result("ssim", 1.0, 0.1)))
    assert [c.title for c in table.columns] == ["metric", "value", "95 % interval", "N", "notes"]
    assert texts(table.rows[0])[3] == "1,024"
    assert table.data[0]["bias_corrected"] is None


def test_a_region_is_always_named(make):
    inside, whole = (make.result("ssim", 0.9, direction="higher", variant=v) for v in ("inside", "whole"))
    assert texts(score_table(make.record("a", inside)).rows[0])[0] == "ssim ↑ (inside)"
    assert texts(score_table(make.record("a", whole)).rows[0])[0] == "ssim ↑"
    assert comparison_table([make.record("a", inside)]).columns[2].title == "ssim/inside ↑"
    both = score_table(make.record("a", whole, inside))
    assert [texts(row)[0] for row in both.rows] == ["ssim ↑ (whole)", "ssim ↑ (inside)"]


@pytest.mark.parametrize(
    ("label", "variant", "shown"),
    [
        ("fd:efficientnet-lite0", "block", False),  # the head of the protocol
        ("fd:efficientnet-lite0", "pooled", True),
        ("fd-infinity:efficientnet-lite0", "block", False),  # not of the protocol, but on its head
        ("fd:dinov2", "cls", False),
        ("fd:inception-v3/192", "192", False),
        ("ppl:lpips-vgg", "ppl2_zend", True),
        ("accuracy:cifar10", "cifar10", False),
        ("accuracy:cifar10", "cifar10-top5", True),
        ("accuracy:efficientnet-lite0", "cifar10", True),
        ("ssim", "whole", False),
        ("ssim", "outside", True),
        ("fd", "", False),
    ],
)
def test_a_variant_is_shown_where_the_label_does_not_imply_it(make, label, variant, shown):
    heads = ("block", "pooled", "cls", "192", "distance", "ssim/outside")
    fields = {"metrics": [{"name": "fd", "head": head} for head in heads]}
    record = make.record("a", make.result(label, 1.0, variant=variant), fields=fields)
    row, title = texts(column(score_table(record), "metric")), comparison_table([record]).columns[2].title
    assert row == [f"{label} ↓ ({variant})" if shown else f"{label} ↓"]
    assert title == (f"{label}/{variant} ↓" if shown else f"{label} ↓")


def test_a_record_that_names_no_heads_shows_no_variant(make):
    record = make.record("a", make.result("fd", 1.0, variant="x"), fields={"metrics": "unknown"})
    assert texts(column(score_table(record), "metric")) == ["fd ↓"]


def predicted(value, at=("inf", 50_000)):
    parts = (("", 0.0), ("_stderr", None), ("_low", -2.0), ("_high", 2.0))
    return {f"predicted_{n}{end}": 1.0 if add is None else value + add for n in at for end, add in parts}


def test_predictions_are_rows_below_the_score(make):
    record = make.record(
        "a", make.result("fd", 9.0, 0.5, bias_corrected=5.0, details=predicted(5.0)), make.result("kd", 1.0)
    )
    table = score_table(record)
    assert [texts(row) for row in table.rows] == [
        ["fd ↓", "9.00 ± 0.50", "[8.00, 10.00]", "5.00", "1,024", ""],
        ["  predicted, N = 50,000", "5.0 ± 1.0", "[3.0, 7.0]", "", "", ""],
        ["  predicted, N = ∞", "5.0 ± 1.0", "[3.0, 7.0]", "", "", ""],
        ["kd ↓", "1.000", "—", "—", "1,024", ""],
    ]
    first, second = table.data
    assert (first["predicted_50000"], first["predicted_50000_low"], first["predicted_inf"]) == (5.0, 3.0, 5.0)
    assert (second["predicted_50000"], list(second)) == (None, list(first))
    assert "predicted_50000_stderr" in render(table, "csv").splitlines()[0].split(",")
    assert "predicted, N = inf" in to_ascii(render(table, "table"))
    for width in (80, 100, 120):
        assert max(map(len, render(table, "table", width=width).splitlines())) <= width


def test_nothing_predicted_adds_nothing(make):
    record = make.record("a", make.result("fd", 9.0, 0.5, details={"predicted_note": 1.0, "std": 2.0}))
    assert len(score_table(record).rows) == 1
    assert not [name for name in score_table(record).data[0] if "predicted" in name]


def test_an_interval_that_is_not_known_is_a_dash(make):
    record = make.record("a", make.result("fd", 9.0, 0.5, details={"predicted_100": 7.0}))
    assert texts(score_table(record).rows[1])[:3] == ["  predicted, N = 100", "7.000", "—"]


def test_comparisons_tell_what_was_predicted(make):
    records = [
        make.record("b", make.result("fd", 9.0, 0.5, details=predicted(5.0, at=[50_000]))),
        make.record("a", make.result("fd", 8.0, 0.5, details=predicted(4.0, at=[50_000]))),
        make.record("c", make.result("fd", 10.0, 0.5)),
    ]
    table = comparison_table(records)
    assert "Predicted fd at N = 50,000: a 4.0 ± 1.0, b 5.0 ± 1.0." in table.facts
    assert [row["fd_predicted_50000"] for row in table.data] == [4.0, 5.0, None]
    assert render(table, "csv").count("\n") == 4
