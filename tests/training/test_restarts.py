"""`torchrun --max-restarts` resumes the run that the attempt before has begun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_config import TINY

from easycap.training.restarts import Restarts

FIRST = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "0"}
SECOND = FIRST | {"TORCHELASTIC_RESTART_COUNT": "1"}


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    return folder


def test_the_second_attempt_resumes_the_run_of_the_first(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert Restarts(FIRST).run_to_resume() is None
    Restarts(FIRST).remember(run)
    assert Restarts(SECOND).run_to_resume() == run
    assert Restarts(SECOND | {"TORCHELASTIC_RUN_ID": "other"}).run_to_resume() is None
    (run / "status.json").unlink()  # it failed before its first step and left nothing behind
    assert Restarts(SECOND).run_to_resume() is None


def test_a_first_attempt_begins_anew(tmp_path: Path) -> None:
    Restarts(FIRST).remember(a_run(tmp_path / "run"))
    assert Restarts(FIRST).run_to_resume() is None and Restarts(SECOND).run_to_resume() is None


@pytest.mark.parametrize("variables", [{}, FIRST | {"TORCHELASTIC_MAX_RESTARTS": "0"}])
def test_without_restarts_nothing_is_remembered(tmp_path: Path, variables: dict[str, str]) -> None:
    Restarts(variables).remember(a_run(tmp_path / "run"))
    assert not Restarts(variables).file.exists()


DYING = """
import os, signal, sys
from easycap.training.trainer import Trainer

original = Trainer.train_step

def train_step(self, batches):
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and self.ranks.rank == 1 and self.state.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batches)

Trainer.train_step = train_step
from easycap.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_torchrun_restarts_a_training_whose_rank_died(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    words = [*TINY, "trainer.epochs=2", "trainer.checkpoint_every_steps=1", "trainer.threads=1"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "dying.py"), "train", *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert f"torchrun has restarted the training: resuming {run}" in done.stderr
    assert json.loads((run / "status.json").read_text())["status"] == "completed"
    assert "resuming from last at step 2" in (run / "train.log").read_text()
    assert not list((tmp_path / "outputs/.restarts").iterdir())
