"""Write the tables of benchmarks/README.md from what the benchmarks saved in results/.

python benchmarks/results_table.py            # writes README.md
python benchmarks/results_table.py --check    # exits 1 where README.md is stale
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interleaved import OURS, RESULTS, Comparison

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
HEAD = "| work | contender | seconds | evalkit is | promised |\n| :--- | :--- | ---: | ---: | ---: |\n"


def section(name: str, body: Mapping[str, Any]) -> str:
    """Return the Markdown of one script's figures: command, machine, table, further lines."""
    machine = body["machine"]
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items() if key != OURS)
    where = machine["device"] if machine["device"] != "cpu" else machine["processor"]
    lines = [
        f"### {name.replace('_', ' ')}\n",
        f"`{body['command']}`, {body['date']}: {where}, {machine['cores']} cores; {versions}.\n",
    ]
    comparisons = [Comparison(**entry) for entry in body["comparisons"]]
    if comparisons:
        lines.append(HEAD + "".join(row for comparison in comparisons for row in rows(comparison)))
    notes = [note for comparison in comparisons for note in comparison.notes]
    lines += [f"- {_escaped(note)}" for note in (*notes, *body["lines"])]
    return "\n".join(lines) + "\n"


def rows(comparison: Comparison) -> Iterator[str]:
    """Yield one table row a contender: median seconds, rate, and the median paired ratio."""
    for number, (name, seconds) in enumerate(comparison.seconds.items()):
        median = statistics.median(seconds)
        rate = f" ({comparison.amount / median:,.0f} {comparison.unit}/s)" if comparison.amount else ""
        ratio = "" if name == comparison.ours else f"{comparison.ratio(name):.2f} x"
        promised = f"{comparison.target[name]:g} x" if name in comparison.target else ""
        work = _escaped(comparison.work) if number == 0 else ""
        yield f"| {work} | {_escaped(name)} | {median:.4g}{rate} | {ratio} | {promised} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def tables() -> str:
    """Return all sections, in the order of the scripts' names."""
    files = sorted(RESULTS.glob("*.json"))
    return "\n".join(section(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    fresh = f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.partition(END)[2]}"
    if check:
        print("benchmarks/README.md is up to date" if fresh == text else "benchmarks/README.md is stale")
        return int(fresh != text)
    README.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
