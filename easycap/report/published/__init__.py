"""Published scores of a paper, and the runs that reproduce them."""

from easycap.report.published.matching import MatchedRow, match_runs
from easycap.report.published.print_rows import show
from easycap.report.published.rows import Paper, Row, read_paper
from easycap.report.published.table_formats import EXPORTS

__all__ = ["EXPORTS", "MatchedRow", "Paper", "Row", "match_runs", "read_paper", "show"]
