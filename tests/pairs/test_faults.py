"""What is refused, left out or counted before a score is made of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.errors import InvalidInputError, UsageError
from evalkit.pairs import measures
from evalkit.pairs.request import Outputs
from evalkit.record import RunRecord
from evalkit.sources import DecodePolicy
from evalkit.spec import Spec
from evalkit.subjects import ImageOptions


def values(record: RunRecord) -> dict[tuple[str, str], float]:
    return {(result.metric, result.variant): result.value for result in record.results}


def test_unmatched_images(folders, evaluate):
    (folders[0] / "07.png").unlink()
    with pytest.raises(InvalidInputError, match=r"1 reference image has no generated .*:\n  '07"):
        evaluate(*folders[:2])
    record = evaluate(*folders[:2], allow_unmatched=True)
    assert record.protocol.fields["unmatched_images"] == [0, 1]
    assert any("1 reference" in warning for warning in record.warnings)
    assert record.inputs.used == 19


@pytest.mark.fault("mixed-sizes")
def test_different_sizes_are_refused_and_named(folders, evaluate):
    Image.open(folders[0] / "09.png").resize((24, 20)).save(folders[0] / "09.png")
    with pytest.raises(InvalidInputError, match=r"'09.png' is 24 x 20, its reference '09.png' 48") as caught:
        evaluate(*folders[:2])
    assert "resize" in (caught.value.hint or "")


def test_a_bad_image_takes_its_partner_with_it(folders, evaluate, tmp_path):
    (folders[1] / "04.png").write_bytes(b"no picture")
    (folders[0] / "11.png").write_bytes((folders[0] / "11.png").read_bytes()[:200])
    with pytest.raises(InvalidInputError, match="cannot be used"):
        evaluate(*folders[:2])
    with pytest.raises(InvalidInputError, match="2 of 20"):
        evaluate(*folders[:2], image_options=ImageOptions(on_bad="skip", max_bad=1))
    skip = ImageOptions(on_bad="skip", max_bad=2)
    record = evaluate(*folders[:2], image_options=skip)
    assert (record.inputs.found, record.inputs.used, len(record.inputs.rejected)) == (20, 18, 2)
    for match in ("name", "index"):  # by index, the images behind the bad ones keep their partners
        assert values(evaluate(*folders[:2], image_options=skip, match=match)) == values(record)


def test_transparency_is_refused_unless_decided(folders, evaluate):
    image = Image.open(folders[0] / "02.png").convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(folders[0] / "02.png")
    with pytest.raises(InvalidInputError, match="transparent"):
        evaluate(*folders[:2])
    white = ImageOptions(policy=DecodePolicy(alpha="white"))
    black = ImageOptions(policy=DecodePolicy(alpha="black"))
    assert values(evaluate(*folders[:2], image_options=white)) != values(
        evaluate(*folders[:2], image_options=black)
    )


@pytest.mark.fault("sixteen-bit-gray")
def test_a_sixteen_bit_image_equals_its_eight_bits(tmp_path, evaluate):
    ramp = np.arange(64 * 32, dtype=np.uint16).reshape(32, 64) * 32
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    Image.fromarray(ramp).save(tmp_path / "a" / "x.png")
    eight = ((ramp.astype(np.uint32) + 128) // 257).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "b" / "x.png")
    (ssim,) = evaluate(tmp_path / "a", tmp_path / "b", measures=("ssim",)).results
    assert ssim.value == pytest.approx(1.0)
    assert ssim.se is None  # one pair


def test_outputs_that_could_not_be_written_are_refused_first(tmp_path, folders, evaluate):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for outputs in (
        Outputs(per_pair=tmp_path / "v.txt"),
        Outputs(worst=tmp_path / "w.jpg"),
        Outputs(worst_by="ssim"),
        Outputs(per_pair=folder),
        Outputs(worst=tmp_path / "w.png", worst_by="lpips"),
        Outputs(worst=tmp_path / "w.png", worst_count=0),
    ):
        with pytest.raises(UsageError):
            evaluate(*folders[:2], outputs=outputs)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"regions": ("inside",)},
        {"regions": ("middle",)},
        {"measures": ("psnrr",)},
        {"batch_size": 0},
        {"num_samples": 0},
        {"allow_outside": True},
        {"weights": {"alexnet": Path("nowhere.pth")}},
        {"image_options": ImageOptions(max_bad=3)},
    ],
)
def test_requests_that_cannot_work(folders, evaluate, fields):
    with pytest.raises(UsageError):
        evaluate(*folders[:2], **fields)


def test_more_pairs_than_there_are(folders, evaluate):
    with pytest.raises(InvalidInputError, match="20 pairs, fewer than the 21"):
        evaluate(*folders[:2], num_samples=21)


class BrokenMeasure:
    """A network with ruined weights."""

    names = ("pd-efficientnet-lite0",)
    spec = Spec.of("pair-measure", "pd-efficientnet-lite0")

    def __call__(self, generated, reference, *, masks):
        return {self.names[0]: torch.full((len(generated),), torch.nan)}


def test_a_measure_that_gives_nan_is_no_score(folders, evaluate, monkeypatch):
    monkeypatch.setattr(measures, "build_pair_measures", lambda *args, **kwargs: (BrokenMeasure(),))
    with pytest.raises(InvalidInputError, match=r"'pd-efficientnet-lite0' of '00.png' is not a"):
        evaluate(*folders[:2], measures=("pd",))
