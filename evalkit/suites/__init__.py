"""Suites: many models under many protocols with many seeds; resumable, one record each, then tables.

suite = read_suite(find_suite("cifar10-jpeg"), flags)
cells = cells_of(suite)
outcome = run_suite(cells, Orders(folder=Path("runs")), suite=suite.name)
for table in suite_tables(outcome.cells, outcome.records): ...
"""

from evalkit.suites.cells import cells_of
from evalkit.suites.document import bundled_suites, find_suite, read_suite
from evalkit.suites.facts import Cell, CellState, Flag, Manifest, Row, Setting, Suite
from evalkit.suites.processes import command_of
from evalkit.suites.seeds import seeds_table
from evalkit.suites.session import Finished, Orders, Outcome, missing_cells, run_suite
from evalkit.suites.tables import SuiteTable, score_rows, suite_tables

__all__ = [
    "Cell",
    "CellState",
    "Finished",
    "Flag",
    "Manifest",
    "Orders",
    "Outcome",
    "Row",
    "Setting",
    "Suite",
    "SuiteTable",
    "bundled_suites",
    "cells_of",
    "command_of",
    "find_suite",
    "missing_cells",
    "read_suite",
    "run_suite",
    "score_rows",
    "seeds_table",
    "suite_tables",
]
