"""A run that finishes what a killed one began takes away its record, and nobody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.leftovers import clear_leftovers
from evalkit.record import RunRecord
from tests.suites.stage import make_record


@pytest.mark.fault("killed-at-random")
def test_only_what_a_killed_run_of_the_same_work_left_goes(tmp_path):
    begun = make_record(run="run-5", status="started", results=())
    later = replace(begun, created_utc="2026-02-01T12:00:00Z", env={"python": "3.12"}, command=("evalkit",))
    kept = [
        replace(begun, status="complete"),
        replace(later, run_id="run-2", status="partial"),
        replace(later, run_id="run-3", model=replace(begun.model, id="other")),
        replace(later, run_id="run-4", protocol=replace(begun.protocol, fingerprint="e" * 64)),
    ]
    for record in (*kept, replace(later, run_id="run-1")):
        record.write(tmp_path / f"{record.run_id}.json")
    (tmp_path / "broken.json").write_text('{"schema": "evalkit.run/1", "status": "started"')
    (tmp_path / "below").mkdir()
    for place in ("", "below/"):
        (tmp_path / f"{place}.run-1.json.0123abcd.tmp").write_text("half")
    clear_leftovers(tmp_path, begun, folders=("below",))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"broken.json", *(f"{record.run_id}.json" for record in kept)}
    assert all(RunRecord.read(tmp_path / f"{record.run_id}.json") == record for record in kept)
