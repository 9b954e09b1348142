"""THE paired pipeline: pairs -> shards of rows -> scores -> record, table of pairs, contact sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit import numerics
from evalkit.console import Console
from evalkit.core import Probe
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.extraction import Extracted, Interrupted, Job, default_batch_size, extract
from evalkit.leftovers import clear_leftovers
from evalkit.pairs.contact_sheet import write_worst
from evalkit.pairs.edits import MeasuredEdits, edit_network, measure_edits
from evalkit.pairs.measures import build_values, choose_measures
from evalkit.pairs.opening import OpenedPairs, open_pairs
from evalkit.pairs.per_pair import PairTable, find_heading, write_per_pair
from evalkit.pairs.probe import PairProbe
from evalkit.pairs.readings import Reading, by_head
from evalkit.pairs.request import REGIONS, Measuring, PairsRequest
from evalkit.perceptual.passes import in_shared_passes
from evalkit.probes.directional import IMAGE_SIZE
from evalkit.protocol import DTYPE_POLICY
from evalkit.provenance import environment
from evalkit.record import DataInfo, Inputs, MetricResult, ProtocolInfo, RunRecord, Status, redact_command
from evalkit.redaction import redact_text
from evalkit.runtime import resolve_device, strict_numerics
from evalkit.spec import sha256_of

FINGERPRINT_VERSION = 1
DATA_RANGE = 255
"""PSNR and SSIM are stated on 8-bit images: 0..255."""

STATE_FOLDER = "state"
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
    record = begun = run.started()
    path = measuring.out / f"{record.run_id}.json"
    record.write(path)
    try:
        with console.progress(f"comparing {opened.info.id}", len(opened.pairs)) as progress:
            lanes = extract(run.job(), progress=progress, stop=stop)
        for lane in lanes:
            _tell(lane, console)
        rows = by_head(lanes)
        record = run.finished(record, rows, console)
        run.write_outputs(rows, console)
    except BaseException as error:
        status: Status = "partial" if isinstance(error, Interrupted | KeyboardInterrupt) else "error"
        seconds = time.monotonic() - started
        replace(record, status=status, duration_seconds=seconds, notes=redact_text(str(error))).write(path)
        raise
    record = replace(record, status="complete", duration_seconds=round(time.monotonic() - started, 3))
    record.write(path)
    clear_leftovers(measuring.out, begun)
    return record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """What stays the same from the first record to the last."""

    opened: OpenedPairs
    measuring: Measuring
    task: str
    device: torch.device
    probes: tuple[Probe, ...]
    readings: tuple[Reading, ...]
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
        readings = [value.reading(region) for value in values for region in regions]
        probes: list[Probe] = []
        if values:
            passes = in_shared_passes([value.measure for value in values])
            probes.append(PairProbe(opened.pairs, passes, regions=regions, device=device))
        if edits := _edits(opened, measuring, device):
            probes.append(edits.probe)
            readings.append(edits.reading)
        if measuring.outputs.worst is not None:  # refuses before the work
            find_heading(measuring.outputs.worst_by, [reading.heading for reading in readings])
        return cls(
            opened=opened,
            measuring=measuring,
            task=task,
            device=device,
            probes=tuple(probes),
            readings=tuple(readings),
            first_size=(height, width),
        )

    def job(self) -> Job:
        height, width = self.first_size
        fitting = max(_BATCH_PIXELS // (height * width), 1)
        jobs = [
            Job.of_probe(
                probe,
                heads=tuple(probe.heads),
                count=len(self.opened.pairs),
                state=self.measuring.out / STATE_FOLDER,
                device=self.device,
                batch_size=self.measuring.batch_size or min(default_batch_size(self.device), fitting),
                fresh=self.measuring.fresh,
            )
            for probe in self.probes
        ]
        return replace(jobs[0], lanes=tuple(lane for job in jobs for lane in job.lanes))

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

    def finished(self, record: RunRecord, rows: Mapping[str, Extracted], console: Console) -> RunRecord:
        size = _common_size(rows[IMAGE_SIZE])
        results, left_out = self._results(rows)
        for sentence in left_out:
            console.note(sentence)
        return replace(
            record,
            data=self._data(size),
            protocol=self._protocol(size),
            results=results,
            warnings=(*record.warnings, *left_out),
        )

    def _results(self, rows: Mapping[str, Extracted]) -> tuple[tuple[MetricResult, ...], tuple[str, ...]]:
        """Return the scores, and what the default asked for in vain (what a user names must exist)."""
        results, left_out = [], []
        problem: NothingMeasuredError | None = None
        for reading in self.readings:
            try:
                # Files often lie in the order of their classes, so that blocks are drawn at random.
                blocks = rows[reading.head].in_blocks(reading.head, contiguous=False)
                results.append(reading.result(blocks))
            except NothingMeasuredError as error:
                if self.measuring.measures and (reading.region == "whole" or self.measuring.regions):
                    raise
                problem = error
                left_out.append(f"left out: {error.message}")
        if not results and problem is not None:
            raise problem
        return tuple(results), tuple(left_out)

    def write_outputs(self, rows: Mapping[str, Extracted], console: Console) -> None:
        outputs = self.measuring.outputs
        if outputs.per_pair is None and outputs.worst is None:
            return
        table = PairTable.of(self.opened.pairs, self.readings, rows)
        if outputs.per_pair is not None:
            write_per_pair(outputs.per_pair, table)
            console.note(f"wrote the values of {len(self.opened.pairs)} pairs to {outputs.per_pair}")
        if outputs.worst is not None:
            shown = write_worst(
                outputs.worst, self.opened.pairs, table, by=outputs.worst_by, count=outputs.worst_count
            )
            console.note(f"wrote the {shown.count} worst pairs by {shown.by} to {outputs.worst}")

    def _data(self, size: tuple[int, int] | None) -> DataInfo:
        return DataInfo(
            dataset=self.opened.dataset,
            resolution=size[0] if size and size[0] == size[1] else None,
            reference_sha256=self.opened.pairs.reference_sha256,
            n_ref=len(self.opened.pairs),
        )

    def _protocol(self, size: tuple[int, int] | None) -> ProtocolInfo:
        pairs = self.opened.pairs
        masked = any(reading.region != "whole" for reading in self.readings)
        fields: dict[str, Any] = {
            "fingerprint_version": FINGERPRINT_VERSION,
            "numerics_version": numerics.NUMERICS_VERSION,
            "task": self.task,
            "metrics": sorted(
                (reading.to_json() for reading in self.readings),
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
        if self.opened.edits is not None:
            fields["edits_sha256"] = self.opened.edits.source_sha256
        return ProtocolInfo(name=self.task, fields=fields, fingerprint=sha256_of(fields))


def _edits(opened: OpenedPairs, measuring: Measuring, device: torch.device) -> MeasuredEdits | None:
    network = edit_network(measuring.measures)
    if network is None:
        return None
    if opened.edits is None:
        raise UsageError(
            "clip-directional reads edits with their sources and captions",
            hint="--manifest FILE with the columns edited, source, source_prompt and prompt",
        )
    return measure_edits(opened.edits, network, weights=measuring.weights, device=device)


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
