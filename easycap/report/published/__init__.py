"""Published scores of a paper, and runs beside them."""

from easycap.report.published.beside import Beside, beside
from easycap.report.published.export import EXPORTS
from easycap.report.published.rows import Paper, Row, read_paper
from easycap.report.published.terminal import show

__all__ = ["EXPORTS", "Beside", "Paper", "Row", "beside", "read_paper", "show"]
