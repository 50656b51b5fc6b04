"""Pages and tables made from the files of runs; nothing here loads torch or a live object of a run."""

from easycap.report.page import write_report
from easycap.report.reading import RunFiles, read_run
from easycap.report.terminal import RunSummary, list_runs, runs_table, scores_table, scores_tables

__all__ = [
    "RunFiles",
    "RunSummary",
    "list_runs",
    "read_run",
    "runs_table",
    "scores_table",
    "scores_tables",
    "write_report",
]
