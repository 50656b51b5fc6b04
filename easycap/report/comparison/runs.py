"""Runs read for a comparison: settings, scores, cost, and on which terms each score stands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easycap.registry import describe_choices
from easycap.report.comparison.settings import SEED, differing, flat, following
from easycap.report.comparison.settings import label as label_of
from easycap.report.comparison.terms import ReferenceReader, References, Terms, common_terms
from easycap.report.numbers import COSTS, is_number, metric_order
from easycap.report.reading import Status, find_runs, read_status
from easycap.report.scores import HEADLINE, mapping, score_of
from easycap.report.terminal import summarise

_USUAL_METRICS = (HEADLINE, "truth", "BLEU-4", "METEOR", "SPICE")
SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class Run:
    """One row: `number` from 1, best first; `settings` are dotted keys of its config, as texts."""

    number: int
    folder: Path
    state: str
    problem: str
    command: str
    settings: Mapping[str, str]
    result: Mapping[str, Any]
    references: References | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def cost(self, key: str) -> float | None:
        """Return a number of result.json's cost, None where there is none."""
        value = mapping(self.result, "cost").get(key)
        return value if is_number(value) else None


@dataclass(frozen=True)
class Comparison:
    """Runs in the order of their scores, and the columns of the table that shows them.

    `settings` differ among the runs, `following` too, but only with the choice they belong to. `metrics` come with
    their `terms`; `costs` are keys of result.json's cost that some run has; `waiting` are the overrides of a sweep's
    cells that no folder exists for yet.
    """

    split: str
    runs: tuple[Run, ...]
    settings: tuple[str, ...]
    following: tuple[str, ...]
    has_seeds: bool
    metrics: tuple[str, ...]
    terms: Mapping[str, Terms]
    costs: tuple[str, ...]
    commands: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that say what a run is: the settings, and the seed."""
        return self.settings + (SEED,) * self.has_seeds

    def label(self, run: Run) -> str:
        """Return what tells `run` from the others, in a few words."""
        keys = self.settings
        if len({other.settings.get(SEED) for other in self.runs}) > 1:
            keys = self.keys
        return label_of(run.settings, keys) or run.name

    def score(self, run: Run, metric: str) -> Mapping[str, Any] | None:
        """Return a run's score on the split, None where there is none."""
        return score_of(run.result, self.split, metric)

    def comparable(self, metric: str) -> list[Run]:
        """Return the runs whose score in `metric` stands on the common terms."""
        return [
            run
            for run in self.runs
            if self.score(run, metric) and run.number not in self.terms[metric].reasons
        ]


def read_comparison(paths: Sequence[Path], *, split: str, metrics: Sequence[str] | None) -> Comparison:
    """Read all runs in `paths` (runs, sweeps, folders of them); `metrics` None are the usual ones.

    Raises `ValueError` if a path holds no run, no run has a score yet, or the split or a metric is unknown.
    """
    folders = _folders(paths)
    reader = ReferenceReader()
    runs = [_read_run(folder, reader, split) for folder in folders]
    _require_scores(runs, split)
    names = _metrics(runs, split, metrics)
    runs = sorted(runs, key=lambda run: _rank(run, split, names[0]))
    runs = [replace(run, number=number) for number, run in enumerate(runs, start=1)]
    known = [run.settings for run in runs if run.settings]
    keys = differing(known)
    implied = following(known, keys)
    commands, waiting = _sweeps(paths)
    return Comparison(
        split=split,
        runs=tuple(runs),
        settings=tuple(key for key in keys if key not in implied),
        following=implied,
        has_seeds=any(SEED in settings for settings in known),
        metrics=names,
        terms={metric: terms for metric in names if (terms := _terms(runs, split, metric))},
        costs=tuple(key for key in COSTS if any(run.cost(key) is not None for run in runs)),
        commands=commands,
        waiting=waiting,
    )


def _folders(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            what = "a file; runs are folders" if path.exists() else "no folder"
            raise ValueError(f"{path} is {what}; `easycap runs` lists the runs there are")
        runs = list(find_runs(path))
        if not runs:
            raise ValueError(f"there is no run in {path} or below; `easycap runs` lists the runs there are")
        found |= {run.resolve(): run for run in runs}
    return list(found.values())


def _read_run(folder: Path, reader: ReferenceReader, split: str) -> Run:
    summary = summarise(folder)
    try:
        status = read_status(folder)
    except ValueError:  # a broken folder: summarise says what it lacks
        status = Status(summary.state)
    return Run(
        number=0,
        folder=folder,
        state=summary.state,
        problem=summary.problem or status.error or "",
        command=status.command or "",
        settings=flat(summary.config or {}),
        result=summary.result or {},
        references=reader.read(folder / f"references.{split}.json"),
    )


def _require_scores(runs: Sequence[Run], split: str) -> None:
    splits = list(dict.fromkeys(name for run in runs for name in mapping(run.result, "scores")))
    if not splits:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).items())
        raise ValueError(
            f"no run has been scored yet ({states}): wait, or go on by `easycap train resume=RUN`; "
            "`easycap runs` shows how far they are"
        )
    if not any(split in mapping(run.result, "scores") for run in runs):
        raise ValueError(f"no run has scores of split {split!r}; {describe_choices(split, splits)}")


def _metrics(runs: Sequence[Run], split: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    there = metric_order(name for run in runs for name in mapping(run.result, "scores", split))
    there = [name for name in there if any(score_of(run.result, split, name) for run in runs)]
    for name in wanted or ():
        if name not in there:
            raise ValueError(f"--metrics {name}: no run has it on {split}; {describe_choices(name, there)}")
    if wanted:
        return tuple(dict.fromkeys(wanted))
    return tuple(name for name in _USUAL_METRICS if name in there) or tuple(there[:4])


def _terms(runs: Sequence[Run], split: str, metric: str) -> Terms | None:
    scored = {
        run.number: (str(score.get("signature") or ""), run.references)
        for run in runs
        if (score := score_of(run.result, split, metric))
    }
    return common_terms(scored)


def _rank(run: Run, split: str, metric: str) -> tuple[bool, float, str]:
    score = score_of(run.result, split, metric)
    return (score is None, -score["value"] if score else 0.0, run.name)


def _sweeps(paths: Sequence[Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands of the sweeps in `paths`, and the overrides of their cells that have no folder yet."""
    commands, waiting = [], []
    for path in paths:
        for file in sorted({*path.glob(SWEEP_FILE), *path.glob(f"*/{SWEEP_FILE}")}):
            try:
                sweep = json.loads(file.read_text(encoding="utf-8"))
                cells = [(str(cell["folder"]), " ".join(cell["overrides"])) for cell in sweep["cells"]]
                found = [str(command) for command in sweep["commands"]]
            except (ValueError, OSError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{file} is no list of a sweep's cells ({error}); remove it to compare the runs alone"
                ) from None
            commands += found
            waiting += [overrides for folder, overrides in cells if not (file.parent / folder).is_dir()]
    return tuple(commands), tuple(waiting)
