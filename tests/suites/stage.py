"""Cells, and a program that behaves like ``evalkit score`` in milliseconds: its row says what it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from evalkit.record import DataInfo, Inputs, MetricResult, ModelInfo, ProtocolInfo, RunRecord
from evalkit.suites import Cell
from evalkit.suites.session import Orders

FAKE_SCORE = """
import json, os, pathlib, signal, sys, time
play, arguments = json.loads(pathlib.Path(sys.argv[1]).read_text()), sys.argv[2:]
flag = lambda name: arguments[arguments.index(name) + 1] if name in arguments else None
row, out = flag("--model"), pathlib.Path(flag("--out"))
number = int(flag("--seed"))
with open(sys.argv[1] + ".started", "a") as file:
    file.write(json.dumps([row, number, flag("--device"), os.environ.get("OMP_NUM_THREADS")]) + "\\n")
act = play["acts"].get(row, "score")
print("loading", row, file=sys.stderr)
if act.startswith("exit"):
    print("evalkit: it went wrong\\n   hint: look closer", file=sys.stderr)
    sys.exit(int(act.split()[1]))
if act == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "crash":
    raise RuntimeError("a bug")
if act == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
if act == "wait":
    def leave(number, frame):
        print("flushed", file=sys.stderr)
        sys.exit(128 + number)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
if act == "busy":
    lock = pathlib.Path(sys.argv[1] + ".lock")
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        sys.exit(75)
    time.sleep(0.3)
    lock.unlink()
record = dict(play["record"])
record["run_id"] = f"run-{row}-{number}-{os.getpid()}"
record["model"] = {**record["model"], "id": row}
record["results"] = [{**record["results"][0], "value": play["values"].get(row, 1.0) + number}]
if act == "partial":
    record["status"] = "partial"
if act != "lost":
    out.mkdir(parents=True, exist_ok=True)
    (out / (record["run_id"] + ".json")).write_text(json.dumps(record))
if act == "noisy":
    print("{", "not json")
if act != "mute":
    print(json.dumps(record, indent=2))
"""


def make_record(name="a", value=1.0, *, protocol="pixels", fingerprint="f" * 64, run="run-1", **more):
    result = MetricResult("fd:pixels", "thumbnail", value, direction="lower", se=0.1, n_gen=16, n_ref=16)
    values = {
        "run_id": run,
        "status": "complete",
        "created_utc": "2026-01-31T12:00:00Z",
        "model": ModelInfo(id=name, family="gan", format="evalkit"),
        "data": DataInfo(dataset="toy"),
        "protocol": ProtocolInfo(protocol, {"num_images": 16}, fingerprint),
        "results": (result,),
        "inputs": Inputs(found=16, used=16),
        **more,
    }
    return RunRecord(**values)


def make_cell(row: str, seed: int = 0, protocol: str = "pixels") -> Cell:
    arguments = ("--model", row, "--protocol", protocol, "--seed", str(seed))
    return Cell(
        row=row,
        protocol=protocol,
        seed=seed,
        arguments=arguments,
        key=f"{row}{seed}{protocol}",
        place=f"x.toml: [[model]] ({row})",
    )


class Stage:
    """A folder, and the fake program whose acts can be changed between two runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "out"
        self._play = folder / "play.json"
        self._script = folder / "score.py"
        self._script.write_text(FAKE_SCORE)
        self.acts: dict[str, str] = {}
        self.values: dict[str, float] = {}

    def orders(self, **more) -> Orders:
        play = {"acts": self.acts, "values": self.values, "record": make_record().to_json()}
        self._play.write_text(json.dumps(play))
        program = (sys.executable, "-I", "-S", str(self._script), str(self._play))
        return Orders(folder=self.folder, program=program, **more)

    @property
    def started(self) -> list[list[object]]:
        """Row, seed, device and threads of each process, in the order in which they began."""
        file = Path(f"{self._play}.started")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
