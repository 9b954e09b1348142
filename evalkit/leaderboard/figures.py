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
from evalkit.leaderboard.ranking import estimate_of, result_of, wants_log_axis
from evalkit.pages.charts import MANY_POINTS, MOST_LABELS, corners
from evalkit.pages.labels import ADVANCE, Anchor, Box, Label, place
from evalkit.pages.markers import markers
from evalkit.pages.scales import Scale
from evalkit.reporting.costs import fastest
from evalkit.reporting.formatting import ARROWS
from evalkit.spec import Better, sha256_of

DIGESTS = "figures/digests.json"
SUFFIXES = (".svg", ".png")
_SCHEMA = "evalkit.figures/1"
_DRAWING = 2  # rises when the same numbers are drawn differently
_FINGERPRINT = 8
_COLUMNS = 5  # of the legend
_POINTS_PER_INCH = 72.0
_ADVANCE = 5.4  # points: of a bold letter of 8 points
_RADIUS, _CLEARANCE, _EDGE = 6.0, 2.0, 5.0  # around a mark, around a line, within the frame
_ALIGN: Mapping[Anchor, str] = {"start": "left", "middle": "center", "end": "right"}
# Okabe & Ito 2008, in the order of the pages' classes c0 to c6.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
_MARKERS = "os^DvPp"
_METADATA: Mapping[str, Mapping[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "evalkit"},
    ".png": {"Software": "evalkit"},
}


_Scales = tuple[Scale, Scale]


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
    for number, group in enumerate(board.groups):
        stem = f"pareto-{group.fingerprint[:_FINGERPRINT]}" if number else "pareto"
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
        axis, scales = figure.add_subplot(), _scales(plot)
        _fill(axis, plot, scales)
        _furnish(axis, plot, scales)
        figure.draw_without_rendering()
        _label(axis, plot, scales)
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
        result, speed = result_of(entry.record, group.headline, group.variant), fastest(entry.record)
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
    results = (result_of(entry.record, group.headline, group.variant) for entry in group.entries)
    better = next(result.direction for result in results if result)
    return Plot(
        stem=stem, title=title, headline=group.headline, better=better, device=device, marks=tuple(marks)
    )


def _fill(axis: Any, plot: Plot, scales: _Scales) -> None:  # noqa: ANN401 - matplotlib has no types
    across, up = scales
    crowded = len(plot.marks) > MANY_POINTS
    front = corners(_at(mark, scales) for mark in plot.marks if mark.pareto)
    axis.plot(*zip(*front, strict=True), color="0.6", linewidth=1, linestyle="--", zorder=1)
    for family, (colour, shape) in _looks(mark.family for mark in plot.marks).items():
        own = [mark for mark in plot.marks if mark.family == family]
        told = [mark for mark in own if mark.pareto or not crowded]
        errors = [
            [up.at(m.value) - up.at(m.low) for m in told],
            [up.at(m.high) - up.at(m.value) for m in told],
        ]
        bars = {"yerr": errors, "fmt": "none", "ecolor": colour, "capsize": 2, "zorder": 2}
        axis.errorbar([across.at(m.speed) for m in told], [up.at(m.value) for m in told], **bars)
        axis.scatter(
            *zip(*(_at(mark, scales) for mark in own), strict=True),
            c=colour,
            marker=shape,
            s=42,
            edgecolors="0.2",
            linewidths=0.6,
            label=family,
            zorder=3,
            # Ten thousand outlines would make a file that opens slowly.
            rasterized=crowded,
        )


def _furnish(axis: Any, plot: Plot, scales: _Scales) -> None:  # noqa: ANN401 - matplotlib has no types
    across, up = scales
    axis.set(xlim=(0, 1), ylim=(0, 1))
    for ticks, scale in ((axis.set_xticks, across), (axis.set_yticks, up)):
        ticks([at for at, _ in scale.ticks()], [text for _, text in scale.ticks()])
    # Names and devices are foreign text: a dollar in one must not start a formula.
    axis.set_xlabel(f"images/s ↑ ({plot.device}, log scale)", parse_math=False)
    axis.set_ylabel(f"{plot.headline} {ARROWS[plot.better]}{' (log scale)' if up.log else ''}")
    axis.set_title(plot.title, fontsize=10, parse_math=False)
    axis.grid(visible=True, which="major", alpha=0.25)
    columns = min(_COLUMNS, len({mark.family for mark in plot.marks}))
    axis.figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=8)


def _label(axis: Any, plot: Plot, scales: _Scales) -> None:  # noqa: ANN401 - matplotlib has no types
    """Write names beside their marks as on the page, those on the front first."""
    left, low, right, high = (float(edge) for edge in axis.bbox.extents)
    # Pixels to the units of labels, whose letters are wider than these by this much; down instead of up.
    unit = _POINTS_PER_INCH / axis.figure.dpi * ADVANCE / _ADVANCE

    def on_page(place: tuple[float, float]) -> tuple[float, float]:
        return (place[0] * (right - left)) * unit, (1 - place[1]) * (high - low) * unit

    told = [mark for mark in plot.marks if mark.pareto or len(plot.marks) <= MANY_POINTS]
    chosen = sorted(told, key=lambda mark: not mark.pareto)[:MOST_LABELS]
    front = corners(_at(mark, scales) for mark in plot.marks if mark.pareto)
    steps = [Box.around(on_page(a), on_page(b), _CLEARANCE) for a, b in itertools.pairwise(front)]
    ends = ((_at(mark, scales, mark.low), _at(mark, scales, mark.high)) for mark in told)
    placed = place(
        [Label(mark.name, *on_page(_at(mark, scales))) for mark in chosen],
        [Box.around(at, at, _RADIUS) for at in (on_page(_at(mark, scales)) for mark in told)],
        Box(_EDGE, _EDGE, (right - left) * unit - _EDGE, (high - low) * unit - _EDGE),
        lines=[*steps, *(Box.around(on_page(a), on_page(b), _CLEARANCE) for a, b in ends)],
    )
    bold = {mark.name for mark in plot.marks if mark.pareto}
    for one in placed:
        axis.text(
            one.x / unit / (right - left),
            1 - one.y / unit / (high - low),
            one.text,
            ha=_ALIGN[one.anchor],
            va="baseline",
            fontsize=8,
            weight="bold" if one.text in bold else "normal",
            parse_math=False,
        )


def _scales(plot: Plot) -> _Scales:
    """Return the axes of the page's plot, from 0 to 1."""
    values = [mark.value for mark in plot.marks]
    log = wants_log_axis(values)
    ends = [end for mark in plot.marks for end in (mark.low, mark.high) if end > 0 or not log]
    across = Scale.around((mark.speed for mark in plot.marks), start=0, end=1, log=True)
    return across, Scale.around([*values, *ends], start=0, end=1, log=log)


def _at(mark: Mark, scales: _Scales, value: float | None = None) -> tuple[float, float]:
    return scales[0].at(mark.speed), scales[1].at(mark.value if value is None else value)


def _looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and shape of each family, the colour that it has on the page."""
    found = {family: int(marker.colour[1:]) for family, marker in markers(families).items()}
    return {family: (_COLOURS[place], _MARKERS[place]) for family, place in found.items()}


def _bytes(figure: Any, suffix: str) -> bytes:  # noqa: ANN401 - matplotlib has no types
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix[1:], dpi=150, metadata=dict(_METADATA[suffix]))
    return stream.getvalue()
