"""Runs read for a comparison: settings, scores, cost, and the protocol of each score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.report.comparison.protocol import Protocol, ReferenceReader, References, common_protocol
from easycap.report.comparison.settings import SEED, differing, flat, following, locations, with_locations
from easycap.report.comparison.settings import label as label_of
from easycap.report.rich_tables import summarise
from easycap.report.scores import HEADLINE, TAG_HEADLINE, mapping, score_of
from easycap.runs.find import SWEEP
from easycap.runs.provenance import known_config
from easycap.runs.reading import Status, planned_runs, read_status, runs_in
from easycap.utils.text import COSTS, is_number, metric_order

_USUAL_METRICS = (HEADLINE, TAG_HEADLINE, "truth", "BLEU-4", "METEOR", "SPICE", "F1@3")
LONGEST_LABEL = 80  # characters


@dataclass(frozen=True)
class Run:
    """One row: `number` from 1, best first; `settings` are dotted keys of its config, as texts."""

    number: int
    folder: Path
    state: str
    problem: str
    command: str
    settings: Mapping[str, str]
    locations: Mapping[str, str]
    result: Mapping[str, Any]
    references: References | None

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return self.folder.resolve().name

    def cost(self, key: str) -> float | None:
        """Return a number of result.json's cost, None where there is none."""
        value = mapping(self.result, "cost").get(key)
        return value if is_number(value) else None


@dataclass(frozen=True)
class Comparison:
    """Runs in the order of their scores, and the columns of the table that shows them.

    `settings` differ among the runs, `following` too, but only with the choice they belong to. `metrics` come with
    their `protocols`; `costs` are keys of result.json's cost that some run has; `waiting` are the overrides of a
    sweep's runs that no folder exists for yet.
    """

    split: str
    runs: tuple[Run, ...]
    settings: tuple[str, ...]
    following: tuple[str, ...]
    has_seeds: bool
    metrics: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    costs: tuple[str, ...]
    commands: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that say what a run is: the settings, and the seed."""
        return self.settings + (SEED,) * self.has_seeds

    def label(self, run: Run) -> str:
        """Return what distinguishes `run` from the others, in a few words; its name where these would be many."""
        keys = self.settings
        if len({other.settings.get(SEED) for other in self.runs}) > 1:
            keys = self.keys
        found = label_of(run.settings, keys)
        return found if 0 < len(found) <= LONGEST_LABEL else run.name

    def score(self, run: Run, metric: str) -> Mapping[str, Any] | None:
        """Return a run's score on the split, None where there is none."""
        return score_of(run.result, self.split, metric)

    def comparable(self, metric: str) -> list[Run]:
        """Return the runs whose score in `metric` was computed under the common protocol."""
        return [
            run
            for run in self.runs
            if self.score(run, metric) and run.number not in self.protocols[metric].reasons
        ]


def read_comparison(paths: Sequence[Path], *, split: str, metrics: Sequence[str] | None) -> Comparison:
    """Read all runs in `paths` (runs, sweeps, folders of them); `metrics` None are the usual ones.

    Raises `UserError` if a path contains no run, no run has a score yet, or the split or a metric is unknown.
    """
    reader = ReferenceReader()
    runs = _with_locations([_read_run(folder, reader, split) for folder in runs_in(paths)])
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
        protocols={metric: found for metric in names if (found := _protocol(runs, split, metric))},
        costs=tuple(key for key in COSTS if any(run.cost(key) is not None for run in runs)),
        commands=commands,
        waiting=waiting,
    )


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
        settings=flat(known_config(summary.config or {}, summary.result or {})),
        locations=locations(summary.config or {}),
        result=summary.result or {},
        references=reader.read(folder / f"references.{split}.json"),
    )


def _with_locations(runs: Sequence[Run]) -> list[Run]:
    settings = with_locations(
        [run.settings for run in runs],
        [run.locations for run in runs],
        [run.references.digest if run.references else None for run in runs],
    )
    return [replace(run, settings=found) for run, found in zip(runs, settings, strict=True)]


def _require_scores(runs: Sequence[Run], split: str) -> None:
    splits = list(dict.fromkeys(name for run in runs for name in mapping(run.result, "scores")))
    if not splits:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).items())
        raise UserError(
            f"no run has been scored yet ({states}): wait, or resume them with `easycap train resume=RUN`; "
            "`easycap runs` shows how far they are"
        )
    if not any(split in mapping(run.result, "scores") for run in runs):
        raise UserError(f"no run has scores of split {split!r}; {describe_choices(split, splits)}")


def _metrics(runs: Sequence[Run], split: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    there = _measured(runs, split)
    for name in wanted or ():
        if name not in there:
            raise UserError(f"metric {name!r}: no run has it on {split}; {describe_choices(name, there)}")
    return tuple(dict.fromkeys(wanted)) if wanted else usual_metrics(runs, split)


def usual_metrics(runs: Sequence[Run], split: str) -> tuple[str, ...]:
    """Return the metrics that are shown of a split without being asked for, of those that some run has there."""
    there = _measured(runs, split)
    return tuple(name for name in _USUAL_METRICS if name in there) or tuple(there[:4])


def _measured(runs: Sequence[Run], split: str) -> list[str]:
    there = metric_order(name for run in runs for name in mapping(run.result, "scores", split))
    return [name for name in there if any(score_of(run.result, split, name) for run in runs)]


def _protocol(runs: Sequence[Run], split: str, metric: str) -> Protocol | None:
    scored = {
        run.number: (str(score.get("signature") or ""), run.references)
        for run in runs
        if (score := score_of(run.result, split, metric))
    }
    return common_protocol(scored)


def _rank(run: Run, split: str, metric: str) -> tuple[bool, float, str]:
    score = score_of(run.result, split, metric)
    return (score is None, -score["value"] if score else 0.0, run.name)


def _sweeps(paths: Sequence[Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands of the sweeps in `paths`, and the overrides of their runs that have no folder yet."""
    commands, waiting = [], []
    for path in paths:
        for file in sorted({*path.glob(SWEEP), *path.glob(f"*/{SWEEP}")}):
            try:
                sweep = json.loads(file.read_text(encoding="utf-8"))
                planned = [(str(run["folder"]), " ".join(run["overrides"])) for run in planned_runs(sweep)]
                found = [str(command) for command in sweep["commands"]]
            except (ValueError, OSError, KeyError, TypeError) as error:
                raise UserError(
                    f"{file} is not a list of a sweep's runs ({error}); remove it to compare the runs alone"
                ) from None
            commands += found
            waiting += [overrides for folder, overrides in planned if not (file.parent / folder).is_dir()]
    return tuple(commands), tuple(waiting)
