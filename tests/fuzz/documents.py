"""Valid texts that evalkit reads from others: records, boards, suites, rules and lists of pairs."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit import strict_json
from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.progress import Snapshot
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.suites.document import bundled_suites
from tests.fuzz.mutations import Seed
from tests.suites.stage import make_record

BOARD = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg"


def record_seeds() -> list[Seed]:
    """Records: a small one, and one with all that a scored model has."""
    snapshot = json.loads((BOARD / "snapshots" / "ddpm-1500.json").read_text())
    snapshot["results"] = snapshot["results"][:1]
    small = strict_json.dumps(make_record().to_json())
    return [Seed("r.json", small.encode()), Seed("r.json", json.dumps(snapshot).encode())]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def board_seeds() -> list[Seed]:
    """The settings of a board."""
    return [Seed("board.toml", (BOARD / "board.toml").read_bytes())]


def listed_seeds() -> list[Seed]:
    """The list of published files."""
    return [Seed("records.sha256", b"".join(_lines(BOARD / "records.sha256")[:4]))]


def entry_seeds() -> list[Seed]:
    """An entry of a board."""
    return [Seed("e.json", min((BOARD / "entries").glob("*.json")).read_bytes())]


def digest_seeds() -> list[Seed]:
    """The list of figures."""
    return [Seed("figures/digests.json", (BOARD / "figures" / "digests.json").read_bytes())]


def table_seeds() -> list[Seed]:
    """Some rows of a tidy table."""
    return [Seed("scores.csv", b"".join(_lines(BOARD / "scores.csv")[:4]))]


def suite_seeds() -> list[Seed]:
    """Suites."""
    rows = b'\n[[model]]\nname = "ddpm"\nas = "quick"\nsteps = 5\nseeds = [0, 2]\nprotocols = ["pixels"]\n'
    return [Seed("s.toml", next(iter(bundled_suites().values())).read_bytes() + rows), Seed("s.toml", rows)]


def states_seeds() -> list[Seed]:
    """What has run of a suite."""
    cell = {
        "row": "a",
        "protocol": "p",
        "seed": 0,
        "status": "done",
        "exit_code": 0,
        "seconds": 1.5,
        "run_id": "r-1",
    }
    state = {"schema": "evalkit.suite/1", "suite": "s", "cells": {"k": cell}}
    return [Seed("suite.json", json.dumps(state).encode())]


def rules_seeds() -> list[Seed]:
    """The rules of a gate."""
    text = b"""alpha = 0.01
burden = "regression"
[[rule]]
metric = "kd"
relative = "5%"
[[rule]]
metric = "precision"
band = [0.5, 1]
"""
    return [Seed("gate.toml", text)]


def pairs_seeds() -> list[Seed]:
    """Lists of pairs: CSV, JSON lines and parquet."""
    rows = [
        {"generated": f"o/{i}.png", "reference": f"t/{i}.png", "mask": f"m/{i}.png", "prompt": "a, b"}
        for i in range(3)
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    lines = "generated,reference,mask,prompt\n" + "".join(f'o/{i}.png,t/{i}.png,,"a, b"\n' for i in range(3))
    return [
        Seed("p.csv", lines.encode()),
        Seed("p.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()),
        Seed("p.parquet", stream.getvalue()),
    ]


def part_seeds() -> list[Seed]:
    """What one part of a distributed run leaves for `evalkit merge`."""
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        images = GaussianTiles().generate(image_seeds(7, np.arange(40))).numpy()
        write_samples(Path(folder) / "real.npz", images, labels=None)
        arguments = [
            "score",
            "--model",
            "evalkit.generators.toy:make",
            "--protocol",
            "pixels",
            "--metrics",
            "fd",
        ]
        arguments += [
            "--reference",
            f"{folder}/real.npz",
            "--num-samples",
            "16",
            "--shard",
            "1/2",
            "--out",
            folder,
        ]
        with patch("evalkit.provenance.source_commit", lambda: None):  # would start git
            assert run(arguments) == 0
        (path,) = Path(folder).glob("parts/*.json")
        return [Seed("part.json", path.read_bytes())]


def progress_seeds() -> list[Seed]:
    """How far a run is."""
    time = "2026-01-31T12:00:00Z"
    snapshot = Snapshot(
        run="run-1",
        continues=("run-0",),
        subject="ddpm",
        protocol="pixels",
        phase="sampling",
        images_done=5,
        images_total=64,
        started_utc=time,
        moved_utc=time,
        heartbeat_utc=time,
        pid=12,
        host="a",
        state=("state/x",),
        shards="0-3,5",
    )
    return [Seed("p.json", strict_json.dumps(strict_json.encode_object(snapshot)).encode())]


def prompts_seeds() -> list[Seed]:
    """Four prompts."""
    return [Seed("p.txt", "a cat\nein Hund\n猫が眠る\nfour\n".encode())]
