"""THE paired pipeline: pairs -> shards of rows -> scores -> record, table of pairs, contact sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit import numerics
from evalkit.console import Console
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.extraction import Extracted, Interrupted, Job, default_batch_size, extract
from evalkit.pairs.contact_sheet import write_worst
from evalkit.pairs.measures import Value, build_values, choose_measures
from evalkit.pairs.opening import OpenedPairs, open_pairs
from evalkit.pairs.per_pair import PairTable, find_heading, headings, write_per_pair
from evalkit.pairs.probe import IMAGE_SIZE, PairProbe, head_name
from evalkit.pairs.request import REGIONS, Measuring, PairsRequest
from evalkit.perceptual.passes import in_shared_passes
from evalkit.protocol import DTYPE_POLICY
from evalkit.provenance import environment
from evalkit.record import DataInfo, Inputs, MetricResult, ProtocolInfo, RunRecord, Status, redact_command
from evalkit.runtime import resolve_device, strict_numerics
from evalkit.seeding import stream
from evalkit.spec import sha256_of

FINGERPRINT_VERSION = 1
DATA_RANGE = 255
"""PSNR and SSIM are stated on 8-bit images: 0..255."""

STATE_FOLDER = "state"
_UNITS = {"psnr": "dB"}
_BATCH_PIXELS = 2**25  # of one side: 100 MB as uint8


def evaluate_pairs(
    request: PairsRequest, *, console: Console, stop: Callable[[], int] = lambda: 0
) -> RunRecord:
    """Compare each generated image with its own reference image; resumes what an earlier run began.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; on an interruption the record is written as ``partial``.
    """
    request.check()
    opened = open_pairs(request)
    generated, reference = opened.pairs.pairing.unmatched
    if generated or reference:
        console.note(_unmatched_sentence(generated, reference))
    return measure_pairs(opened, request.measuring, task="pairs", console=console, stop=stop)


def measure_pairs(
    opened: OpenedPairs, measuring: Measuring, *, task: str, console: Console, stop: Callable[[], int]
) -> RunRecord:
    """Measure pairs that are open, score them, and write the record below ``measuring.out``.

    Raises:
        EvalkitError: as :func:`evaluate_pairs`.
    """
    started = time.monotonic()
    run = _Run.of(opened, measuring, task=task, console=console)
    record = run.started()
    path = measuring.out / f"{record.run_id}.json"
    record.write(path)
    try:
        with console.progress(f"comparing {opened.info.id}", len(opened.pairs)) as progress:
            (extracted,) = extract(run.job(), progress=progress, stop=stop)
        _tell(extracted, console)
        record = run.finished(record, extracted, console)
        run.write_outputs(extracted, console)
    except BaseException as error:
        status: Status = "partial" if isinstance(error, Interrupted | KeyboardInterrupt) else "error"
        seconds = time.monotonic() - started
        replace(record, status=status, duration_seconds=seconds, notes=str(error)).write(path)
        raise
    record = replace(record, status="complete", duration_seconds=round(time.monotonic() - started, 3))
    record.write(path)
    return record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """What stays the same from the first record to the last."""

    opened: OpenedPairs
    measuring: Measuring
    task: str
    device: torch.device
    values: tuple[Value, ...]
    regions: tuple[str, ...]
    first_size: tuple[int, int]

    @classmethod
    def of(cls, opened: OpenedPairs, measuring: Measuring, *, task: str, console: Console) -> _Run:
        device = resolve_device(measuring.device)
        regions = _regions(measuring.regions, masked=opened.pairs.masks_sha256 is not None)
        with strict_numerics():
            height, width = opened.pairs.read(np.zeros(1, dtype=np.int64)).reference[0].shape[1:]
        chosen = choose_measures(
            measuring.measures,
            smallest_side=min(height, width),
            weights=measuring.weights,
            notify=console.note,
        )
        values = build_values(chosen, weights=measuring.weights, device=device)
        if measuring.outputs.worst is not None:
            find_heading(measuring.outputs.worst_by, headings(values, regions))  # refuses before the work
        return cls(
            opened=opened,
            measuring=measuring,
            task=task,
            device=device,
            values=values,
            regions=regions,
            first_size=(height, width),
        )

    def job(self) -> Job:
        measures = in_shared_passes([value.measure for value in self.values])
        probe = PairProbe(self.opened.pairs, measures, regions=self.regions, device=self.device)
        height, width = self.first_size
        fitting = max(_BATCH_PIXELS // (height * width), 1)
        return Job.of_probe(
            probe,
            heads=tuple(probe.heads),
            count=len(self.opened.pairs),
            state=self.measuring.out / STATE_FOLDER,
            device=self.device,
            batch_size=self.measuring.batch_size or min(default_batch_size(self.device), fitting),
            fresh=self.measuring.fresh,
        )

    def started(self) -> RunRecord:
        opened = self.opened
        return RunRecord(
            status="started",
            model=opened.info,
            data=self._data(None),
            protocol=self._protocol(None),
            inputs=Inputs(found=opened.found, used=len(opened.pairs), rejected=opened.rejected),
            env=environment(),
            command=tuple(redact_command(list(self.measuring.command))),
            warnings=_left_out(opened),
        )

    def finished(self, record: RunRecord, extracted: Extracted, console: Console) -> RunRecord:
        size = _common_size(extracted)
        results, left_out = self._results(extracted)
        for sentence in left_out:
            console.note(sentence)
        return replace(
            record,
            data=self._data(size),
            protocol=self._protocol(size),
            results=results,
            warnings=(*record.warnings, *left_out),
        )

    def _results(self, extracted: Extracted) -> tuple[tuple[MetricResult, ...], tuple[str, ...]]:
        """Return the scores, and what the default asked for in vain (what a user names must exist)."""
        results, left_out = [], []
        problem: NothingMeasuredError | None = None
        for value in self.values:
            for region in self.regions:
                try:
                    results.append(self._result(value, region, extracted))
                except NothingMeasuredError as error:
                    if self.measuring.measures and (region == "whole" or self.measuring.regions):
                        raise
                    problem = error
                    left_out.append(f"left out {head_name(value.label, region)}: {error.message}")
        if not results and problem is not None:
            raise problem
        return tuple(results), tuple(left_out)

    def write_outputs(self, extracted: Extracted, console: Console) -> None:
        outputs = self.measuring.outputs
        if outputs.per_pair is None and outputs.worst is None:
            return
        table = PairTable.of(self.opened.pairs, self.values, self.regions, extracted)
        if outputs.per_pair is not None:
            write_per_pair(outputs.per_pair, table)
            console.note(f"wrote the values of {len(self.opened.pairs)} pairs to {outputs.per_pair}")
        if outputs.worst is not None:
            shown = write_worst(
                outputs.worst, self.opened.pairs, table, by=outputs.worst_by, count=outputs.worst_count
            )
            console.note(f"wrote the {shown.count} worst pairs by {shown.by} to {outputs.worst}")

    def _result(self, value: Value, region: str, extracted: Extracted) -> MetricResult:
        # Files often lie in the order of their classes, so that blocks are drawn at random.
        rows = extracted.in_blocks(head_name(value.name, region), contiguous=False)
        rng = np.random.Generator(np.random.Philox(stream(0, "metric").integers(2**63)))
        score = value.metric(region).compute(rows, None, rng=rng)
        return MetricResult.from_score(
            score, metric=value.label, variant=region, unit=_UNITS.get(value.facts.metric, "")
        )

    def _data(self, size: tuple[int, int] | None) -> DataInfo:
        return DataInfo(
            dataset=self.opened.dataset,
            resolution=size[0] if size and size[0] == size[1] else None,
            reference_sha256=self.opened.pairs.reference_sha256,
            n_ref=len(self.opened.pairs),
        )

    def _protocol(self, size: tuple[int, int] | None) -> ProtocolInfo:
        pairs = self.opened.pairs
        masked = set(self.regions) != {"whole"}
        fields: dict[str, Any] = {
            "fingerprint_version": FINGERPRINT_VERSION,
            "numerics_version": numerics.NUMERICS_VERSION,
            "task": self.task,
            "metrics": sorted(
                (
                    {
                        **value.metric(region).spec.to_json(),
                        "head": head_name(value.name, region),
                        "measure": value.measure.spec.to_json(),
                    }
                    for value in self.values
                    for region in self.regions
                ),
                key=lambda entry: str(entry["head"]),
            ),
            "matching": pairs.pairing.rule,
            "data_range": DATA_RANGE,
            "num_images": len(pairs),
            "image_size": list(size) if size else None,
            "unmatched_images": list(pairs.pairing.unmatched),
            "rejected_images": len(self.opened.rejected),
            "reference": {"sha256": pairs.reference_sha256, "count": len(pairs)},
            "masks_sha256": pairs.masks_sha256 if masked else None,
            "dtype_policy": DTYPE_POLICY,
        }
        return ProtocolInfo(name=self.task, fields=fields, fingerprint=sha256_of(fields))


def _regions(asked: Sequence[str], *, masked: bool) -> tuple[str, ...]:
    if not asked:
        return REGIONS if masked else REGIONS[:1]
    if not masked and set(asked) != {"whole"}:
        raise UsageError(
            f"region {next(r for r in asked if r != 'whole')!r} needs masks",
            hint="--masks FOLDER, or a --manifest with a column 'mask'",
        )
    return tuple(region for region in REGIONS if region in asked)


def _common_size(extracted: Extracted) -> tuple[int, int] | None:
    sizes: NDArray[np.float32] = np.unique(extracted.features(IMAGE_SIZE), axis=0)
    return (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) == 1 else None


def _left_out(opened: OpenedPairs) -> tuple[str, ...]:
    generated, reference = opened.pairs.pairing.unmatched
    return (_unmatched_sentence(generated, reference),) if generated or reference else ()


def _unmatched_sentence(generated: int, reference: int) -> str:
    return f"left out for want of a counterpart: {generated} generated, {reference} reference images"


def _tell(extracted: Extracted, console: Console) -> None:
    if extracted.reused:
        console.note(f"continued: {extracted.reused} of {extracted.layout.count} pairs were there already")
    for warning in extracted.warnings:
        console.note(warning)
