"""Fuzz readers in a process of its own, which is watched and whose memory is capped.

    python tests/fuzz/drive.py --cases 20000 --seed 1 --report report.json image "images: zip"

Of each case only two outcomes are allowed: it is read, or one of evalkit's own errors that a user can meet.
The process ends at once where code of a file runs a command, opens a connection or writes outside its folder,
where a case takes 10 seconds of processor time, or 60 by the clock; memory beyond the cap is an error.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

# A wheel among the peers installs a package called tests, which would win over a folder without __init__.
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [str(Path(__file__).parents[1])]

from evalkit.errors import EvalkitError  # noqa: E402
from tests.fuzz.mutations import Change, Seed, changes, mutate  # noqa: E402
from tests.fuzz.readers import READERS  # noqa: E402

CAP_BYTES = 1 << 30
PROCESSOR_SECONDS, CLOCK_SECONDS = 10, 60
ALLOWED_CODES = {2, 3, 5, 6, 75}
_BATCH = 500
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "socket.connect",
)
_TRAP = 99


def main() -> None:
    """Fuzz the readers named on the command line and write what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("readers", nargs="*")
    given_arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        tempfile.tempdir = folder
        seeds = {name: READERS[name].seeds() for name in given_arguments.readers or READERS}
        _trap_code(Path(folder))
        _cap_memory()
        report = {}
        for name, valid in seeds.items():
            report[name] = fuzz(
                name, valid, Path(folder), cases=given_arguments.cases, number=given_arguments.seed
            )
            given_arguments.report.write_text(json.dumps(report, indent=2))
            print(name, report[name], file=sys.stderr, flush=True)


def fuzz(name: str, seeds: Sequence[Seed], folder: Path, *, cases: int, number: int) -> dict[str, object]:
    """Run ``cases`` cases of one reader; return how many ran, what came out, and what should not have."""
    reader = READERS[name]
    outcomes: Counter[str] = Counter()
    home = folder / "".join(letter for letter in name if letter.isalnum())
    home.mkdir()
    for item in seeds:  # or changes would be of a file that is bad
        reader.read(_written(home, item.name, item.wrap(item.core)))

    started, before = time.process_time(), _peak_kib()
    failure = ""
    for part in range(0, cases, _BATCH):  # Hypothesis remembers what it tried: not for ever

        @seed(number * 1_000_003 + part)
        @settings(max_examples=min(_BATCH, cases - part), database=None, deadline=None, print_blob=False,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])  # fmt: skip
        @given(st.integers(0, len(seeds) - 1), changes())
        def case(which: int, made: list[Change]) -> None:
            item = seeds[which]
            content = item.wrap(mutate(item.core, made, item.snippets))
            outcomes[_run(reader.read, _written(home, item.name, content))] += 1

        try:
            case()
        except BaseException:  # noqa: BLE001 - whatever came out is what is looked for
            failure = traceback.format_exc()
            break
    return {
        "cases": sum(outcomes.values()),
        "outcomes": dict(outcomes),
        "failure": failure,
        "processor_seconds": round(time.process_time() - started, 1),
        "memory_grown_mib": (_peak_kib() - before) // 1024,
    }


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _written(home: Path, name: str, content: bytes) -> Path:
    path = home / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def _run(read: object, path: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)  # its signal ends the process
    faulthandler.dump_traceback_later(CLOCK_SECONDS, exit=True)
    try:
        read(path)  # type: ignore[operator]
    except EvalkitError as error:
        _check_error(error)
        return type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    return "read"


def _check_error(error: EvalkitError) -> None:
    if error.exit_code not in ALLOWED_CODES:
        raise AssertionError(f"exit code {error.exit_code}: {error.message}") from error
    if not error.message.strip():
        raise AssertionError("an error without a message") from error


def _cap_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + CAP_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _trap_code(folder: Path) -> None:
    """End the process where anything does what only code in a file could ask for."""
    mine = str(folder.resolve())

    def look(event: str, arguments: Sequence[object]) -> None:
        acts = event in _FORBIDDEN
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            acts = bool(writes) and not os.path.realpath(arguments[0]).startswith(
                (mine, _report_folder(), "/dev/")
            )
        if acts:
            os.write(2, f"a file made evalkit do {event} {arguments!r:.500}\n".encode())
            os._exit(_TRAP)

    sys.addaudithook(look)


def _report_folder() -> str:
    return str(Path(sys.argv[sys.argv.index("--report") + 1]).parent.resolve())


if __name__ == "__main__":
    main()
