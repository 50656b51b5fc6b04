"""`sweep.search=optuna`: a search for good settings by Optuna's TPE sampler, instead of all combinations.

Each trial is a run of the sweep, trained by the launcher in a process of its own. The study is in the sweep's folder:
the same command again resumes unfinished trials and adds those that are missing. Validations of a run are reported as
they are logged, and a run that is below the median of completed runs after the same number of validations is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import accumulate
from pathlib import Path
from typing import Any

from easycap.config.options import options
from easycap.errors import UserError
from easycap.runs.find import shown
from easycap.runs.reading import read_metrics
from easycap.runs.run_folder import write_json
from easycap.sweeps.plan import Plan, Request, write_plan
from easycap.sweeps.plan_runs import planned_runs_of
from easycap.sweeps.planned_run import LOG, Children, Outcome, PlannedRun
from easycap.sweeps.space import Interval, Space, search_space
from easycap.tasks.create import task_class
from easycap.utils.extras import check_extra
from easycap.utils.processes import end_as_on_interrupt, lock
from easycap.utils.text import NOTHING, duration_text, score_text

STUDY = "study.journal"
_SECONDS_BETWEEN_LOOKS = 1.0
_RANDOM_TRIALS = 8  # random trials before the sampler uses earlier results
_TRIALS_BEFORE_PRUNING = 4


def run_search(request: Request, launcher: Any, command: str) -> int:
    """Run the requested search; return 0, or 1 if no trial was completed.

    Raises `UserError` before the first run starts, and `KeyboardInterrupt` after the summary if it was stopped.
    """
    optuna = _optuna()
    space = search_space(request.settings["axes"], request.varied, request.fixed, options)
    axes = {key: values if isinstance(values, list) else [str(values.low)] for key, values in space.items()}
    folder = request.folder_for([axes], [*request.fixed, *request.varied])
    first = {key: [values[0]] for key, values in axes.items()}
    ((_, settings),) = planned_runs_of(request.fixed, [first], folder, telling=space).items()
    metric = settings["validation"]["metric"] or task_class(settings).default_metric
    if request.settings["dry_run"]:
        print(f"{request.settings['trials']} trials in {shown(folder)}, for the best {metric} in validation:")
        for key, values in space.items():
            print(f"  {key}  {_described(values)}")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".locks" / "search", wait=False) as held:
        if held is None:
            raise UserError(f"{shown(folder)}: another process is already running this search")
        end_as_on_interrupt()
        return _Search(optuna, request, space, folder, metric, launcher, command).run()


def _described(values: list[str] | Interval) -> str:
    if isinstance(values, list):
        return ", ".join(values)
    return (
        f"{values.low:g} to {values.high:g}" + ", whole numbers" * values.whole + ", log scale" * values.log
    )


def _optuna() -> Any:
    check_extra("optuna", "sweep.search=optuna")
    import optuna
    import optuna.storages.journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _Search:
    """A study and its workers: as many as the launcher has jobs, each with one trial at a time."""

    def __init__(
        self,
        optuna: Any,
        request: Request,
        space: Space,
        folder: Path,
        metric: str,
        launcher: Any,
        command: str,
    ) -> None:
        self.optuna, self.request, self.space, self.folder = optuna, request, space, folder
        self.metric, self.launcher, self.command = metric, launcher, command
        self.children, self.guard = Children(), threading.Lock()
        self.count, self.shown = request.settings["trials"], 0
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(folder / STUDY))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is marked as experimental
            self.study = optuna.create_study(
                study_name="search", storage=storage, load_if_exists=True, direction="maximize"
            )
            self.study.sampler = optuna.samplers.TPESampler(
                seed=len(self.study.trials), n_startup_trials=_RANDOM_TRIALS, constant_liar=True
            )
        self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING)
        running = self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        self.unfinished = [optuna.trial.Trial(self.study, trial._trial_id) for trial in running]

    def run(self) -> int:
        """Train the missing trials, and print the result."""
        done, jobs = len(self.study.trials) - len(self.unfinished), getattr(self.launcher, "jobs", 1)
        print(
            f"{self.count} trials in {shown(self.folder)}: {done} done, {len(self.unfinished)} unfinished, "
            f"for the best {self.metric} in validation",
            flush=True,
        )
        self.shown, stopped = done, False
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._work) for _ in range(jobs)]
            try:
                for future in as_completed(futures):
                    future.result()
            except KeyboardInterrupt:
                stopped = True
                self.children.stop()
            except BaseException:
                self.children.stop()
                raise
        code = self._summarise()
        if stopped:
            raise KeyboardInterrupt
        return code

    def _work(self) -> None:
        while (claimed := self._next()) is not None:
            trial, run = claimed
            if run is None:
                continue
            done = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(trial, run, done), daemon=True)
            watcher.start()
            try:
                ((_, outcome),) = self.launcher([run], self.children)
            finally:
                done.set()
                watcher.join()
            with self.guard:
                self._tell(trial, run, outcome)

    def _next(self) -> tuple[Any, PlannedRun | None] | None:
        """A trial and its run, or None for an invalid run; None if there is nothing left to do."""
        with self.guard:
            if self.children.stopped.is_set():
                return None
            if self.unfinished:
                trial = self.unfinished.pop(0)
            elif len(self.study.trials) < self.count:
                trial = self.study.ask()
            else:
                return None
            axes = {key: [self._value(trial, key)] for key in self.space}
            try:
                runs = planned_runs_of(self.request.fixed, [axes], self.folder, telling=self.space)
            except UserError as error:
                self._finish(trial, "FAIL")
                self._print(f"{error}")
                return trial, None
            plan = Plan(self.folder, [axes], list(runs), list(runs.values()), self.request.launcher, False)
            write_plan(plan, self.command)
            (run,) = runs
            if self._was_stopped(run):  # training it would resume it
                self._finish(trial, "PRUNED")
                self._print(f"{run.label}  was chosen again, but had been stopped")
                return trial, None
            trial.set_user_attr("run", run.label)
            return trial, run

    def _was_stopped(self, run: PlannedRun) -> bool:
        pruned = self.study.get_trials(states=(self.optuna.trial.TrialState.PRUNED,))
        return any(trial.user_attrs.get("run") == run.label for trial in pruned)

    def _value(self, trial: Any, key: str) -> str:
        """A trial's value of a setting, as it is written in an override."""
        values = self.space[key]
        if isinstance(values, list):
            return trial.suggest_categorical(key, values)
        if values.whole:
            return str(trial.suggest_int(key, int(values.low), int(values.high), log=values.log))
        return f"{trial.suggest_float(key, values.low, values.high, log=values.log):.4g}"

    def _watch(self, trial: Any, run: PlannedRun, done: threading.Event) -> None:
        """Report a run's validations as they are logged, the last after its end; stop it if it is to be pruned."""
        reported, is_below, is_over = 0, False, False
        while not is_over:
            is_over = done.wait(_SECONDS_BETWEEN_LOOKS)
            for value in [] if is_below else self._validations(run)[reported:]:
                reported += 1
                trial.report(value, reported)
                if self.request.settings["prune"] and not is_over and trial.should_prune():
                    is_below = True
                    break
            # Its process may not be known yet; then it is stopped at the next look.
            if is_below and not is_over and _stop(run):
                trial.set_user_attr("stopped", reported)
                return

    def _validations(self, run: PlannedRun) -> list[float]:
        """The best value so far at each validation that a run has logged."""
        values = [row.get(f"val/{self.metric}") for row in read_metrics(run.folder)]
        return list(accumulate((value for value in values if value is not None), max))

    def _tell(self, trial: Any, run: PlannedRun, outcome: Outcome) -> None:
        found = self._validations(run)
        reached = f"{run.label}  {self.metric} {score_text(found[-1]) if found else NOTHING}"
        if outcome.state == "completed" and found:
            self._finish(trial, "COMPLETE", found[-1])
            self._print(f"{reached}  {duration_text(outcome.seconds)}")
        elif outcome.state == "interrupted" and (count := trial.user_attrs.get("stopped")):
            why = f"stopped by the search after {count} validation{'s' * (count > 1)}"
            write_json(run.folder / "status.json", _status(run) | {"error": why})
            self._finish(trial, "PRUNED")
            self._print(f"{reached}  {why}")
        elif outcome.state != "interrupted":
            self._finish(trial, "FAIL")
            self._print(f"{run.label}  failed: {outcome.error or 'no validation'}  {shown(run.folder / LOG)}")

    def _finish(self, trial: Any, state: str, value: float | None = None) -> None:
        self.study.tell(trial, value, state=self.optuna.trial.TrialState[state])

    def _print(self, text: str) -> None:
        self.shown += 1
        print(f"[{self.shown:>{len(str(self.count))}}/{self.count}] {text}", flush=True)

    def _summarise(self) -> int:
        states = self.optuna.trial.TrialState
        counts = {
            name: len(self.study.get_trials(states=(state,)))
            for name, state in (
                ("completed", states.COMPLETE),
                ("stopped early", states.PRUNED),
                ("failed", states.FAIL),
            )
        }
        print(
            "\n"
            + ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "completed")
        )
        if counts["completed"]:
            best = self.study.best_trial
            print(f"best: {best.user_attrs['run']}  {self.metric} {score_text(best.value)} in validation")
            print(f"compare: easycap compare {shown(self.folder)}")
        print(f"The same command again resumes unfinished trials; sweep.trials={2 * self.count} adds trials.")
        return 0 if counts["completed"] else 1


def _stop(run: PlannedRun) -> bool:
    """Ask a run's process to save and end, if it runs on this machine."""
    status = _status(run)
    if status.get("status") != "running" or status.get("host") != socket.gethostname():
        return False
    os.kill(status["pid"], signal.SIGTERM)
    return True


def _status(run: PlannedRun) -> dict[str, Any]:
    return json.loads((run.folder / "status.json").read_text(encoding="utf-8"))
