"""Searches: what is searched, that good settings are found, that bad runs are stopped, and that a search goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_config import TINY
from helpers.waiting import wait_for

import easycap
from easycap.cli import main
from easycap.config.overrides import parse
from easycap.errors import UserError
from easycap.sweeps import planned_run, search
from easycap.sweeps.space import Interval, search_space

pytest.importorskip("optuna")
FAKE = Path(__file__).parent / "helpers" / "fake_search.py"
ROOT = str(Path(easycap.__file__).parent.parent)


def space(*overrides: str, axes: object = None) -> dict:
    parsed = parse(overrides, sweep=True)
    varied = [one for one in parsed if one.is_sweep_override()]
    fixed = [one for one in parsed if not one.is_sweep_override()]
    return search_space({} if axes is None else axes, varied, fixed, lambda group: ["a", "b"])


def test_lists_and_intervals_of_the_command_line_and_of_a_file() -> None:
    found = space(
        "optim.lr=tag(log,interval(1e-4,1e-2))", "seed=int(interval(1,9))", "vocab=word,bert", "c=2",
        axes={"a": [1, True], "b": "interval(0, 1)", "c": "interval(0, 1)", "optim.lr": [3]},
    )  # fmt: skip
    assert found == {
        "a": ["1", "true"],
        "b": Interval(0.0, 1.0, False, False),
        "optim.lr": Interval(1e-4, 1e-2, False, True),
        "seed": Interval(1, 9, True, False),
        "vocab": ["word", "bert"],
    }


@pytest.mark.parametrize(
    ("overrides", "axes", "message"),
    [
        ([], {}, "has nothing to search"),
        (["x=interval(2,1)"], {}, "x=interval(2,1): the first number must be below the second"),
        (["x=tag(log,interval(0,1))"], {}, "must be below the second and above 0"),
        (["x=tag(exp,interval(0,1))"], {}, "unknown tag exp; allowed: log"),
        ([], [{"a": [1]}], "needs one mapping"),
    ],
)
def test_what_cannot_be_searched(overrides: list[str], axes: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        space(*overrides, axes=axes)


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
    monkeypatch.setattr(search, "_SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr("easycap.sweeps.plan_runs.DryRuns", lambda: lambda config: None)
    return folder


def searched(*words: str) -> int:
    return main(["train", "-m", *TINY, "sweep.search=optuna", "sweep.name=s", *words])


def starts(deeds: Path) -> list[str]:
    return (deeds / "starts").read_text().splitlines()


def test_it_finds_what_is_good_and_goes_on(deeds: Path, tmp_path: Path, capsys) -> None:
    words = ["seed=int(interval(1,100))", "sweep.prune=false"]
    assert searched(*words, "sweep.trials=14") == 0
    out = capsys.readouterr().out
    assert "14 trials in" in out and "14 completed" in out
    seeds = [int(line.split()[0]) for line in starts(deeds)]
    best = min(seeds, key=lambda seed: abs(seed - 40))
    assert f"best: seed={best}  CIDEr-D -{100 * abs(best - 40):.1f} in validation" in out
    later, early = seeds[8:], seeds[:8]
    assert sum(abs(s - 40) for s in later) / len(later) < sum(abs(s - 40) for s in early) / len(early)
    plan = json.loads((tmp_path / "outputs/sweeps/s/sweep.json").read_text())
    assert {run["overrides"][-1] for run in plan["runs"]} == {f"seed={seed}" for seed in seeds}

    assert searched(*words, "sweep.trials=14") == 0
    assert "14 done, 0 unfinished" in capsys.readouterr().out and len(starts(deeds)) == len(seeds)
    assert searched(*words, "sweep.trials=16") == 0
    assert "16 completed" in capsys.readouterr().out


def test_a_run_below_the_others_is_stopped(deeds: Path, tmp_path: Path, capsys) -> None:
    for seed in range(90, 101):
        (deeds / str(seed)).write_text("hang")
    assert searched("seed=choice(38,39,41,42,43,95)", "sweep.trials=24") == 0
    out = capsys.readouterr().out
    assert re.search(r"seed=95  CIDEr-D -\d+\.0  stopped by the search after \d validations?\n", out)
    (run,) = (tmp_path / "outputs/sweeps/s").glob("*s95-*")
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "interrupted" and status["error"].startswith("stopped by the search after ")
    assert starts(deeds).count("95 new") == 1 and "95 resumed" not in starts(deeds)


def test_a_failed_run_is_no_end(deeds: Path, capsys) -> None:
    (deeds / "2").write_text("fail")
    assert searched("seed=1,2", "sweep.trials=6") == 0
    out = capsys.readouterr().out
    assert "seed=2  failed: ValueError: as asked" in out and re.search(r"completed, \d failed\n", out)


def test_a_killed_search_resumes_its_run(deeds: Path, tmp_path: Path, capsys) -> None:
    (deeds / "7").write_text("hang")
    code = (
        "import sys; from easycap.cli import main; from easycap.sweeps import planned_run as p; real = p.command_of\n"
        f"p.command_of = lambda *a, **k: [sys.executable, {str(FAKE)!r}, *real(*a, **k)[4:]]\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "-m", *TINY, "sweep.search=optuna", "sweep.name=s", "seed=choice(7)", "sweep.trials=1"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment, start_new_session=True)
    wait_for((deeds / "7.hangs").exists, seconds=120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = (tmp_path / "outputs/sweeps/s").glob("*s7-*")
    os.kill(json.loads((run / "status.json").read_text())["pid"], signal.SIGTERM)
    (deeds / "7").unlink()
    wait_for(lambda: "interrupted" in (run / "status.json").read_text())
    assert searched("seed=choice(7)", "sweep.trials=1") == 0
    out = capsys.readouterr().out
    assert "0 done, 1 unfinished" in out and "1 completed" in out
    assert starts(deeds) == ["7 new", "7 resumed"]


def test_it_is_shown_first_and_mistakes_come_before_any_run(deeds: Path, tmp_path: Path, capsys) -> None:
    assert searched("optim.lr=tag(log,interval(1e-4,1e-2))", "seed=1,2", "sweep.dry_run=true") == 0
    out = capsys.readouterr().out
    assert "20 trials in" in out and "optim.lr  0.0001 to 0.01, log scale" in out and "seed  1, 2" in out
    for words, message in (
        (["seed=1,2", "trainer.epoch=1"], "trainer.epoch does not exist"),
        (["seed=1,2", "sweep.trials=0"], "sweep.trials=0 must be a whole number, at least 1"),
        (["seed=1,2", "sweep.search=optune"], "sweep.search=optune does not exist; did you mean 'optuna'?"),
        (["seed=interval(1,2)", "sweep.search=grid"], "or set sweep.search=optuna"),
    ):
        assert searched(*words) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()
