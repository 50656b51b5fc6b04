"""The tracker that mirrors a run into MLflow."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from easycap.errors import UserError
from easycap.registry import SharedSettings, register
from easycap.runs.reading import last_step
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import chosen_parts, flat_scores, flat_settings, stored_run_id
from easycap.utils.extras import check_extra
from easycap.utils.paths import outputs_dir
from easycap.utils.processes import lock

logger = logging.getLogger(__name__)

# MLflow's limits: parameters and metrics of one request, characters of a parameter's value.
_PARAMETERS_AT_ONCE, _METRICS_AT_ONCE, _LONGEST_VALUE = 100, 1000, 6000
# Unless the user has set them: a server that does not answer must not hold up a run for many minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
# How a run ends -> MLflow's status.
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@dataclass(frozen=True, kw_only=True)
class MlflowSettings(SharedSettings):
    """Settings of MLflow; `UserError` if it is not installed.

    `uri` is a server or a database; None takes MLFLOW_TRACKING_URI, else mlflow.db in the
    outputs folder. `group` is a tag that the runs of a sweep share.
    """

    uri: str | None
    experiment: str
    group: str | None
    also: list[str]

    def __post_init__(self) -> None:
        check_extra("mlflow", "tracking=mlflow")


@register("tracking", "mlflow")
class MlflowTracker:
    """Mirrors a run into MLflow: settings, curves, scores, and result.json with the samples as artifacts.

    Raises `UserError` if MLflow cannot be reached at the start. If it stops answering later,
    the run goes on: its own folder has everything.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], *, settings: MlflowSettings) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # seconds to import: only runs that use it pay
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self._path, self._metric, self._failures = folder.path, Metric, (MlflowException, OSError)
        self._lost = False
        outputs_dir().mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{outputs_dir() / 'mlflow.db'}"
        self._uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        try:
            # Runs of a sweep that start together must not make the database or the experiment twice.
            with lock(outputs_dir() / ".mlflow.lock"):
                self._client = MlflowClient(tracking_uri=self._uri)
                self._id = self._start(settings, config, Param)
        except self._failures as error:
            raise UserError(f"MLflow at {self._uri} cannot be used: {_first_line(error)}") from None

    def _start(self, settings: MlflowSettings, config: Mapping[str, Any], parameter: Any) -> str:
        """Return the id of a new run with its parameters, or of the run that is resumed."""
        file = self._path / "mlflow" / "run_id"
        if file.is_file():
            run_id = file.read_text(encoding="utf-8").strip()
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        run_id = stored_run_id(file, lambda: self._create(settings, config))
        named = flat_settings(config).items()
        parameters = [parameter(key, str(value)[:_LONGEST_VALUE]) for key, value in named]
        for some in _chunks(parameters, _PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=some)
        return run_id

    def _create(self, settings: MlflowSettings, config: Mapping[str, Any]) -> str:
        """Return the id of a new run of the experiment, which is made if it does not exist."""
        found = self._client.get_experiment_by_name(settings.experiment)
        if found is None:
            # Artifacts of a local database go next to it, not into the current folder.
            local = str(outputs_dir() / "mlflow_artifacts") if self._uri.startswith("sqlite:") else None
            experiment = self._client.create_experiment(settings.experiment, artifact_location=local)
        else:
            experiment = found.experiment_id
        tags = dict(part.split(": ", 1) for part in chosen_parts(config) if ": " in part)
        if "oracle" in chosen_parts(config):
            tags["oracle"] = "true"
        if settings.group:
            tags["group"] = settings.group
        return self._client.create_run(experiment, run_name=self._path.name, tags=tags).info.run_id

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(_metric_name(name), value, now, step) for name, value in values.items()]
        for some in _chunks(metrics, _METRICS_AT_ONCE):
            self._try(partial(self._client.log_batch, self._id, metrics=some))

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        table = [{"id": r["id"], "caption": r["caption"], "references": list(r["references"])} for r in rows]
        name = f"samples/epoch-{epoch:03d}.json"
        self._try(lambda: self._client.log_dict(self._id, {"step": step, "samples": table}, name))

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        self.log(flat_scores(result), step=last_step(self._path) or 0)
        for name in ("config.yaml", "result.json"):
            if (self._path / name).is_file():
                self._try(partial(self._client.log_artifact, self._id, str(self._path / name)))
        if error:
            self._try(lambda: self._client.set_tag(self._id, "error", error[:_LONGEST_VALUE]))
        self._try(lambda: self._client.set_terminated(self._id, _STATUS[status]))

    def _try(self, call: Callable[[], Any]) -> None:
        """Call MLflow unless it has failed before; a failure is reported once."""
        if self._lost:
            return
        try:
            call()
        except self._failures as error:
            self._lost = True
            logger.warning(
                "MLflow at %s failed; the rest of this run is logged to its own folder only (%s)",
                self._uri,
                _first_line(error),
            )


def _metric_name(name: str) -> str:
    """Replace @ (used for scores of other sets and decodings), which MLflow's names cannot contain."""
    return name.replace("@", " at ")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
