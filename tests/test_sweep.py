"""Sweeps: which runs there are, that nothing starts if one is wrong, and that no run's end harms another."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers.tiny_config import TINY
from helpers.waiting import wait_for
from hydra.core.override_parser.overrides_parser import OverridesParser

import easycap
from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.options import options
from easycap.config.schema import check
from easycap.models.captioner import Captioner
from easycap.runs.holding import SILENT_SECONDS
from easycap.sweeps import plan as sweep_plan
from easycap.sweeps import plan_runs, planned_run, slurm
from easycap.sweeps import run as sweep_module
from easycap.sweeps.estimate import Estimator
from easycap.sweeps.space import axes_of, combinations, products

FAKE = Path(__file__).parent / "helpers" / "fake_training.py"
ROOT = str(Path(easycap.__file__).parent.parent)  # for processes: the easycap that is tested


def axes(*overrides: str) -> dict[str, list[str]]:
    parser = OverridesParser.create()
    groups = {"experiment": ["easycap/coco", "easycap/quickstart", "other/one"]}
    return axes_of([parser.parse_override(o) for o in overrides], lambda group: groups[group])


# --------------------------------------------------------------------------------------------- search spaces


def test_values_are_read_as_hydra_writes_them() -> None:
    found = axes(
        "seed=range(1,4)", "vocab=word,bert", "x=[1,2]", "y='a b',c", "experiment=glob(easycap/*)", "z=1"
    )
    assert found == {
        "seed": ["1", "2", "3"],
        "vocab": ["word", "bert"],
        "y": ["'a b'", "c"],
        "experiment": ["easycap/coco", "easycap/quickstart"],
    }


@pytest.mark.parametrize("override", ["x=interval(0,1)", "experiment=glob(nothing*)"])
def test_what_has_no_values_is_refused(override: str) -> None:
    with pytest.raises(ValueError, match=re.escape(override)):
        axes(override)


def test_axes_of_the_command_line_replace_and_join_those_of_the_file() -> None:
    spaces = [{"a": [1, True], "b": "x, y"}, {"a": [None]}]
    assert products(spaces, {"seed": ["1", "2"], "a": ["7"]}, fixed=["b"]) == [
        {"a": ["7"], "seed": ["1", "2"]}
    ]
    assert products(spaces, {}, fixed=[]) == [{"a": ["1", "true"], "b": ["x", "y"]}, {"a": ["null"]}]
    assert combinations({"a": ["1", "2"], "b": ["x", "y"]})[1] == {"a": "1", "b": "y"}
    for wrong in (5, [5], {"a": None}, {"a": {"b": 1}}):
        with pytest.raises(ValueError, match="sweep.axes"):
            products(wrong, {}, fixed=[])


@pytest.mark.parametrize("option", options("sweep"))
def test_every_ready_search_space_composes(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels: list[str] = []
    monkeypatch.setattr(
        sweep_module, "_run", lambda runs, *_: labels.extend(run.label for run in runs) or len(runs)
    )
    checked = []
    monkeypatch.setattr(plan_runs, "DryRuns", lambda: checked.append)
    monkeypatch.setattr(plan_runs, "validate", check)
    assert (
        sweep_module.run_sweep([*NEEDED.get(option, []), f"sweep={option}", f"hydra.sweep.dir={tmp_path}"])
        >= 1
    )
    assert len(checked) == len(json.loads((tmp_path / "sweep.json").read_text())["runs"])
    assert len(set(labels)) == len(labels), "each run has a name of its own"


# What a search space is for, and where pretrained parts lie.
NEEDED: dict[str, list[str]] = {
    "flickr8k_cider": ["objective=scst"],
    "flickr8k_language_model": ["experiment=easycap/flickr8k_smollm2", "data.root=somewhere"],
    "flickr8k_recipe": ["experiment=easycap/flickr8k", "data.root=somewhere"],
    "flickr8k_tags": ["tags.run=somewhere"],
    "flickr8k_drafts": ["draft.run=somewhere"],
}


# ------------------------------------------------------------------------------------------- before the first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["image_tokens.count=1,x"], "run seed=1 image_tokens.count=x: image_tokens.count"),
        (["image_tokens.count=2,0"], "run seed=1 image_tokens.count=0: image_tokens.count=0"),
        (["vocab=word,wrod"], "run seed=1 vocab=wrod: vocab=wrod does not exist; did you mean 'word'?"),
        (["sweep=sedes"], "sweep=sedes does not exist; did you mean 'seeds'?"),
        (["sweep.dryrun=true"], "sweep.dryrun does not exist; did you mean 'dry_run'?"),
        (["sweep.dry_run=perhaps"], "sweep.dry_run=perhaps must be true or false"),
        (["sweep=seeds,none"], "takes one value"),
        (["launcher.jobs=0"], "launcher.jobs=0 must be at least 1"),
        (["launcher.job=2"], "launcher.job does not exist for launcher 'local'; did you mean 'jobs'?"),
        (["hydra/launcher=joblib"], "use launcher=parallel"),
        (["sweep.name=../x"], "names a folder"),
        (["resume=x"], "the same command again"),
        (
            ["trainer.workers=0,1"],
            "run seed=1 trainer.workers=1: it would train the same as seed=1 trainer.workers=0",
        ),
    ],
)
def test_a_wrong_word_anywhere_stops_everything(words, message, capsys, tmp_path: Path) -> None:
    assert main(["train", "-m", *TINY, "seed=1,2", *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_several_values_without_m_are_explained(capsys) -> None:
    assert main(["train", "seed=1,2"]) == 1
    assert "add -m" in capsys.readouterr().err
    assert main(["train", "sweep=seeds"]) == 1
    assert "add -m" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- running


@pytest.fixture
def deeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are trained by a stand-in; a file <seed> in this folder says how it ends."""
    folder = tmp_path / "deeds"
    folder.mkdir()
    monkeypatch.setenv("FAKE_DEEDS", str(folder))
    real = planned_run.command_of
    monkeypatch.setattr(
        planned_run, "command_of", lambda *a, **k: [sys.executable, str(FAKE), *real(*a, **k)[4:]]
    )
    return folder


