"""Any number of runs beside each other: what differs between them, what it cost, what it brought."""

from easycap.report.comparison.export import EXPORTS
from easycap.report.comparison.page import write_page
from easycap.report.comparison.runs import Comparison, read_comparison
from easycap.report.comparison.terminal import comparison_table, notes
from easycap.report.comparison.terms import differing_images

__all__ = [
    "EXPORTS",
    "Comparison",
    "comparison_table",
    "differing_images",
    "notes",
    "read_comparison",
    "write_page",
]
