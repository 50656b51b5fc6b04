"""From overrides to a checked run whose folder is not yet made: compose -> validate -> dry run -> run folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from easycap.config.compose import Composition, compose
from easycap.config.data_locations import LOCATIONS, split_locations
from easycap.config.hydra_job import run_in
from easycap.config.validate import check_used, validate, warn_of_epochs
from easycap.errors import UserError
from easycap.runs.find import shown
from easycap.runs.holding import is_alive
from easycap.runs.run_folder import new_run_folder
from easycap.utils.files import read_mapping
from easycap.utils.paths import outputs_dir

T = TypeVar("T")


class _BufferedRecords(logging.Handler):
    """Buffers what is logged before the run's folder exists, and writes it there later."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> _BufferedRecords:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


@dataclass(frozen=True)
class PreparedRun:
    """A run whose config has been checked and whose folder is not yet made."""

    config: dict[str, Any]
    composition: Composition
    folder: Path
    command: str
    records: Sequence[logging.LogRecord]
    is_completed: bool

    def run(self, work: Callable[[], T]) -> T:
        """Return `work()`, called in the run's folder, with logging to its file."""

        def replay_and_work() -> T:
            for record in self.records:
                logging.getLogger(record.name).handle(record)
            return work()

        return run_in(self.composition.full, replay_and_work)


def prepare(overrides: Sequence[str], *, flags: Sequence[str] = ()) -> PreparedRun:
    """Compose, validate and dry-run the run that overrides describe; `flags` are those of its command.

    Raises `UserError` for settings that are wrong, and for a run to be resumed that cannot be.
    """
    overrides, locations = list(overrides), dict[str, str]()
    if any(re.match(r"\+{0,2}resume=(?!null$|$)", word) for word in overrides):  # all else is the run's own
        overrides, locations = split_locations(overrides)
    check_used(overrides)
    composition = compose(overrides)
    with _BufferedRecords() as buffered:
        config = validate(composition.config, locations)
        warn_of_epochs(overrides, config)
        from easycap.tasks.dry_run import dry_run  # loads torch; wrong overrides need not wait for it

        dry_run(config, memory=True)
    is_completed = bool(config["resume"]) and _is_completed(config["resume"], overrides)
    folder = _run_folder(config, composition, overrides)
    composition.full.hydra.run.dir = str(folder)
    words = [*flags, *overrides, *(f"{key}={path}" for key, path in locations.items())]
    command = " ".join(["easycap train", *map(shown, words)])
    return PreparedRun(config, composition, folder, command, buffered.records, is_completed)


def _is_completed(run: str, overrides: Sequence[str]) -> bool:
    """Whether a run to be resumed is completed; `UserError` if it cannot be resumed."""
    others = [o for o in overrides if o.lstrip("+").partition("=")[0] not in ("resume", "device")]
    if others:
        raise UserError(
            f"resume uses the run's own config; remove {' '.join(others)} (only device= and locations of data may "
            f"change: {'=, '.join(LOCATIONS)}=)"
        )
    status = _status_of(Path(run))
    if status.get("status") == "completed":
        return True
    if is_alive(status):
        raise UserError(f"resume={run} is still running (process {status['pid']}): stop it first")
    return False


def _status_of(run: Path) -> dict[str, Any]:
    path = run / "status.json"
    return read_mapping(path) if path.is_file() else {}


def _run_folder(config: dict[str, Any], composition: Composition, overrides: Sequence[str]) -> Path:
    """The run's folder, not yet made: the run's own, that of hydra.run.dir=, or a new one below the outputs."""
    if config["resume"]:
        return Path(config["resume"]).absolute()
    if any(word.lstrip("+").startswith("hydra.run.dir=") for word in overrides):
        return Path(composition.full.hydra.run.dir).absolute()
    choices = composition.choices
    tokens = f"{choices['image_tokens']}{config['image_tokens'].get('count', '')}"
    parts = ["tags", choices["tagger"]] if config["task"] == "tags" else [tokens, choices["decoder"]]
    if config["captioner"]["name"] != "parts":
        parts = [choices["captioner"], Path(config["captioner"]["model"]).name]
    else:
        parts = [choices["encoder"], *parts]
    return new_run_folder(outputs_dir() / "runs", [choices["data"], *parts])