def sweep(*words: str) -> int:
    return main(["train", "-m", *TINY, "sweep.name=s", *words])


def folder_of(tmp_path: Path, seed: int) -> Path:
    (found,) = (tmp_path / "outputs" / "sweeps" / "s").glob(f"*s{seed}-*")
    return found


def legs(tmp_path: Path, seed: int) -> list[str]:
    return (folder_of(tmp_path, seed) / "legs.txt").read_text().split()


def status(tmp_path: Path, seed: int) -> dict:
    return json.loads((folder_of(tmp_path, seed) / "status.json").read_text())


def test_no_end_of_a_run_harms_another_and_the_same_command_finishes(
    deeds: Path, tmp_path: Path, capsys
) -> None:
    for seed, deed in (("1", "fail"), ("2", "kill"), ("3", "die before the first word")):
        (deeds / seed).write_text(deed)
    assert sweep("seed=1,2,3,4") == 1
    out = capsys.readouterr().out
    assert "1 of 4 runs completed (1 trained)" in out
    for seed, error in (
        (1, "ValueError: as asked"),
        (2, "killed by SIGKILL"),
        (3, "exit code 3: no such luck"),
    ):
        assert error in status(tmp_path, seed)["error"]
        assert re.search(rf"failed +seed={seed}\n +.*{re.escape(error)}.*\n.*output.log", out)
    assert "Traceback of a failure" in (folder_of(tmp_path, 1) / "output.log").read_text()

    for file in deeds.iterdir():
        file.unlink()
    assert sweep("seed=1,2,3,4,5") == 0
    out = capsys.readouterr().out
    assert "5 of 5 runs completed (2 trained, 2 resumed, 1 skipped)" in out
    assert [legs(tmp_path, seed) for seed in (1, 2, 3, 4, 5)] == [["new", "resumed"]] * 2 + [["new"]] * 3
    plan = json.loads((tmp_path / "outputs" / "sweeps" / "s" / "sweep.json").read_text())
    assert plan["axes"] == {"seed": ["1", "2", "3", "4", "5"]} and len(plan["runs"]) == 5
    assert plan["runs"][4]["overrides"] == ["seed=5"] and len(plan["commands"]) == 2


