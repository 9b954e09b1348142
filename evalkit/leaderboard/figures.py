"""``figures/``: quality against speed as SVG and PNG for a paper, drawn by matplotlib (the extra ``plots``).

Accepted trade-offs: two releases of matplotlib draw one figure with different bytes, so a figure is current
as long as the numbers in it are, by the digest in ``figures/digests.json``, and drawn again when they change.
A board that was built without matplotlib has no figures, and lacks nothing that its page does not show.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalkit import strict_json
from evalkit.errors import InvalidInputError
from evalkit.leaderboard.facts import Board, Group
from evalkit.leaderboard.labels import place_labels
from evalkit.leaderboard.ranking import estimate_of, fastest, result_of
from evalkit.pages.markers import markers
from evalkit.reporting.formatting import ARROWS
from evalkit.spec import Better, sha256_of

DIGESTS = "figures/digests.json"
SUFFIXES = (".svg", ".png")
_SCHEMA = "evalkit.figures/1"
_DRAWING = 1  # rises when the same numbers are drawn differently
_FINGERPRINT = 8
# From this ratio of the worst to the best value on, a linear axis would press the good models together.
_WIDE = 20.0
# Okabe & Ito 2008, in the order of the pages' classes c0 to c6.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
_MARKERS = "os^DvPp"
_METADATA: Mapping[str, Mapping[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "evalkit"},
    ".png": {"Software": "evalkit"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One model: images/s, headline metric with the interval around it, and whether it is on the front."""

    name: str
    family: str
    speed: float
    value: float
    low: float
    high: float
    pareto: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """All that a figure shows; ``stem`` is the name of its files."""

    stem: str
    title: str
    headline: str
    better: Better
    device: str
    marks: tuple[Mark, ...]

    def digest(self) -> str:
        """Return the SHA-256 of what is drawn and how."""
        return sha256_of({"drawing": _DRAWING, **asdict(self)})


def plots_of(board: Board) -> tuple[Plot, ...]:
    """Return the figures of a board: one a group in which at least two models have a score and a speed."""
    plots = []
    for place, group in enumerate(board.groups):
        stem = f"pareto-{group.fingerprint[:_FINGERPRINT]}" if place else "pareto"
        marks, devices = _marks(group)
        # Speeds of two devices say nothing about the models.
        if len(marks) > 1 and len(devices) == 1:
            plots.append(_plot(group, stem, board.info.title, marks, devices.pop()))
    return tuple(plots)


def read_digests(folder: Path) -> dict[str, tuple[str, str]]:
    """Return (digest of the numbers, of the file) of each figure that evalkit drew, by path on the board.

    Raises:
        InvalidInputError: the list is not what evalkit wrote.
    """
    path = folder / DIGESTS
    if not path.is_file():
        return {}
    problem = InvalidInputError(f"{path} is not what evalkit wrote", hint="delete the folder and build again")
    try:
        data = strict_json.loads(path.read_text(encoding="utf-8"))
    except (InvalidInputError, UnicodeDecodeError) as error:
        raise problem from error
    listed = data.get("figures") if isinstance(data, dict) and data.get("schema") == _SCHEMA else None
    if not isinstance(listed, dict):
        raise problem
    try:
        return {_figure_path(name): (str(item["data"]), str(item["sha256"])) for name, item in listed.items()}
    except (TypeError, KeyError, ValueError) as error:
        raise problem from error


def digests_json(files: Mapping[str, tuple[str, str]]) -> str:
    """Return the text of ``figures/digests.json``."""
    listed = {Path(path).name: {"data": d, "sha256": f} for path, (d, f) in sorted(files.items())}
    return json.dumps({"schema": _SCHEMA, "figures": listed}, indent=2) + "\n"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        return False
    return bool(mpl.__version__)


def draw(plot: Plot) -> dict[str, bytes]:
    """Return a figure as SVG and PNG by path on the board; the same numbers give the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the page has the name.
        warnings.simplefilter("ignore", UserWarning)
        mpl.rcdefaults()  # the user's own style would give other bytes
        mpl.rcParams["svg.hashsalt"] = "evalkit"
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axis = figure.add_subplot()
        _fill(axis, plot)
        figure.draw_without_rendering()
        _label(axis, plot)
        return {f"figures/{plot.stem}{suffix}": _bytes(figure, suffix) for suffix in SUFFIXES}


def file_digest(content: bytes) -> str:
    """Return the SHA-256 of a figure's file."""
    return hashlib.sha256(content).hexdigest()


def _figure_path(name: str) -> str:
    if Path(name).name != name or not name.endswith(SUFFIXES):
        raise ValueError(name)
    return f"figures/{name}"


