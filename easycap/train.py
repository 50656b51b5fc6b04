"""The training entry point: data -> vocabulary -> model -> loader -> trainer -> evaluation.

All ranks run the same; on those above 0 the run's folder and the tracker do nothing.
"""

from __future__ import annotations

import importlib
import logging
import sys
import types
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from easycap.config.schema import to_yaml
from easycap.models.build import with_architecture
from easycap.registry import import_modules
from easycap.runs.environment import peak_memory
from easycap.runs.find import SWEEP, checkpoint_of, run_of
from easycap.runs.holding import hold_run
from easycap.runs.recording import Recording, open_run
from easycap.runs.run_folder import RunFolder
from easycap.tasks.base import Task
from easycap.tasks.create import check_metrics, task_class
from easycap.tasks.datasets import check_unchanged, data_summary
from easycap.tasks.feature_caching import FEATURES_CACHED, cached_view, prepare_conditions
from easycap.tasks.initial_weights import saved_vocabulary
from easycap.tasks.other_sets import evaluation_set
from easycap.tasks.training import log_start, make_trainer, training_record
from easycap.training.checkpoint_files import checkpoint_to_resume, remove_leftovers
from easycap.training.distributed import SINGLE_PROCESS, Ranks, init_distributed
from easycap.training.shared_disk import check_shared_disk
from easycap.training.threads import use_configured_threads
from easycap.types import Dataset
from easycap.utils.cpu_threads import restore_thread_count
from easycap.utils.processes import end_as_on_interrupt
from easycap.utils.progress_bar import silence


def train(config: dict[str, Any], path: Path, *, command: str) -> float | None:
    """Train one checked config in the folder `path`, or resume there; return the best validation metric.

    The config was already checked by `dry_run`. An existing run is resumed only
    if `config.resume` is set; otherwise this raises `UserError`. In any case status.json
    records how the run ended. Of several ranks the main process calls this, the others
    `join_training`.
    """
    with init_distributed() as ranks:
        return _train(ranks, *ranks.broadcast((config, path.absolute(), command)))


def join_training() -> float | None:
    """Take part in the training that the main process has called, without an output of its own."""
    logging.disable()
    silence()
    end_as_on_interrupt()
    with init_distributed() as ranks:
        return _train(ranks, *ranks.broadcast(None))


def _train(ranks: Ranks, config: dict[str, Any], path: Path, command: str) -> float | None:
    import_modules(config["imports"])  # on ranks other than the main one, which has checked the config
    with hold_run(path) if ranks.is_main else nullcontext():
        run = open_run(path, command=command, resume=bool(config["resume"]), writes=ranks.is_main)
        return _train_in(run, ranks, config, command)


def _train_in(run: RunFolder, ranks: Ranks, config: dict[str, Any], command: str) -> float | None:
    path, config = run.path, with_architecture(config)
    run.write_config(to_yaml(config))
    ranks.on_rank_lost = partial(run.write_status, "failed")
    with restore_thread_count(), Recording(run) as recording:
        check_shared_disk(ranks, path)
        use_configured_threads(config["trainer"]["threads"])
        resume_from = ranks.broadcast(checkpoint_to_resume(path) if ranks.is_main else None)

        task = create_task(config, resume_from=resume_from, ranks=ranks)
        with ranks.main_process_first():
            features = cached_view(task, resume_from, more_runs=(path.parent / SWEEP).is_file())
            prepare_conditions(task)
        run.update_result({FEATURES_CACHED: features is not None})
        if ranks.is_main:
            task.conditions.save(path)
        run.update_result({"data": data_summary(task.data)})

        recording.tracker = task.tracker(run)
        checkpoints = path / "checkpoints"
        trainer = make_trainer(
            task, features, tracker=recording.tracker, checkpoints=checkpoints, resume_from=resume_from
        )
        recording.steps = lambda: trainer.state.step
        summary = log_start(task, trainer.epochs.total_steps, resumed=resume_from is not None)
        result = trainer.fit()
        run.update_result(training_record(task, result, summary, trainer.objective))

        best = task.with_weights(checkpoint_of(path))
        for split in best.test_splits:
            images = evaluation_set(best, split, path)
            best.evaluate(images, run, batch_size=config["validation"]["batch_size"], command=command)
        run.update_result({"cost": {"wall_seconds": run.seconds(), **peak_memory(task.device)}})
    if ranks.is_main:
        remove_leftovers(checkpoints, finished=True)
    return result.best


def create_task(
    config: dict[str, Any],
    data: Dataset | None = None,
    *,
    resume_from: Path | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> Task:
    """Return the task of a checked config, ready to train: data, then vocabulary, then model.

    If given, `data` is used instead of reading it. With `resume_from`, a checkpoint of the
    run, nothing is downloaded, and the trainer loads the weights.
    """
    task_cls = task_class(config)
    if data is None:
        with ranks.main_process_first():  # rank 0 writes the data, other ranks read it
            data = task_cls.read_data(config, resume_from)
    if resume_from is not None:
        check_unchanged(data, run_of(resume_from))
    check_metrics(config, data)
    vocabulary = task_cls.build_vocabulary(config, data, saved_vocabulary(config, resume_from))
    model = task_cls.build_model(config, vocabulary, resume_from)
    return task_cls.for_training(config, data, vocabulary, model, resume_from=resume_from, ranks=ranks)


class _CallableModule(types.ModuleType):
    """Makes this module callable, as `easycap.train(...)`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("easycap.api").train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    raise SystemExit("easycap.train is a module without a command line: python -m easycap train ...")