def test_runs_trained_by_other_code_are_skipped_with_a_warning(deeds, tmp_path: Path, capsys) -> None:
    assert sweep("seed=1,2") == 0
    for seed, commit in ((1, "abc-dirty"), (2, sweep_module.git_commit())):
        result = folder_of(tmp_path, seed) / "result.json"
        result.write_text(
            json.dumps(json.loads(result.read_text()) | {"environment": {"git_commit": commit}})
        )
    capsys.readouterr()
    assert sweep("seed=1,2") == 0
    assert "skipping 1 completed run, trained by other code (commit abc-dirty;" in capsys.readouterr().err
    assert legs(tmp_path, 1) == ["new"]


def test_a_grown_axis_keeps_the_finished_runs(deeds, tmp_path: Path, capsys) -> None:
    assert sweep("seed=1,2") == 0
    assert sweep("seed=1,2", "image_tokens.count=2,3") == 0  # 2 is what the runs had anyway
    assert "4 of 4 runs completed (2 trained, 2 skipped)" in capsys.readouterr().out


def start(*words: str) -> subprocess.Popen:
    """A sweep in a process of its own, with the stand-in."""
    code = (
        "import sys, signal; from easycap.sweeps import planned_run; real = planned_run.command_of;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background job of a shell ignores it
        f"planned_run.command_of = lambda *a, **k: [sys.executable, {str(FAKE)!r}, *real(*a, **k)[4:]];"
        "from easycap.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "train", "-m", *TINY, "sweep.name=s", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ROOT}
    )


def test_a_run_of_other_data_does_not_pass_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "config.yaml").write_text(f"data: {{name: coco, root: {tmp_path / 'a'}}}")
    plan_runs._check_same_data(tmp_path, {"data": {"root": str(tmp_path / "a")}})
    with pytest.raises(ValueError, match="was trained on data.root="):
        plan_runs._check_same_data(tmp_path, {"data": {"root": str(tmp_path / "b")}})


def test_a_run_goes_on_on_its_device(tmp_path: Path) -> None:
    overrides = ("device=cpu", "seed=1")
    command = planned_run.command_of(planned_run.PlannedRun(tmp_path, overrides, ()), resuming=True)
    assert command[-2:] == [f"resume='{tmp_path}'", "device=cpu"]