def _marks(group: Group) -> tuple[list[Mark], set[str]]:
    marks, devices = [], set()
    for entry in group.entries:
        result, speed = result_of(entry.record, group.headline), fastest(entry.record)
        if result is None or speed is None or speed.throughput <= 0:
            continue
        known = estimate_of(result)
        devices.add(speed.device)
        marks.append(
            Mark(
                name=entry.name,
                family=entry.record.model.family,
                speed=speed.throughput,
                value=known.value,
                low=known.low,
                high=known.high,
                pareto=entry.pareto,
            )
        )
    return marks, devices


def _plot(group: Group, stem: str, title: str, marks: Sequence[Mark], device: str) -> Plot:
    results = (result_of(entry.record, group.headline) for entry in group.entries)
    better = next(result.direction for result in results if result)
    return Plot(
        stem=stem, title=title, headline=group.headline, better=better, device=device, marks=tuple(marks)
    )


def _fill(axis: Any, plot: Plot) -> None:  # noqa: ANN401 - matplotlib has no types
    looks = _looks(mark.family for mark in plot.marks)
    front = sorted((mark.speed, mark.value) for mark in plot.marks if mark.pareto)
    axis.plot(*zip(*_stairs(front), strict=True), color="0.6", linewidth=1, linestyle="--", zorder=1)
    for family, (colour, shape) in looks.items():
        own = [mark for mark in plot.marks if mark.family == family]
        values = [mark.value for mark in own]
        errors = [[m.value - m.low for m in own], [m.high - m.value for m in own]]
        speeds = [mark.speed for mark in own]
        axis.errorbar(speeds, values, yerr=errors, fmt="none", ecolor=colour, capsize=2, zorder=2)
        axis.scatter(
            speeds,
            values,
            c=colour,
            marker=shape,
            s=42,
            edgecolors="0.2",
            linewidths=0.6,
            label=family,
            zorder=3,
        )
    lows, highs = min(mark.value for mark in plot.marks), max(mark.value for mark in plot.marks)
    axis.set_xscale("log")
    if lows > 0 and highs / lows > _WIDE and min(mark.low for mark in plot.marks) > 0:
        axis.set_yscale("log")
    # Names and devices are foreign text: a dollar in one must not start a formula.
    axis.set_xlabel(f"images/s ↑ ({plot.device})", parse_math=False)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.15g}")
    axis.set_ylabel(f"{plot.headline} {ARROWS[plot.better]}")
    axis.set_title(plot.title, fontsize=10, parse_math=False)
    axis.margins(0.12)
    axis.grid(visible=True, which="major", alpha=0.25)
    axis.legend(frameon=False, fontsize=8)


def _label(axis: Any, plot: Plot) -> None:  # noqa: ANN401 - matplotlib has no types
    """Write each name beside its mark, where it covers neither another name nor a mark."""
    scale = axis.figure.dpi / 72.0
    points = [_scaled(axis.transData.transform((mark.speed, mark.value)), scale) for mark in plot.marks]
    front = _stairs(sorted(point for point, mark in zip(points, plot.marks, strict=True) if mark.pareto))
    left, low, right, high = (float(edge) / scale for edge in axis.bbox.extents)
    places = place_labels(
        points, [mark.name for mark in plot.marks], inside=(left, low, right, high), line=front
    )
    for mark, place in zip(plot.marks, places, strict=True):
        if place is not None:
            axis.annotate(
                mark.name,
                (mark.speed, mark.value),
                xytext=(place.x, place.y),
                textcoords="offset points",
                ha=place.align,
                va="center",
                fontsize=8,
                weight="bold" if mark.pareto else "normal",
                annotation_clip=False,
                parse_math=False,
            )


def _stairs(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the best quality at hand from each speed on: it changes where a model's speed is passed."""
    corners = [(slower[0], faster[1]) for slower, faster in itertools.pairwise(front)]
    steps = [point for pair in zip(front, corners, strict=False) for point in pair]
    return [*steps, *front[-1:]]


def _scaled(pixels: Sequence[float], scale: float) -> tuple[float, float]:
    return float(pixels[0]) / scale, float(pixels[1]) / scale


def _looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and shape of each family, the colour that it has on the page."""
    found = {family: int(marker.colour[1:]) for family, marker in markers(families).items()}
    return {family: (_COLOURS[place], _MARKERS[place]) for family, place in found.items()}


def _bytes(figure: Any, suffix: str) -> bytes:  # noqa: ANN401 - matplotlib has no types
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix[1:], dpi=150, metadata=dict(_METADATA[suffix]))
    return stream.getvalue()
