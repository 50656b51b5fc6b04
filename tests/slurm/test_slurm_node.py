"""launcher=slurm on a real SLURM of one node without accounting (Debian: slurm-wlm, munge; started as root)."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import slurm_node
from helpers.tiny_config import TINY
from helpers.waiting import wait_for

import easycap

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(not slurm_node.available(), reason="needs SLURM, munge and root"),
]

SMALL = ("launcher=slurm", "launcher.cpus=1", "launcher.memory_gb=1", "launcher.minutes=10")
LONG = ("trainer.epochs=100000", "validation.every_epochs=50")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of processes that see the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    config = slurm_node.start(folder)
    root = str(Path(easycap.__file__).parent.parent)
    yield {**os.environ, "SLURM_CONF": str(config), "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    slurm_node.stop(folder)


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    env = request.getfixturevalue("node")
    subprocess.run(["scancel", "--user=root"], env=env, check=True)
    wait_for(lambda: not jobs(env), 60)


def jobs(env: dict[str, str]) -> dict[str, tuple[str, str]]:
    """{id: (name, state)} of all jobs that have not ended."""
    command = ["squeue", "--noheader", "--array", "--format=%i|%j|%T"]
    rows = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    return {job: (name, state) for job, name, state in (row.split("|") for row in rows)}


def sweep(env: dict[str, str], *words: str) -> subprocess.Popen:
    own = {name: os.environ[name] for name in ("EASYCAP_OUTPUTS", "EASYCAP_CACHE", "WANDB_MODE")}
    command = [sys.executable, "-m", "easycap", "train", "-m", *TINY, *SMALL, "sweep.name=s", *words]
    return subprocess.Popen(
        command, env=env | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def folder() -> Path:
    return Path(os.environ["EASYCAP_OUTPUTS"]) / "sweeps" / "s"


def statuses() -> list[str]:
    return [json.loads(file.read_text())["status"] for file in sorted(folder().glob("*/status.json"))]


def ranks_of(result: Path) -> int:
    return json.loads(result.read_text())["environment"]["ranks"]


def has_started(name: str = "*") -> bool:
    return any(folder().glob(f"{name}/checkpoints/last/progress.json"))


def test_runs_are_jobs_named_after_them(node: dict[str, str]) -> None:
    running = sweep(node, "seed=1,2,3")
    wait_for(lambda: len(jobs(node)) == 3, 120)
    names = {name for name, _ in jobs(node).values()}
    gpus = subprocess.run(["squeue", "--noheader", "--format=%b"], env=node, capture_output=True, text=True)
    out = running.communicate(timeout=300)[0]
    assert running.returncode == 0 and "3 of 3 runs completed (3 trained)" in out
    assert statuses() == ["completed"] * 3
    assert names == {path.parent.name for path in folder().glob("*/status.json")}
    assert set(gpus.stdout.split()) <= {"N/A"}
    table = (folder() / ".jobs" / "jobs.tsv").read_text().split()
    assert set(table[1::2]) == names


def test_a_run_of_two_ranks_in_an_array(node: dict[str, str]) -> None:
    running = sweep(node, "launcher.tasks=2", "launcher.at_once=1", "seed=1,2")
    wait_for(lambda: len(jobs(node)) == 2, 120)
    ids = {job.partition("_")[0] for job in jobs(node)}
    out = running.communicate(timeout=300)[0]
    assert running.returncode == 0, out
    assert len(ids) == 1 and statuses() == ["completed"] * 2
    assert [ranks_of(file) for file in folder().glob("*/result.json")] == [2, 2]


def test_a_cancelled_job_saves_and_is_called_cancelled(node: dict[str, str]) -> None:
    running = sweep(node, *LONG, "seed=1,2", "launcher.cpus=2")
    wait_for(has_started, 120)
    (first,) = (job for job, (_, state) in jobs(node).items() if state == "RUNNING")
    (second,) = (job for job, (_, state) in jobs(node).items() if state == "PENDING")
    subprocess.run(["scancel", second], env=node, check=True)
    began = time.monotonic()
    subprocess.run(["scancel", first], env=node, check=True)
    wait_for(lambda: not jobs(node), 60)
    assert time.monotonic() - began < 19  # KillWait is 20 s: it ended by itself
    out = running.communicate(timeout=120)[0]
    assert running.returncode == 1
    assert len(re.findall(r"^cancelled +seed=\d: its job was cancelled", out, re.M)) == 2, out
    assert statuses() == ["interrupted"]


def test_at_its_time_limit_a_run_saves_and_goes_back_to_the_queue(node: dict[str, str]) -> None:
    # SLURM may warn a minute early: of two minutes that leaves a run at least half a minute to start.
    limit = ("launcher.minutes=2", "launcher.restarts=1", "launcher.options={slurm_signal_delay_s: 30}")
    running = sweep(node, *LONG, *limit)
    out = running.communicate(timeout=600)[0]
    assert running.returncode == 1
    assert re.search(
        r"interrupted +s1-\w+: the time limit of launcher.minutes=2 was reached 2 times\n", out
    ), out
    assert statuses() == ["interrupted"]
    (metrics,) = folder().glob("*/metrics.jsonl")
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    (log,) = (folder() / ".jobs").glob("*_log.out")
    assert log.read_text().count("Requeued job") == 1


def test_a_run_whose_node_went_down_is_resumed(node: dict[str, str]) -> None:
    running = sweep(node, "trainer.max_steps=600", "trainer.checkpoint_every_steps=20", "seed=1")
    wait_for(has_started, 120)
    name = f"nodename={socket.gethostname()}"
    down = ["scontrol", "update", name, "state=down", "reason=test"]
    subprocess.run(down, env=node, check=True)
    wait_for(lambda: "RUNNING" not in [state for _, state in jobs(node).values()], 60)
    assert statuses() != ["completed"]
    # It may be back already, as a node that answers may be.
    subprocess.run(["scontrol", "update", name, "state=resume"], env=node, capture_output=True)
    out = running.communicate(timeout=400)[0]
    assert running.returncode == 0, out
    assert statuses() == ["completed"]


def test_a_stopped_sweep_cancels_its_jobs(node: dict[str, str]) -> None:
    running = sweep(node, *LONG, "seed=1,2", "launcher.cpus=2")
    wait_for(has_started, 120)
    running.terminate()
    out = running.communicate(timeout=120)[0]
    assert running.returncode == 130 and not jobs(node), out
    assert statuses() == ["interrupted"]


def test_a_refused_job_leaves_none_behind(node: dict[str, str]) -> None:
    refused = sweep(node, "launcher.partition=nowhere", "seed=1,2")
    out = refused.communicate(timeout=120)[0]
    assert refused.returncode == 1 and not jobs(node)
    assert "no job was submitted: invalid partition specified: nowhere" in out
    assert not list(folder().glob("*/status.json"))


def test_tasks_of_srun_train_one_run(node: dict[str, str], tmp_path: Path) -> None:
    own = {name: os.environ[name] for name in ("EASYCAP_OUTPUTS", "EASYCAP_CACHE", "WANDB_MODE")}
    command = [
        "srun",
        "--ntasks=2",
        sys.executable,
        "-m",
        "easycap",
        "train",
        *TINY,
        f"hydra.run.dir={tmp_path}/run",
    ]
    address = {"MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, env=node | own | address, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert ranks_of(tmp_path / "run" / "result.json") == 2
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "completed"