def test_two_sweeps_at_once_train_every_run_once(deeds, tmp_path: Path) -> None:
    both = [start("seed=1,2,3,4", "launcher.jobs=2") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [legs(tmp_path, seed) for seed in (1, 2, 3, 4)] == [["new"]] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_sweep_stops_its_runs_and_says_so(deeds: Path, tmp_path: Path, number: int) -> None:
    (deeds / "2").write_text("hang")
    process = start("seed=1,2,3")
    wait_for((deeds / "2.hangs").exists)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        os.kill(status(tmp_path, 2)["pid"], signal.SIGKILL)  # a stand-in does not watch its parent
    else:
        assert process.returncode == 130
        assert re.search(r"1 of 3 runs completed \(1 trained\)\ninterrupted +seed=2\nnew +seed=3", out), out
        assert status(tmp_path, 2)["status"] == "interrupted"
    (deeds / "2").unlink()
    assert sweep("seed=1,2,3") == 0
    assert [legs(tmp_path, seed) for seed in (1, 2, 3)] == [["new"], ["new", "resumed"], ["new"]]


def test_a_run_whose_node_died_is_taken_up(deeds: Path, tmp_path: Path, capsys) -> None:
    (deeds / "1").write_text("kill")
    assert sweep("seed=1") == 1
    (deeds / "1").unlink()
    folder = folder_of(tmp_path, 1)
    died = {"status": "running", "error": None, "pid": 1, "host": "node17"}
    (folder / "status.json").write_text(json.dumps(died))
    os.utime(folder / "status.json", (time.time() - SILENT_SECONDS + 3,) * 2)  # nearly long ago
    capsys.readouterr()
    assert sweep("seed=1") == 0
    said = capsys.readouterr()
    assert re.search(r"waiting for .*s1-.*, trained on node17\n", said.err)
    assert "1 of 1 run completed (1 resumed)" in said.out
    assert legs(tmp_path, 1) == ["new", "resumed"]


def test_a_run_that_another_process_began_meanwhile_is_left_to_it(tmp_path: Path, monkeypatch) -> None:
    run = planned_run.PlannedRun(tmp_path / "run", ("seed=1",), ())
    status = {"status": "running", "pid": os.getpid(), "host": socket.gethostname()}

    def faster(run: planned_run.PlannedRun, *_: object) -> int:
        run.folder.mkdir()
        (run.folder / "status.json").write_text(json.dumps(status))
        return 1

    monkeypatch.setattr(planned_run, "_train", faster)
    outcome = planned_run.train_planned(run, children=planned_run.Children())
    assert outcome.state == "failed" and "another process, outside any sweep" in outcome.error
    assert json.loads((run.folder / "status.json").read_text()) == status


def test_a_dry_run_trains_nothing_and_times_each_model_once(tmp_path: Path, capsys, monkeypatch) -> None:
    timed = []

    def time_it(self: Estimator, config: dict) -> object:
        timed.append(config["image_tokens"]["count"])
        if config["image_tokens"]["count"] == 3:
            raise RuntimeError("no room")
        return original(self, config)

    original = Estimator._time
    monkeypatch.setattr(Estimator, "_time", time_it)
    assert sweep("seed=1,2", "trainer.epochs=1,2", "image_tokens.count=2,3", "sweep.dry_run=true") == 1
    out = capsys.readouterr().out
    assert len(re.findall(r" new +[\d,]+ ms a step +about", out)) == 4 and "8 runs in" in out, out
    assert len(re.findall("cannot start: .*RuntimeError: no room", out)) == 4
    assert timed == [2, 3, 3, 3, 3], "what could not be timed is tried for each run"
    assert not (tmp_path / "outputs" / "sweeps").exists()


def test_a_dry_run_of_one_run_needs_no_sweep(capsys) -> None:
    assert main(["train", *TINY, "sweep.dry_run=true"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"[\d,]+ ms a step +about", out) and "1 run in" in out, out
    assert main(["train", *TINY, "sweep.name=x"]) == 1


def test_an_estimate_scales_with_the_length_of_training() -> None:
    estimator = Estimator()
    short, long = (
        estimator(check(compose([*TINY, f"trainer.max_steps={steps}", f"seed={steps}"])[0]))
        for steps in (6, 600)
    )
    assert short["step_seconds"] == long["step_seconds"] and long["steps"] == 600
    assert long["seconds"] - short["seconds"] >= 594 * long["step_seconds"]
    assert short["seconds"] > short["startup_seconds"] > 0


def test_an_estimate_of_cached_features_counts_the_encoder_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path))
    frozen = [*TINY, "trainer.epochs=2", "trainer.unfreeze_encoder_at_epoch=null"]
    estimator = Estimator()
    first, second, live = (
        estimator(check(compose([*frozen, *overrides])[0]))
        for overrides in (["seed=1"], ["seed=2"], ["trainer.cache_features=false"])
    )
    assert first["encoding_seconds"] > 0 == second["encoding_seconds"] == live["encoding_seconds"]
    assert first["seconds"] > second["seconds"]
    encode = Captioner.encode

    def slowly(self: Captioner, images: torch.Tensor) -> object:
        time.sleep(0.2 if images.ndim == 4 else 0)  # 3: features
        return encode(self, images)

    monkeypatch.setattr(Captioner, "encode", slowly)
    cached, live = (
        Estimator()(check(compose([*frozen, *overrides])[0]))
        for overrides in ([], ["trainer.cache_features=false"])
    )
    assert cached["step_seconds"] + 0.1 < live["step_seconds"]


