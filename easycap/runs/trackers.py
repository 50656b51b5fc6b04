"""Trackers: a run's own files first, other systems as their mirrors."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.registry import register
from easycap.runs.reading import read_metrics
from easycap.runs.run_folder import RunFolder
from easycap.types import Tracker, has_oracle
from easycap.utils.files import write_atomically


class FileTracker:
    """Writes metrics.jsonl, samples and status.json into the run's folder; that is all a report needs."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.folder.append_metrics(values, step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        self.folder.write_samples(f"epoch-{epoch:03d}", rows)

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        self.folder.write_status(status, error)


class Trackers:
    """Several trackers as one, called in order."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self.members = members

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        for member in self.members:
            member.log(values, step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        for member in self.members:
            member.samples(rows, step=step, epoch=epoch)

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        for member in self.members:
            member.finish(result, status=status, error=error)


@register("tracking", "none")
def none() -> Tracker:
    """Track in the run's folder only."""
    return Trackers([])


@register("tracking", "csv")
class CsvTracker:
    """Writes metrics.csv, the run's metrics.jsonl as a table, at each validation and at the end."""

    def __init__(self, folder: RunFolder, *, also: list[str]) -> None:
        self.path = folder.path

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        pass

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        self._write()

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        self._write()

    def _write(self) -> None:
        rows = read_metrics(self.path)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", table.getvalue())


def chosen_parts(config: Mapping[str, Any]) -> list[str]:
    """Return the parts a run is made of as texts ("decoder: gpt2_tiny"), and whether its scores are an oracle's."""
    groups = ("data", "vocab", "encoder", "image_tokens", "decoder", "objective")
    parts = (
        f"{group}: {config[group].get('model') or config[group]['name']}"
        for group in groups
        if group in config
    )
    return [*parts, *["oracle"] * has_oracle(config)]


def stored_run_id(file: Path, make: Callable[[], str]) -> str:
    """Return the id that another system knows the run by, kept in its folder: a resumed run keeps the same id."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, make())
    return file.read_text(encoding="utf-8").strip()


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"decoder.width": 96, ...}: the settings of a config by their names on the command line."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat_settings(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def flat_scores(result: Mapping[str, Any] | None) -> dict[str, float]:
    """Return {"test/CIDEr-D": 1.2, "cost/wall_seconds": 30.0, ...}: the numbers of a result.json."""
    found: dict[str, float] = {}
    for split, scores in ((result or {}).get("scores") or {}).items():
        values = {f"{split}/{metric}": score.get("value") for metric, score in scores.items()}
        found |= {name: value for name, value in values.items() if value is not None}
    costs = ((result or {}).get("cost") or {}).items()
    return found | {f"cost/{name}": value for name, value in costs if isinstance(value, (int, float))}
