"""The curves of many runs as compact numbers, for the page's script to draw over each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from easycap.report.comparison.read_runs import Comparison
from easycap.report.scores import HEADLINE, TAG_HEADLINE
from easycap.runs.reading import read_metrics, series

_BUDGET = 16_000  # points of one chart: more cannot be seen, and the page stays small
_MAX_POINTS = 240
_SHOWN = (f"val/{HEADLINE}", f"val/{TAG_HEADLINE}", "val/truth", "val/loss", "train/loss")

_Line = tuple[list[int], list[float | None]]  # steps, values


def overlaid_curves(comparison: Comparison) -> list[dict[str, Any]]:
    """Return [{"title", "lines": {run number: [[steps], [values]]}}]; scores and shares are ×100."""
    limit = max(12, min(_MAX_POINTS, _BUDGET // len(comparison.runs)))
    charts: dict[str, dict[int, _Line]] = {key: {} for key in _SHOWN}
    for run in comparison.runs:
        metrics = read_metrics(run.folder)
        for key, lines in charts.items():
            steps, values = series(metrics, key)
            if steps:
                lines[run.number] = _thinned(steps, values, 100.0 if _hundredfold(key) else 1.0, limit)
    # One point per run does not make a curve; the table has it.
    return [
        {"title": k, "lines": lines}
        for k, lines in charts.items()
        if any(len(x) > 1 for x, _ in lines.values())
    ]


def _hundredfold(key: str) -> bool:
    return key.startswith("val/") and not key.endswith("loss")


def _thinned(steps: list[int], values: list[float], scale: float, limit: int) -> _Line:
    """At most `limit` means of neighbours; None where nothing was finite."""
    bins = np.array_split(np.arange(len(steps)), min(limit, len(steps)))
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float) * scale
    centres = [round(float(x[rows].mean())) for rows in bins]
    centres[0], centres[-1] = steps[0], steps[-1]
    means = [
        float(y[rows][np.isfinite(y[rows])].mean()) if np.isfinite(y[rows]).any() else None for rows in bins
    ]
    return centres, [None if mean is None else float(f"{mean:.4g}") for mean in means]
