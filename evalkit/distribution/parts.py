"""A part of a run: fill the state files of some shards, and say which.

computed = compute(request, console=Silent(), part=Part(0, 3))
computed.manifest.write(request.out)            # for `evalkit merge`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.console import Console
from evalkit.distribution.facts import PlanFacts, SubjectFacts
from evalkit.distribution.identity import RunIdentity
from evalkit.distribution.manifest import PartManifest, StateFile
from evalkit.events import PartFinished
from evalkit.extraction import Extracted, Job
from evalkit.following import following
from evalkit.numerics.products import products_on
from evalkit.opening import Opened, at_hand, first_sample, observed_in, one_pass, open_run, probe_passes
from evalkit.request import ScoreRequest
from evalkit.shards import Part, ShardLayout


@dataclass(frozen=True, slots=True)
class ComputedPart:
    """What a part of a run left below ``out``: plain data that may travel; see :class:`PartManifest`."""

    part: Part
    manifest: PartManifest


def compute(
    request: ScoreRequest, *, console: Console, part: Part, stop: Callable[[], int] = lambda: 0
) -> ComputedPart:
    """Open what ``request`` asks for and compute the shards of ``part`` below ``request.out``.

    Parts may run side by side on one folder, and on folders of their own; what is whole already is kept.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; TemporaryError where somebody computes the same part.
    """
    with following(request, console, part=part) as follower:
        computed = compute_opened(open_run(request, console=follower, stop=stop), part)
        follower.tell(PartFinished(part=part.index, parts=part.count))
        return computed


def compute_opened(opened: Opened, part: Part) -> ComputedPart:
    """Compute the shards of ``part`` of a run that is open; may be called for several parts in turn.

    Raises:
        EvalkitError: as :func:`compute`.
    """
    files = _Files(opened.request.out)
    opened = replace(opened, part=part, extracted=files.add)
    with products_on(str(opened.device)):
        plan, materials = at_hand(opened)
        identity = RunIdentity.of(opened, plan, materials)
        # One part is enough to tell how the first image goes.
        warm = first_sample(opened, plan) if part.index == 0 else None
        one_pass(opened, plan)
        probe_passes(opened, plan)
    manifest = PartManifest(
        part=part.index + 1,
        of=part.count,
        identity=identity,
        request=opened.request,
        plan=PlanFacts.of(plan, opened),
        subject=SubjectFacts.of(opened),
        observed=observed_in(opened, warm),
        shards=tuple(ShardLayout(identity.count).shards_of(part)),
        files=tuple(files.own),
        reference_files=tuple(files.shared),
    )
    return ComputedPart(part, manifest)


class _Files:
    """Collects where the shards of each pass lie, relative to ``out``."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.own: list[StateFile] = []
        self.shared: list[StateFile] = []

    def add(self, job: Job, lanes: tuple[Extracted, ...]) -> None:
        files = self.shared if job.part is None else self.own
        for lane in lanes:
            for shard, result in zip(job.layout.shards_of(job.part), lane.shards, strict=True):
                if result.path is None:
                    raise ValueError("a shard that went through a pass lies nowhere")
                files.append(StateFile(path=result.path.relative_to(self._out).as_posix(), shard=shard))
