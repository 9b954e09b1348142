"""One line an event: canonical, of the published schema, without secrets."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone

import jsonschema
import pytest

from evalkit.errors import InvalidInputError
from evalkit.events import (
    KINDS,
    Note,
    OutOfMemory,
    PartFinished,
    PassBegan,
    PhaseBegan,
    RunFailed,
    RunFinished,
    RunIdentified,
    RunInterrupted,
    RunStarted,
    ScoreFound,
    ShardDone,
    line_of,
    schema,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
SCORE = ScoreFound(metric="fd:pixels", variant="thumbnail", value=-1.5, se=None, low=None, high=2.0)
ONE_OF_EACH = (
    RunStarted(
        run="r1", evalkit="0.1.0", subject="ddpm", protocol="auto", out="runs", pid=7, host="h", part=0,
        parts=1, command=("evalkit", "score"),
    ),
    RunIdentified(subject="ddpm", subject_sha256=None, protocol="pixels", images=64, record="runs/r1.json"),
    PhaseBegan(phase="sampling"),
    PassBegan(images=64, shards="0-7", state=("state/a",)),
    ShardDone(
        shard=3, images=8, seconds=0.5, reused=False, read_seconds=0.1, extract_seconds=0.3, largest_batch=8
    ),
    OutOfMemory(shard=3, batch=4),
    Note(level="warning", text="warning: ü"),
    RunFinished(status="complete", seconds=1.5, fingerprint="f", record="runs/r1.json", scores=(SCORE,)),
    PartFinished(part=1, parts=3),
    RunInterrupted(exit_code=130, text="stopped"),
    RunFailed(exit_code=6, error="CheckpointError", text="no", hint=""),
)  # fmt: skip


def test_there_is_an_example_of_every_kind():
    assert tuple(type(event) for event in ONE_OF_EACH) == KINDS


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: event.kind)
def test_a_line_is_canonical_and_of_the_schema(event):
    line = line_of(event, run="r1", time=NOON)
    data = json.loads(line)
    jsonschema.Draft202012Validator(schema()).validate(data)
    assert line == json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert "\n" not in line
    assert data["event"] == event.kind
    assert data["run"] == "r1"
    assert data["time"] == "2026-11-22T12:00:00.123Z"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_schema_has_the_facts_of_each_kind_and_no_others(kind):
    (part,) = (part for part in schema()["oneOf"] if part["title"] == kind.kind)
    fields = {field.name for field in dataclasses.fields(kind)} | {"schema", "event", "run", "time"}
    assert set(part["properties"]) == set(part["required"]) == fields
    assert part["additionalProperties"] is False


def test_the_time_is_utc_wherever_the_clock_is():
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    assert line_of(ONE_OF_EACH[2], run=None, time=elsewhere) == line_of(ONE_OF_EACH[2], run=None, time=NOON)


def test_secrets_stay_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh123")
    event = dataclasses.replace(
        ONE_OF_EACH[0],
        command=("evalkit", "score", "--token", "plain", "--ckpt", "https://me:pass@host/x"),
        subject="at hf_abcdefgh123",
        out="s3://bucket/x?X-Amz-Signature=deadbeef",
    )
    line = line_of(event, run="r1")
    for secret in ("hf_abcdefgh123", "plain", "me:pass", "deadbeef"):
        assert secret not in line
    assert "https://[redacted]@host/x" in line


def test_what_is_not_finite_is_refused():
    with pytest.raises(InvalidInputError, match="not a finite number"):
        line_of(dataclasses.replace(ONE_OF_EACH[4], seconds=float("nan")), run=None)


def test_text_that_utf8_cannot_hold_is_written_all_the_same():
    assert line_of(Note(level="info", text="file \udcff"), run=None).encode()
