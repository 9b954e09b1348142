"""The table that people read, a row a model: as Markdown (``table.md``) and with all digits (``table.csv``).

    print(to_markdown(group_table(board.groups[0])))

It is the table of ``evalkit compare`` in the board's order, with ranks, and the Pareto mark at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evalkit.leaderboard.delimited import csv_text
from evalkit.leaderboard.facts import Board, Entry, Group
from evalkit.reporting.comparison import comparison_table
from evalkit.reporting.costs import known_costs
from evalkit.reporting.formatting import MISSING
from evalkit.reporting.rendering import Cell, Column, Table, escaped, to_markdown
from evalkit.spec import Scalar

_TEXTS = 2  # the columns of a comparison table before the numbers: model and family
_MARK = "•"
_LEADING = ("model", "family", "rank_best", "rank_worst")
_TRAILING = ("pareto", "trust", "source_url", "notes", "warnings", "protocol", "fingerprint", "run_id")


def group_table(group: Group) -> Table:
    """Return the entries of one group as a table, the metric that ranks first.

    Raises:
        NothingMeasuredError: no entry holds a score or a speed.
    """
    records = [entry.record for entry in group.entries]
    compared = comparison_table(records)
    at = {str(data["run_id"]): place for place, data in enumerate(compared.data)}
    places = [at[entry.record.run_id] for entry in group.entries]
    order = _headline_first(compared, group, len(known_costs(records)))
    rows = [
        (
            replace(compared.rows[place][0], text=entry.name),
            Cell(rank_text(entry.ranks)),
            compared.rows[place][1],
            *(compared.rows[place][column] for column in order),
            Cell(_MARK if entry.pareto else ""),
        )
        for entry, place in zip(group.entries, places, strict=True)
    ]
    return replace(
        compared,
        columns=(
            compared.columns[0],
            Column("rank"),
            compared.columns[1],
            *(compared.columns[column] for column in order),
            Column("Pareto", "left"),
        ),
        rows=tuple(rows),
        facts=tuple(_facts(group, compared)),
        notes=(*compared.notes, *(("", text) for text in map(_remark, group.entries) if text)),
        data=tuple(_data(e, compared.data[p]) for e, p in zip(group.entries, places, strict=True)),
    )


def table_csv(board: Board) -> str:
    """Return every row of every group as CSV, the groups under one header."""
    rows = [row for group in board.groups for row in group_table(group).data]
    named = dict.fromkeys(column for row in rows for column in row)
    middle = [column for column in named if column not in {*_LEADING, *_TRAILING}]
    return csv_text([*_LEADING, *middle, *_TRAILING], rows)


def table_md(board: Board) -> str:
    """Return a board as Markdown: its title, what it is about, and a table for each group."""
    parts = [f"# {escaped(board.info.title.strip())}\n"]
    parts += [f"{escaped(part.strip())}\n" for part in board.info.description.split("\n\n") if part.strip()]
    parts += [to_markdown(group_table(group)) for group in board.groups]
    if not board.groups:
        parts.append("No runs yet.\n")
    parts.append("Built by `evalkit leaderboard build`: edit board.toml or add runs, never this file.\n")
    return "\n".join(parts)


def rank_text(ranks: tuple[int, int] | None) -> str:
    """Return a rank, as a range where the intervals leave it open."""
    if ranks is None:
        return MISSING
    best, worst = ranks
    return f"{best}" if best == worst else f"{best}\N{EN DASH}{worst}"


def ranks_by(group: Group, title: str) -> bool:
    """Whether a column with that title holds what ranks; a label of several variants is label/variant."""
    label, headline = title.partition(" ")[0], group.headline
    if group.variant is None:
        return bool(headline) and (label == headline or label.startswith(f"{headline}/"))
    return bool(headline) and label in {headline, f"{headline}/{group.variant}"}


def _headline_first(table: Table, group: Group, costs: int) -> Sequence[int]:
    quality = range(_TEXTS, len(table.columns) - costs)
    ranks = [column for column in quality if ranks_by(group, table.columns[column].title)][:1]
    return [*ranks, *(column for column in range(_TEXTS, len(table.columns)) if column not in ranks)]


def _facts(group: Group, compared: Table) -> Iterator[str]:
    """Ranges of ranks say which order is open: the comparison's close call would say it again."""
    yield from (fact for fact in compared.facts if not fact.startswith("Close call"))
    if group.headline:
        yield (
            f"Ranked by {group.headline}; a range of ranks where 95 % intervals overlap. "
            f"Pareto {_MARK}: no other model here is as good and as fast, and better in one of the two."
        )


def _remark(entry: Entry) -> str:
    told = [entry.trust if entry.trust != "measured" else "", entry.notes, entry.source_url]
    return f"{entry.name}: {'; '.join(filter(None, told))}" if any(told) else ""


def _data(entry: Entry, compared: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    best, worst = entry.ranks or (None, None)
    leading: dict[str, Scalar] = {"model": entry.name, "family": entry.record.model.family}
    return (
        leading
        | {"rank_best": best, "rank_worst": worst}
        | {
            **{key: value for key, value in compared.items() if key not in leading},
            "pareto": entry.pareto,
            "trust": entry.trust,
            "source_url": entry.source_url,
            "notes": entry.notes,
        }
    )
