"""Pages and tables made from the files of runs; nothing here loads torch or a live object of a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easycap.report.rich_tables import RunSummary, list_runs, runs_table, scores_table, scores_tables
    from easycap.report.run_page import write_report

_MODULES = {
    "RunSummary": "rich_tables",
    "list_runs": "rich_tables",
    "runs_table": "rich_tables",
    "scores_table": "rich_tables",
    "scores_tables": "rich_tables",
    "write_report": "run_page",
}

__all__ = [
    "RunSummary",
    "list_runs",
    "runs_table",
    "scores_table",
    "scores_tables",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # A list of runs needs no templates of pages, a number as text no tables.
    if name in _MODULES:
        return getattr(importlib.import_module(f"easycap.report.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'easycap.report' has no attribute {name!r}")
