"""Any number of runs compared: how they differ, what they cost, how they score."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easycap.report.comparison.choice import table_of
    from easycap.report.comparison.columns import DIFFERENT
    from easycap.report.comparison.export import EXPORTS, rows_of
    from easycap.report.comparison.hints import EVALUATE_ON_THE_SAME
    from easycap.report.comparison.page import write_page
    from easycap.report.comparison.protocol import differing_images
    from easycap.report.comparison.read_runs import Comparison, read_comparison
    from easycap.report.comparison.set_scores import set_tables
    from easycap.report.comparison.terminal import comparison_table, notes, set_table

_MODULES = {
    "DIFFERENT": "columns",
    "EVALUATE_ON_THE_SAME": "hints",
    "EXPORTS": "export",
    "Comparison": "read_runs",
    "comparison_table": "terminal",
    "differing_images": "protocol",
    "notes": "terminal",
    "read_comparison": "read_runs",
    "rows_of": "export",
    "set_table": "terminal",
    "set_tables": "set_scores",
    "table_of": "choice",
    "write_page": "page",
}

__all__ = [
    "DIFFERENT",
    "EVALUATE_ON_THE_SAME",
    "EXPORTS",
    "Comparison",
    "comparison_table",
    "differing_images",
    "notes",
    "read_comparison",
    "rows_of",
    "set_table",
    "set_tables",
    "table_of",
    "write_page",
]


def __getattr__(name: str) -> Any:
    # Training and tables read runs, and need no templates of pages for it.
    if name in _MODULES:
        return getattr(importlib.import_module(f"easycap.report.comparison.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'easycap.report.comparison' has no attribute {name!r}")
