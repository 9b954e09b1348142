"""The paired pipeline end to end: values against scikit-image, resume, identity of runs, faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from evalkit.digests import file_sha256
from evalkit.errors import NothingMeasuredError
from evalkit.extraction import Interrupted
from evalkit.extractors.backbones import ALEXNET_TOPOLOGY
from evalkit.pairs.request import Outputs
from evalkit.record import RunRecord, schema


def values(record: RunRecord) -> dict[tuple[str, str], float]:
    return {(result.metric, result.variant): result.value for result in record.results}


def test_values_are_the_mean_and_standard_error_over_pairs(tmp_path, folders, tiles, evaluate):
    record = evaluate(*folders[:2])
    psnr = [peak_signal_noise_ratio(reference, generated) for generated, reference, _ in tiles]
    ssim = [
        structural_similarity(
            reference,
            generated,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for generated, reference, _ in tiles
    ]
    for result, expected in zip(record.results, (psnr, ssim), strict=True):
        # Rows are kept as float32.
        assert result.value == pytest.approx(np.mean(expected), rel=1e-6)
        assert result.se == pytest.approx(np.std(expected, ddof=1) / np.sqrt(len(expected)), rel=1e-5)
        assert result.variant == "whole"
        assert result.n_gen == len(tiles)
        assert result.blocks.count > 1
    assert [(result.metric, result.unit) for result in record.results] == [("psnr", "dB"), ("ssim", "")]
    assert record.status == "complete"
    assert RunRecord.read(tmp_path / "runs" / f"{record.run_id}.json") == record
    jsonschema.validate(record.to_json(), schema())
    assert record.model.family == "images"
    assert record.data.n_ref == len(tiles)


def test_regions_split_the_error(folders, tiles, evaluate):
    found = values(evaluate(*folders[:2], masks=folders[2], measures=("psnr",)))
    expected = {"inside": [], "outside": []}
    for generated, reference, mask in tiles:
        error = (generated.astype(float) - reference) ** 2
        expected["inside"].append(10 * np.log10(255**2 / error[mask].mean()))
        expected["outside"].append(10 * np.log10(255**2 / error[~mask].mean()))
    for region, decibels in expected.items():
        assert found["psnr", region] == pytest.approx(np.mean(decibels), rel=1e-6)
    assert set(found) == {("psnr", "whole"), ("psnr", "inside"), ("psnr", "outside")}
    assert set(values(evaluate(*folders[:2], masks=folders[2], regions=("inside",)))) == {
        ("psnr", "inside"),
        ("ssim", "inside"),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_moves_no_score(tmp_path, folders, evaluate, batch_size):
    names = ("psnr", "ssim", "pd", "style")
    expected = values(evaluate(*folders[:2], measures=names, num_samples=6))
    got = values(
        evaluate(*folders[:2], measures=names, num_samples=6, batch_size=batch_size, out=tmp_path / "b")
    )
    assert got == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}


def test_an_interrupted_run_continues_to_the_same_numbers(tmp_path, folders, evaluate):
    whole = evaluate(*folders[:2], out=tmp_path / "whole")
    arrived = iter([0, signal.SIGTERM])
    with pytest.raises(Interrupted) as caught:
        evaluate(*folders[:2], batch_size=8, stop=lambda: next(arrived, 0))
    assert caught.value.exit_code == 143
    (partial,) = [RunRecord.read(path) for path in (tmp_path / "runs").glob("*.json")]
    assert partial.status == "partial"
    assert len(list((tmp_path / "runs").rglob("*.safetensors"))) == 1
    resumed = evaluate(*folders[:2])
    assert values(resumed) == values(whole)
    assert resumed.protocol == whole.protocol


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from evalkit.pairs.evaluate import evaluate_pairs
from evalkit.pairs.request import Measuring, PairsRequest

class Suicidal:
    def note(self, text): pass
    @contextmanager
    def progress(self, title, total):
        done = []
        def advance(n):
            done.append(n)
            if sum(done) > 12:
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

out, truth, runs = map(Path, sys.argv[1:])
measuring = Measuring(measures=("psnr", "ssim"), out=runs, device="cpu", batch_size=4)
evaluate_pairs(PairsRequest(generated=out, reference=truth, measuring=measuring), console=Suicidal())
"""


def test_a_killed_run_leaves_whole_shards_only(tmp_path, folders, evaluate):
    command = [sys.executable, "-c", KILLED, *map(str, folders[:2]), str(tmp_path / "runs")]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "runs").rglob("*.safetensors"))) == 1
    (begun,) = (tmp_path / "runs").glob("*.json")
    assert RunRecord.read(begun).status == "started"
    (tmp_path / "runs" / f".{begun.name}.0123abcd.tmp").write_text("half a record")
    record = evaluate(*folders[:2])
    assert values(record) == values(evaluate(*folders[:2], out=tmp_path / "other"))
    left = [path.name for path in (tmp_path / "runs").iterdir() if path.name != "state"]
    assert left == [f"{record.run_id}.json"]