def test_a_warning_of_the_time_limit_before_python_has_started_does_not_end_a_job() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')"
    for python, ended in ((shlex.quote(sys.executable), -signal.SIGUSR2), (slurm._PYTHON, 0)):
        command = ["bash", "-c", f"exec {python} -c {shlex.quote(program)}"]
        assert subprocess.run(command, capture_output=True).returncode == ended


def test_a_warning_before_the_training_has_started_submits_the_job_again(tmp_path: Path) -> None:
    job = pickle.loads(pickle.dumps(slurm._Job(2)))
    planned = planned_run.PlannedRun(tmp_path, ("seed=1",), ())
    again = job.checkpoint(planned)
    assert isinstance(again.function, slurm._Job) and again.function.ranks == 2 and again.args == (planned,)


def test_what_a_job_returned_or_raised_is_read(tmp_path: Path) -> None:
    job = SimpleNamespace(paths=SimpleNamespace(result_pickle=tmp_path / "result.pkl"))
    done = planned_run.Outcome("trained", "completed")
    for left, read in (
        (("success", done), (done, "")),
        (("error", "Traceback\nValueError: no\n"), (None, "ValueError: no")),
    ):
        job.paths.result_pickle.write_bytes(pickle.dumps(left))
        assert slurm._result_of(job) == read


@pytest.mark.slow
def test_jobs_of_a_cluster_are_run_and_their_ends_read(tmp_path: Path, capsys, monkeypatch) -> None:
    """submitit's local cluster pickles the same jobs and reads their ends from files, as SLURM's does."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    limits = ("launcher=slurm", "launcher.cluster=local", "launcher.gpus=0", "launcher.minutes=5")
    explodes = ("optim.matrix_lr=0.005,1e30", "optim.lr=1e30", "trainer.clip_norm=null")
    assert sweep(*limits, *explodes) == 1
    out = capsys.readouterr().out
    assert re.search(r"failed +optim.matrix_lr=1e\+?30\n +the loss is", out), out
    assert list((tmp_path / "outputs" / "sweeps" / "s" / ".jobs").glob("*_log.out"))


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The whole with real trainings: killed with its children in the middle, then the same command."""
    words = ["train", "-m", *TINY, "trainer.checkpoint_every_steps=2", "trainer.epochs=3", "seed=1,2"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(easycap.__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
    }

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "easycap.cli", *words, f"sweep.name={name}"]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    assert start("whole").wait(300) == 0
    killed = start("s")
    wait_for(lambda: list((tmp_path / "outputs" / "sweeps" / "s").glob("*/checkpoints/last")) != [], 300)
    killed.kill()
    killed.wait()
    assert start("s").wait(300) == 0
    for seed in (1, 2):
        result = json.loads((folder_of(tmp_path, seed) / "result.json").read_text())
        (other,) = (tmp_path / "outputs" / "sweeps" / "whole").glob(f"*s{seed}-*")
        assert json.loads((other / "result.json").read_text())["scores"] == result["scores"]


def test_a_run_is_the_run_its_overrides_describe() -> None:
    words = ["trainer.epochs=3", "seed=1,2", "image_tokens=split,grid", "launcher.jobs=2", "tracking=wandb"]
    plan = sweep_plan.make_plan(sweep_plan.read_request(words))
    runs, folder = plan.runs, plan.folder
    assert plan.launcher["jobs"] == 2
    assert [c.varied for c in runs] == [
        (f"seed={seed}", f"image_tokens={tokens}") for seed in (1, 2) for tokens in ("split", "grid")
    ]
    config = compose(runs[3].overrides)[0]
    assert (config.trainer.epochs, config.seed, config.image_tokens.name) == (3, 2, "grid")
    assert config.tracking.group == folder.name
    assert runs[3].folder.name.startswith("grid-s2-")


def test_the_sweep_for_wandbs_agent_names_real_settings() -> None:
    plan = yaml.safe_load((Path(ROOT) / "docs" / "wandb_sweep.yaml").read_text())
    assert plan["command"][-1] == "${args_no_hyphens}"
    words = [
        f"{key}={space.get('value') or space.get('values', [0.002])[0]}"
        for key, space in plan["parameters"].items()
    ]
    assert check(compose(words)[0])["seed"] == 1
