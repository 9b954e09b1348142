"""Everything that a request refuses says what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import UsageError
from evalkit.generators import SamplingOptions
from evalkit.request import ScoreRequest

_IMAGES = {"images": Path("x")}
_MODEL = {"model": "vae"}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {**_IMAGES, **_MODEL},
        {**_MODEL, "translate": True},
        {**_MODEL, "strict": True, "precision": "fast"},
        {**_MODEL, "seed": -1},
        {**_MODEL, "num_samples": 0},
        {**_MODEL, "batch_size": 0},
        {**_MODEL, "report_at": 0},
        {**_IMAGES, "sampling": SamplingOptions(steps=3)},
        {**_IMAGES, "ckpt": Path("y")},
        {**_IMAGES, "preset": "z"},
        {**_IMAGES, "checkpoint_weights": "raw"},
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(asked):
    with pytest.raises(UsageError) as caught:
        ScoreRequest(**asked).check()
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_what_can_work_is_not():
    ScoreRequest(**_MODEL).check()
    ScoreRequest(**_IMAGES, num_samples=3, seed=2).check()
