"""What ``--dtype bfloat16`` and ``float16`` do to the scores of the bundled models, on the same seeds.

    python benchmarks/sampling_precision.py --out benchmarks/sampling_precision.csv    # half an hour

Each model is scored under the embedded protocol (1 024 images, base seed 0) in each type; the difference to
float32 and its standard error are those of the gate, block by block. Runs that are there already are kept.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import evalkit
from evalkit.gate.baselines import find_baseline
from evalkit.gate.decision import gate
from evalkit.gate.facts import GateSpec
from evalkit.gate.rules import parse_rule
from evalkit.generators import SamplingOptions
from evalkit.record import RunRecord

MODELS = ("cgan", "stylegan", "sngan", "vae", "vq-vae", "ddpm")
PLAIN, LOWER = "float32", ("bfloat16", "float16")
RULES = ("kd stat", "fd stat", "precision stat")
COLUMNS = ("model", "dtype", "metric", "float32", "value", "difference", "se")


def scored(model: str, dtype: str, folder: Path) -> Path:
    """Return the path of the record of one model in one type; scored first where it is not there."""
    where = folder / dtype
    for path in sorted(where.glob("*.json")):
        known = RunRecord.read(path)
        if known.status == "complete" and known.model.id == model:
            return path
    record: RunRecord = evalkit.score(model=model, sampling=SamplingOptions(dtype=dtype), out=where)
    return where / f"{record.run_id}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("precision-runs"), help="folder of the records")
    arguments = parser.parse_args()
    spec = GateSpec(rules=tuple(parse_rule(rule) for rule in RULES))
    with arguments.out.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(COLUMNS)
        for model in MODELS:
            baseline = scored(model, PLAIN, arguments.runs)
            for dtype in LOWER:
                candidate = (RunRecord.read(scored(model, dtype, arguments.runs)),)
                for outcome in gate(candidate, find_baseline(str(baseline), candidate), spec).outcomes:
                    ours, theirs = outcome.candidate, outcome.baseline
                    figures = (theirs.value, ours.value, ours.value - theirs.value, outcome.se)
                    rows.writerow([model, dtype, outcome.rule.metric, *(f"{x:.6g}" for x in figures)])


if __name__ == "__main__":
    main()
