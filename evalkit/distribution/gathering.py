"""Bringing the shards of parts together: which parts there are, whose they are, and what they lack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.distribution.manifest import FOLDER, PartManifest, StateFile
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.extracted import MissingShards
from evalkit.opening import STATE_FOLDER
from evalkit.shards import ShardResult, ShardStore, read_state

MERGED = "-merged.json"
"""End of the name of what a merge leaves beside the manifests of parts."""
_SHOWN = 5
_Slot = tuple[str, int]  # a lane's folder and a shard of it


@dataclass(frozen=True, slots=True)
class Found:
    """A part that lies below ``folder``."""

    folder: Path
    manifest: PartManifest

    def __str__(self) -> str:
        return f"part {self.manifest.name} in {self.folder}"

    def present(self, files: Iterable[StateFile]) -> Iterator[tuple[_Slot, Path]]:
        """Yield where ``files`` lie, or what a later run for more heads has put in their place."""
        for file in files:
            path = self.folder / file.path
            instead = path.parent.glob(f"{file.shard:06d}-*{path.suffix}")
            for found in [path] if path.is_file() else sorted(instead):
                yield (file.lane, file.shard), found


Run = tuple[Found, ...]
"""The parts of one run, in order."""


def gather(folders: Sequence[Path]) -> list[Run]:
    """Return the parts below ``folders``, run by run.

    Raises:
        NothingMeasuredError: there are none in one of the folders.
        InvalidInputError: a manifest is damaged or of another release, or two runs lack parts and have those
            of each other: a part of one was computed for another.
    """
    found: dict[Path, Found] = {}
    for folder in folders:
        paths = sorted(p for p in (folder / FOLDER).glob("*.json") if not p.name.endswith(MERGED))
        if not paths:
            raise NothingMeasuredError(
                f"{folder} holds no parts of a run", hint="evalkit score … --shard 1/3 --out FOLDER makes one"
            )
        found |= {path.resolve(): Found(folder, PartManifest.read(path)) for path in paths}
    runs: dict[str, list[Found]] = defaultdict(list)
    for part in found.values():
        runs[part.manifest.identity.digest()].append(part)
    ordered = [tuple(sorted(parts, key=_order)) for parts in runs.values()]
    _refuse_foreign(ordered)
    return sorted(ordered, key=lambda parts: (parts[0].manifest.identity.model.id, _order(parts[0])))


def parts_beside(manifest: PartManifest, out: Path) -> Run:
    """Return the parts of the same run and of as many parts, in order, that lie below ``out``.

    Raises:
        InvalidInputError: a manifest is damaged.
    """
    run = manifest.identity.digest()
    beside = manifest.path(out).name.replace(f"-part-{manifest.part}-", "-part-*-")
    found = [Found(out, PartManifest.read(path)) for path in sorted((out / FOLDER).glob(beside))]
    return tuple(sorted((part for part in found if part.manifest.identity.digest() == run), key=_order))


def check_whole(parts: Run) -> None:
    """Check that every shard is there once.

    Raises:
        NothingMeasuredError: shards are missing; says which, and which part owes them.
        InvalidInputError: two parts hold different features of one shard.
    """
    missing = _missing(parts)
    if missing:
        layout = parts[0].manifest.layout
        told = MissingShards(missing, layout, ())
        hint = f"{owing(parts, missing)}; run it (again), and merge"
        raise NothingMeasuredError(f"{named(parts)}: {told.message}", hint=hint)
    for (_, shard), paths in _candidates(parts).items():
        states = _whole(paths) if len(paths) > 1 else []
        for other in states[1:]:
            if not _same_features(states[0], other):
                both = f"{states[0].path} and {other.path}"
                raise InvalidInputError(
                    f"shard {shard} is given twice, with different content: {both}",
                    hint="they were computed on different machines or by different code: leave one out",
                )


def bring(parts: Run, out: Path) -> None:
    """Link or copy every shard of a run, and of its references, below ``out``; what has more heads is kept.

    Raises:
        TemporaryError: another run works there, or it cannot be written to.
    """
    chosen = {slot: _richest(paths) for slot, paths in _candidates(parts).items()}
    for part in parts:  # of references every part has all; those of the first are as good as any
        for slot, path in part.present(part.manifest.reference_files):
            chosen.setdefault(slot, path)
    lanes: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for (lane, shard), path in chosen.items():
        lanes[lane].append((shard, path))
    for lane, shards in lanes.items():
        store = ShardStore(out / STATE_FOLDER / lane)
        with store.exclusive():
            for shard, path in shards:
                if not _has_more(store, shard, path):
                    store.adopt(path, shard)


def owing(parts: Run, shards: Iterable[int]) -> str:
    """Tell which part is to be run again for ``shards``."""
    counts = [part.manifest.of for part in parts]
    count = max(set(counts), key=counts.count)
    owed: dict[int, list[str]] = defaultdict(list)
    for shard in shards:
        owed[shard % count].append(str(shard))
    return "; ".join(f"part {part + 1}/{count} owes {', '.join(of)}" for part, of in sorted(owed.items()))


def _missing(parts: Run) -> list[int]:
    have = _candidates(parts)
    lanes = {file.lane for part in parts for file in part.manifest.files}
    layout = parts[0].manifest.layout
    return [s for s in range(layout.shards) if not lanes or any((lane, s) not in have for lane in lanes)]


def _candidates(parts: Run) -> Mapping[_Slot, list[Path]]:
    """Return where each shard lies, each file once by its name: the name is its content."""
    found: dict[_Slot, dict[str, Path]] = defaultdict(dict)
    for part in parts:
        for slot, path in part.present(part.manifest.files):
            found[slot].setdefault(path.name, path)
    return {slot: list(paths.values()) for slot, paths in found.items()}


def _whole(paths: Sequence[Path]) -> list[ShardResult]:
    """Return what the files of one shard hold, the one with most heads first; damaged ones are left out."""
    found = [state for path in paths if (state := read_state(path)) is not None]
    return sorted(found, key=lambda state: -len(state.features))


def _richest(paths: Sequence[Path]) -> Path:
    """Return which of the files of one shard to take."""
    states = _whole(paths) if len(paths) > 1 else []
    return next((state.path for state in states if state.path), paths[0])


def _same_features(ours: ShardResult, theirs: ShardResult) -> bool:
    """Whether two states of a shard agree in the heads that both have: one may have been asked for more."""
    common = set(ours.features) & set(theirs.features)
    return bool(common) and all(np.array_equal(ours.features[h], theirs.features[h]) for h in common)


def _has_more(store: ShardStore, shard: int, path: Path) -> bool:
    """Whether the folder has the features of a file already, and those of more heads."""
    kept = [old for old in store.folder.glob(f"{shard:06d}-*.safetensors") if old.name != path.name]
    new = read_state(path) if kept else None
    states = [state for old in kept if new and (state := read_state(old)) is not None]
    return new is not None and any(
        set(new.features) < set(state.features) and _same_features(new, state) for state in states
    )


def _refuse_foreign(runs: Sequence[Run]) -> None:
    lacking = [parts for parts in runs if _missing(parts)]
    for position, parts in enumerate(lacking):
        for others in lacking[position + 1 :]:
            if {p.manifest.name for p in parts}.isdisjoint(p.manifest.name for p in others):
                differences = parts[0].manifest.identity.differences(others[0].manifest.identity)
                raise InvalidInputError(
                    f"{parts[0]} and {others[0]} are of different runs: {'; '.join(differences[:_SHOWN])}",
                    hint="run one of them again as the other was run, or merge one run at a time",
                )


def named(parts: Run) -> str:
    """Name a run for people."""
    identity = parts[0].manifest.identity
    seed = f", seed {identity.sampling.seeds.base}" if identity.sampling else ""
    return f"{identity.model.id} ({identity.count} images{seed})"


def _order(part: Found) -> tuple[int, int, str]:
    return part.manifest.of, part.manifest.part, str(part.folder)