def test_containers_and_manifests_give_the_same_values(tmp_path, folders, evaluate):
    expected = values(evaluate(*folders[:2], masks=folders[2]))
    archives = []
    for folder in folders[:2]:
        archives.append(folder.with_suffix(".zip"))
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
    assert values(evaluate(*archives, masks=folders[2])) == expected
    rows = [
        {"edited": f"out/{p.name}", "target": f"truth/{p.name}", "mask": f"masks/{p.name}", "prompt": "x"}
        for p in sorted(folders[0].iterdir())
    ]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    record = evaluate(None, None, manifest=manifest)
    assert values(record) == expected
    assert record.protocol.fields["matching"] == "manifest"
    array = np.stack([np.asarray(Image.open(p)) for p in sorted(folders[0].iterdir())])
    np.savez(tmp_path / "out.npz", array)
    by_index = evaluate(tmp_path / "out.npz", folders[1])
    assert by_index.protocol.fields["matching"] == "index"
    assert values(by_index)["ssim", "whole"] == pytest.approx(expected["ssim", "whole"], rel=1e-12)


def test_the_fingerprint_is_the_protocol_and_not_the_subject(tmp_path, folders, evaluate):
    one = evaluate(*folders[:2])
    for path in folders[0].iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    other = evaluate(*folders[:2], batch_size=7, name="mirrored", out=tmp_path / "o")
    assert other.protocol.fingerprint == one.protocol.fingerprint
    assert values(other) != values(one)  # content, not paths: no state was reused
    assert other.model.sha256 != one.model.sha256
    changes = {
        "measures": ("psnr",),
        "num_samples": 10,
        "match": "index",
        "masks": folders[2],
    }
    for name, value in changes.items():
        changed = evaluate(*folders[:2], **{name: value})
        assert changed.protocol.fingerprint != one.protocol.fingerprint


def test_identical_pairs_are_left_out_of_psnr_and_said_so(folders, evaluate, tmp_path):
    (folders[0] / "03.png").write_bytes((folders[1] / "03.png").read_bytes())
    psnr, ssim = evaluate(*folders[:2]).results
    assert psnr.details["identical_pairs"] == 1
    assert any("identical" in warning for warning in psnr.warnings)
    assert not ssim.warnings
    record = evaluate(folders[1], folders[1], measures=())
    found = values(record)
    assert found["ssim", "whole"] == pytest.approx(1.0)
    assert found["pd:efficientnet-lite0", "whole"] == pytest.approx(0.0, abs=1e-6)
    assert ("psnr", "whole") not in found
    assert any("psnr" in warning for warning in record.warnings)
    with pytest.raises(NothingMeasuredError, match="identical"):
        evaluate(folders[1], folders[1], measures=("psnr",))


def test_a_pair_without_masked_pixels_is_left_out_and_counted(folders, evaluate):
    Image.new("L", (48, 40), 0).save(folders[2] / "00.png")
    found = {r.variant: r for r in evaluate(*folders[:2], masks=folders[2], measures=("psnr",)).results}
    assert found["inside"].details["pairs_without_region"] == 1
    assert found["outside"].details["pairs_without_region"] == 0
    for path in folders[2].iterdir():
        Image.new("L", (48, 40), 0).save(path)
    with pytest.raises(NothingMeasuredError):
        evaluate(*folders[:2], masks=folders[2], regions=("inside",))


def test_per_pair_values_and_worst_pairs(tmp_path, folders, evaluate):
    (folders[0] / "00.png").rename(folders[0] / "=00.png")
    (folders[1] / "00.png").rename(folders[1] / "=00.png")
    csv, parquet, sheet = (tmp_path / name for name in ("v.csv", "v.parquet", "worst.png"))
    record = evaluate(
        *folders[:2], outputs=Outputs(per_pair=csv, worst=sheet, worst_by="ssim", worst_count=5)
    )
    evaluate(*folders[:2], outputs=Outputs(per_pair=parquet))
    table, same = pd.read_csv(csv), pd.read_parquet(parquet)
    assert list(table.columns) == ["index", "generated", "reference", "psnr", "ssim"]
    assert table["generated"].tolist() == [n.replace("=", "'=") for n in same["generated"]]
    assert "'=00.png" in table["generated"].tolist()
    for result in record.results:
        assert table[result.metric].mean() == pytest.approx(result.value, rel=1e-6)
        np.testing.assert_allclose(table[result.metric], same[result.metric], rtol=1e-6)
    with Image.open(sheet) as image:
        assert image.width > 3 * 192


def test_weights_that_are_not_published_are_in_the_label(tmp_path, folders, evaluate):
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator) * 0.05
        for name, shape in ALEXNET_TOPOLOGY.layout().items()
    }
    torch.save(state, tmp_path / "random.pth")
    digest = file_sha256(tmp_path / "random.pth")[:8]
    record = evaluate(
        *folders[:2], measures=("lpips",), num_samples=4, weights={"alexnet": tmp_path / "random.pth"}
    )
    (lpips,) = record.results
    assert lpips.metric == f"lpips:alex@{digest}"
    assert lpips.direction == "lower"
    assert lpips.value > 0
