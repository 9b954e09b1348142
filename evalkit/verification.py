"""Published numbers, measured again on this machine: does evalkit here agree with the literature?

    outcomes = verify(PUBLISHED, VerifyRequest())
    print([(o.check.name, o.status) for o in outcomes])

A check runs where its weights and images can be had; otherwise it says what is missing and where to get it.
Nothing is ever filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalkit.console import Console
from evalkit.errors import OfflineError, UsageError
from evalkit.evaluate import run
from evalkit.record import RunRecord
from evalkit.references import REGISTERED
from evalkit.registry import did_you_mean
from evalkit.request import ScoreRequest

Status = Literal["agrees", "DIFFERS", "not run"]
Runner = Callable[..., RunRecord]
_ADM_FILES = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A published file of images or statistics that the user brings: no digest of it is published."""

    key: str
    url: str


@dataclass(frozen=True, slots=True)
class Expected:
    """A published value and how far a right measurement may be from it.

    Attributes:
        metric: label of the result.
        tolerance: half the last published digit, or the rounding of another framework where that is larger.
    """

    metric: str
    value: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Published:
    """One published measurement: images against a reference, and the numbers that were printed.

    Attributes:
        images: a registered data set, or a file that the user brings.
        reference: likewise; None where no metric compares.
        source: where the numbers were published.
    """

    name: str
    title: str
    source: str
    images: str | DataFile
    reference: str | DataFile | None
    protocol: str
    num_samples: int
    metrics: tuple[str, ...]
    expected: tuple[Expected, ...]


PUBLISHED: tuple[Published, ...] = (
    Published(
        name="cifar10-test-fid",
        title="CIFAR-10, 10 000 test images against the 50 000 training images",
        source="Heusel et al. 2017, code of TTUR",
        images="cifar10-test",
        reference="cifar10",
        protocol="standard",
        num_samples=10_000,
        metrics=("fid",),
        expected=(Expected("fid", 3.1508, 0.005),),
    ),
    Published(
        name="cifar10-train-is",
        title="Inception score of the 50 000 CIFAR-10 training images",
        source="Salimans et al. 2016, table 3",
        images="cifar10",
        reference=None,
        protocol="standard",
        num_samples=50_000,
        metrics=("is",),
        expected=(Expected("is", 11.24, 0.02),),
    ),
    Published(
        name="adm-imagenet256",
        title="ADM, guided and upsampled, 50 000 samples of ImageNet 256x256",
        source="README of the evaluator of guided-diffusion (Dhariwal & Nichol 2021)",
        images=DataFile("adm-samples", _ADM_FILES + "admnet_guided_upsampled_imagenet256.npz"),
        reference=DataFile("adm-reference", _ADM_FILES + "VIRTUAL_imagenet256_labeled.npz"),
        protocol="adm",
        num_samples=50_000,
        metrics=(),
        expected=(
            Expected("is", 215.837, 0.5),
            Expected("fid", 3.9426, 0.01),
            Expected("sfid", 6.1404, 0.02),
            Expected("precision", 0.8265, 0.002),
            Expected("recall", 0.5309, 0.002),
        ),
    ),
)
"""What is checked; a tolerance covers the published rounding and float32 convolutions of other frameworks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What the user has: ``files`` by key of a :class:`DataFile`, ``weights`` by extractor."""

    files: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    out: Path = Path("evalkit-runs")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check went; ``measured`` by metric label, ``missing`` why it did not run."""

    check: Published
    status: Status
    measured: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""


def select_checks(names: Sequence[str]) -> tuple[Published, ...]:
    """Return the checks called ``names``, all where empty.

    Raises:
        UsageError: there is no such check.
    """
    known = {check.name: check for check in PUBLISHED}
    for name in names:
        if name not in known:
            raise UsageError(f"no check {name!r}", hint=did_you_mean(name, known))
    return tuple(known[name] for name in names) or PUBLISHED


def verify(
    checks: Sequence[Published],
    request: VerifyRequest,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    runner: Runner = run,
) -> tuple[Outcome, ...]:
    """Measure each check that can be measured here.

    Args:
        checks: what to check.
        request: files and weights at hand.
        console: told of progress.
        stop: number of a signal that arrived, or 0.
        runner: scores one request; tests replace it.

    Raises:
        UsageError: a file's key is not that of any check.
        EvalkitError: a measurement failed for another reason than something missing.
    """
    keys = {part.key for check in PUBLISHED for part in _files(check)}
    for key in request.files:
        if key not in keys:
            raise UsageError(f"no check needs a file {key!r}", hint=did_you_mean(key, keys))
    return tuple(_verify_one(check, request, console=console, stop=stop, runner=runner) for check in checks)


def _verify_one(
    check: Published, request: VerifyRequest, *, console: Console, stop: Callable[[], int], runner: Runner
) -> Outcome:
    missing = [
        f"{part.key}: get {part.url} and give it as --file {part.key}=PATH"
        for part in _files(check)
        if part.key not in request.files
    ]
    try:
        if not missing:
            _open_data_sets(check)
            record = runner(_score_request(check, request), console=console, stop=stop)
            return _compared(check, record)
    except OfflineError as error:
        missing = [f"{error.message} ({error.hint})" if error.hint else error.message]
    return Outcome(check, "not run", missing="; ".join(missing))


def _files(check: Published) -> list[DataFile]:
    return [part for part in (check.images, check.reference) if isinstance(part, DataFile)]


def _open_data_sets(check: Published) -> None:
    """Ask for the data before the network is loaded, so that what is missing is said at once."""
    for part in (check.images, check.reference):
        if isinstance(part, str):
            REGISTERED[part].open()


def _score_request(check: Published, request: VerifyRequest) -> ScoreRequest:
    def place(part: str | DataFile) -> str:
        return str(request.files[part.key]) if isinstance(part, DataFile) else part

    return ScoreRequest(
        images=Path(place(check.images)),
        name=check.name,
        reference=None if check.reference is None else place(check.reference),
        protocol=check.protocol,
        metrics=check.metrics,
        num_samples=check.num_samples,
        weights=request.weights,
        device=request.device,
        out=request.out,
        command=("evalkit", "verify", check.name),
    )


def _compared(check: Published, record: RunRecord) -> Outcome:
    measured = {result.metric: result.value for result in record.results}
    agrees = all(
        expected.metric in measured and abs(measured[expected.metric] - expected.value) <= expected.tolerance
        for expected in check.expected
    )
    return Outcome(check, "agrees" if agrees else "DIFFERS", measured=measured)
