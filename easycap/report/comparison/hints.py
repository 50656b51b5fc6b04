"""What to do about runs that were evaluated on different sets of images."""

from __future__ import annotations

from collections.abc import Sequence

from easycap.report.comparison.read_runs import Comparison, Run
from easycap.report.scores import mapping

EVALUATE_ON_THE_SAME = (
    "`easycap evaluate RUN data=NAME` scores a run on another data set, --split SPLIT on another split"
)


def hints(comparison: Comparison) -> list[str]:
    """Return a line about the runs that lack scores of the split, and one about those scored on other images."""
    lines = []
    scored = {run.number: set(mapping(run.result, "scores")) for run in comparison.runs}
    elsewhere = [
        run for run in comparison.runs if scored[run.number] and comparison.split not in scored[run.number]
    ]
    if elsewhere:
        labels = sorted({label for run in elsewhere for label in scored[run.number]})
        line = f"{_numbered(elsewhere)} not scored on {comparison.split}, only on {', '.join(labels)}"
        shared = sorted(set.intersection(*(found for found in scored.values() if found)))
        remedy = f"--split {shared[0]} compares all of them" if shared else EVALUATE_ON_THE_SAME
        lines.append(f"{line}: {remedy}")
    if odd := _on_other_images(comparison):
        lines.append(f"{_numbered(odd)} scored on other images or references: {EVALUATE_ON_THE_SAME}")
    return lines


def _on_other_images(comparison: Comparison) -> list[Run]:
    """The runs whose references are not those of the runs under the common protocol."""
    usual = {run.references.digest for run in comparison.comparable(comparison.metrics[0]) if run.references}
    return [
        run
        for run in comparison.runs
        if usual
        and run.references
        and run.references.digest not in usual
        and mapping(run.result, "scores", comparison.split)
    ]


def _numbered(runs: Sequence[Run]) -> str:
    return f"{', '.join(f'#{run.number}' for run in runs)} {'was' if len(runs) == 1 else 'were'}"
