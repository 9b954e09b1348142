"""Quality against speed: one point a model, and the line through those that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalkit.leaderboard.facts import Group
from evalkit.leaderboard.page_rows import PageRow, PageTable
from evalkit.leaderboard.ranking import result_of, wants_log_axis
from evalkit.pages.charts import Axis, Point, scatter
from evalkit.record import MetricResult, Performance
from evalkit.reporting.costs import fastest
from evalkit.reporting.formatting import human_rate, interval, measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A chart, how many rows it leaves out, and the devices on which speeds were measured."""

    chart: Markup
    left_out: int
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A row that has both a headline score and a speed."""

    row: PageRow
    result: MetricResult
    speed: Performance


def pareto_plot(group: Group, table: PageTable) -> Plot | None:
    """Return the headline metric against images/s as SVG; None where fewer than two models have both.

    Each device has a front of its own: speeds of two devices say nothing about the models.
    """
    shown = [found for row in table.rows if (found := _shown(row, group))]
    if len(shown) < 2:
        return None
    devices = tuple(sorted({one.speed.device for one in shown}))
    points = [_point(one, devices) for one in shown]
    best = ", ".join(point.label for point in points if point.emphasised) or "none"
    values = [point.y for point in points]
    better = shown[0].result.direction
    chart = scatter(
        points,
        x=Axis(title="images/s", log=True, better="higher"),
        y=Axis(title=table.headline, log=wants_log_axis(values), better=better),
        title=f"{table.headline} against images per second",
        description=(
            f"{len(points)} models. {table.headline}: {better} is better; images per second on a logarithmic "
            f"axis: higher is better. On the Pareto front: {best}. The table holds the same numbers."
        ),
        fronts=[_front(shown, device) for device in devices],
    )
    return Plot(chart=chart, left_out=len(table.rows) - len(shown), devices=devices)


def _shown(row: PageRow, group: Group) -> _Shown | None:
    record = row.entry.record
    result, speed = result_of(record, group.headline, group.variant), fastest(record)
    return _Shown(row, result, speed) if result and speed and speed.throughput > 0 else None


def _front(shown: Sequence[_Shown], device: str) -> list[tuple[float, float]]:
    return [
        (one.speed.throughput, one.result.value)
        for one in shown
        if one.row.entry.pareto and one.speed.device == device
    ]


def _point(one: _Shown, devices: Sequence[str]) -> Point:
    entry, result, speed = one.row.entry, one.result, one.speed
    value, error, ci = result.value, result.se, result.ci
    around = f" {interval(ci.low, ci.high, value=value, error=error)}" if ci else ""
    where = f" on {speed.device}" if len(devices) > 1 else ""
    rate = f"{human_rate(speed.throughput)} images/s{where}"
    return Point(
        x=speed.throughput,
        y=value,
        low=ci.low if ci else None,
        high=ci.high if ci else None,
        label=entry.name,
        family=entry.record.model.family,
        tooltip=f"{entry.name}: {measured(value, error)}{around}, {rate}",
        key=one.row.anchor,
        emphasised=entry.pareto,
    )
