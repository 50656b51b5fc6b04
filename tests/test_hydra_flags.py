"""Hydra's own flags and settings: each does what users of Hydra expect, and a run is composed and checked once."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml

from easycap.cli import main
from easycap.config import hydra_job
from easycap.tasks import prepared_run

QUICK = ["tracking=none", "device=cpu"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("EASYCAP_CONFIG_DIR", raising=False)
    monkeypatch.setattr("easycap.tasks.dry_run.dry_run", lambda config, memory: None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `train` is called with, instead of a training."""
    calls: list[dict[str, Any]] = []

    def train(config: dict[str, Any], path: Path, *, command: str) -> None:
        logging.getLogger("easycap.tests").info("one line")
        calls.append({"config": config, "path": path, "command": command, "argv": sys.argv})

    monkeypatch.setattr("easycap.train.train", train)
    monkeypatch.setattr("easycap.commands.evaluate.show_run", lambda path: 0)
    return calls


def shown(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert main(["train", *argv]) == 0
    return capsys.readouterr().out


def test_cfg_shows_the_config_its_references_and_hydras_own(capsys) -> None:
    words = ["decoding=sample", "seed=4", "--cfg"]
    job = yaml.safe_load(shown(capsys, *words, "job"))
    assert job["decoding"]["seed"] == "${seed}" and "hydra" not in job
    assert yaml.safe_load(shown(capsys, *words, "job", "--resolve"))["decoding"]["seed"] == 4
    own = yaml.safe_load(shown(capsys, *words, "hydra"))
    assert list(own) == ["hydra"] and own["hydra"]["job_logging"]["root"]["level"] == "INFO"
    assert "/outputs/runs/" in own["hydra"]["run"]["dir"] and own["hydra"]["job"]["name"] == "train"
    assert set(yaml.safe_load(shown(capsys, *words, "all"))) == {*job, "hydra"}
    assert not Path("outputs").exists()


def test_cfg_of_a_package(capsys) -> None:
    text = shown(capsys, "--cfg", "job", "--package", "decoder", "decoder=lstm")
    assert text.startswith("# @package decoder\nname: lstm\n")
    assert shown(capsys, "--cfg=job", "-p", "trainer.epochs", "trainer.epochs=3") == "3\n"
    assert main(["train", "--cfg=job", "--package=nothing"]) == 1
    assert "--package nothing" in capsys.readouterr().err


def test_info_shows_what_is_searched(capsys) -> None:
    Path("own").mkdir()
    text = shown(capsys, "--info", "searchpath", "--config-dir", "own")
    assert "conf" in text and str(Path("own").absolute()) in text


def test_a_folder_of_options_of_ones_own(capsys) -> None:
    for name, text in {
        "decoding/mine": "defaults: [beam]\nnum_beams: 7\n",
        "experiment/mine": "# @package _global_\ndefaults: [{override /decoding: mine}]\nseed: 9\n",
    }.items():
        path = Path("own", f"{name}.yaml")
        path.parent.mkdir(parents=True)
        path.write_text(text)
    job = yaml.safe_load(shown(capsys, "--config-dir=own", "experiment=mine", "--cfg", "job"))
    assert (job["decoding"]["name"], job["decoding"]["num_beams"], job["seed"]) == ("beam", 7, 9)


def test_a_folder_of_options_that_is_not_there(capsys) -> None:
    assert main(["train", "--config-dir", "nowhere"]) == 1
    assert "--config-dir nowhere is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "own"],
        ["-cd", "own"],
        ["hydra.searchpath=[own]"],
        ["hydra.searchpath=[~/own]"],
        ["+hydra.searchpath=['file://HERE/own', other]"],
        ["hydra.searchpath=[pkg://own.further]", "--config-dir", "own"],
    ],
    ids=" ".join,
)
def test_ways_to_name_a_folder_of_options(words: list[str], capsys, monkeypatch) -> None:
    for folder in ("own/decoding", "own/further/data", "other/encoder"):
        Path(folder).mkdir(parents=True)
    Path("own/decoding/mine.yaml").write_text("defaults: [beam]\nnum_beams: 7\n")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    words = [word.replace("HERE", str(Path.cwd())) for word in words]
    job = yaml.safe_load(shown(capsys, *words, "decoding=mine", "--cfg", "job"))
    assert job["decoding"]["num_beams"] == 7
    assert "mine" in next(
        line for line in shown(capsys, *words, "--help").splitlines() if "  decoding" in line
    )
    assert main(["train", *words, "decoding=mien"]) == 1
    assert "did you mean 'mine'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.searchpath=[nowhere]"], "hydra.searchpath: nowhere is not a folder"),
        (["hydra.searchpath=[pkg://no_such_package.conf]"], "pkg://no_such_package.conf is not a folder"),
        (["hydra.searchpath=[s3://bucket]"], "s3://bucket must be a folder, file://FOLDER or pkg://PACKAGE"),
        (["--config-dir"], "--config-dir needs a folder"),
        (["--config-dir", "own"], "decoder/lstm.yaml would be ignored: easycap has decoder=lstm of its own"),
    ],
)
def test_folders_of_options_that_cannot_be(words: list[str], message: str, capsys) -> None:
    Path("own/decoder").mkdir(parents=True)
    Path("own/decoder/lstm.yaml").write_text("name: lstm\n")
    assert main(["train", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_sweep_and_other_commands_take_a_folder_of_options(capsys, monkeypatch) -> None:
    for name, text in {
        "sweep/two": "axes: {seed: [1, 2]}\n",
        "data/mine": "defaults: [scenes]\nsize: 32\n",
    }.items():
        Path("own", name).parent.mkdir(parents=True)
        Path("own", f"{name}.yaml").write_text(text)
    plans = []
    monkeypatch.setattr(
        "easycap.sweeps.run._run", lambda runs, folder, launcher: plans.append((runs, folder)) or 0
    )
    monkeypatch.setattr("easycap.sweeps.plan_runs.DryRuns", lambda: lambda settings: None)
    assert main(["train", "-m", "sweep=two", "data=mine", *QUICK, "--config-dir", "own"]) == 0
    runs, folder = plans[0]
    assert len(runs) == 2
    (command,) = json.loads((folder / "sweep.json").read_text())["commands"]
    assert f"--config-dir {Path('own').absolute()}" in command
    words = ["data.train_images=2", "data.val_images=1", "data.test_images=1", "--config-dir=own"]
    assert main(["data", "check", "data=mine", *words]) == 0
    assert main(["evaluate", "--config-dir", "absent", "run"]) == 1
    assert "--config-dir absent is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--config-name", "--config-path", "--run", "--seed"])
def test_flags_that_train_has_not(flag: str, capsys) -> None:
    assert main(["train", flag, "3"]) == 2
    printed = capsys.readouterr().err
    assert f"no option {flag}" in printed and ("seed=VALUE" in printed) == (flag == "--seed")


def test_a_sweep_is_not_shown_as_one_config(capsys) -> None:
    assert main(["train", "-m", "seed=1,2", "--cfg", "job"]) == 1
    assert "-m cannot be combined with --cfg" in capsys.readouterr().err


def test_a_run_is_composed_and_checked_once(trained, monkeypatch) -> None:
    composed, checked, argv = [], [], sys.argv[:]
    compose, validate = hydra.compose, prepared_run.validate
    monkeypatch.setattr(hydra_job.hydra, "compose", lambda *a, **k: composed.append(a) or compose(*a, **k))
    monkeypatch.setattr(prepared_run, "validate", lambda *a: checked.append(a) or validate(*a))
    monkeypatch.setattr("easycap.tasks.dry_run.dry_run", lambda *a, **k: checked.append(a))
    assert main(["train", *QUICK, "seed=5"]) == 0
    assert (len(composed), len(checked), len(trained)) == (1, 2, 1)
    assert trained[0]["argv"] == sys.argv == argv
    assert trained[0]["config"]["seed"] == 5 and trained[0]["command"] == "easycap train " + " ".join(
        [*QUICK, "seed=5"]
    )


def test_the_folder_of_a_run_and_what_is_logged_there(trained) -> None:
    words = [
        *QUICK,
        "hydra.run.dir=here/it is",
        "hydra.output_subdir=.hydra",
        "hydra/sweeper=basic",
        "seed=3",
    ]
    assert main(["train", *words]) == 0
    run = trained[0]["path"]
    assert run == Path("here/it is").absolute()
    assert "INFO easycap.tests: one line" in (run / "train.log").read_text()
    assert yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["seed"] == 3
    assert "++seed=3" in yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
    own = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())
    assert own["hydra"]["runtime"]["output_dir"] == str(run)


def test_without_a_folder_a_run_gets_one_below_the_outputs(trained) -> None:
    assert main(["train", *QUICK, "decoder=lstm"]) == 0
    run = trained[0]["path"]
    assert run.parent == Path("outputs/runs").absolute() and "-scenes-small-resampler10-lstm-" in run.name
    assert [path.name for path in run.iterdir()] == ["train.log"]


def test_what_is_said_before_there_is_a_folder_is_logged_there(trained, monkeypatch) -> None:
    def dry_run(config: dict[str, Any], memory: bool) -> None:
        logging.getLogger("easycap.checks").warning("doubtful")

    monkeypatch.setattr("easycap.tasks.dry_run.dry_run", dry_run)
    assert main(["train", *QUICK]) == 0
    assert (trained[0]["path"] / "train.log").read_text().count("WARNING easycap.checks: doubtful") == 1


def test_an_error_of_a_run_is_said_once_in_our_words(trained, monkeypatch, capsys) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr("easycap.train.train", train)
    assert main(["train", *QUICK]) == 1
    printed = capsys.readouterr().err
    assert printed.count("no more") == 1 and "Error executing job" not in printed


def test_hydras_callbacks_are_called(trained, tmp_path: Path) -> None:
    (tmp_path / "watcher.py").write_text(
        "import json\nfrom hydra.experimental.callback import Callback\n\n\nclass Watcher(Callback):\n"
        "    def on_job_start(self, config, **_):\n"
        "        json.dump(config.hydra.runtime.output_dir, open('seen.json', 'w'))\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        assert main(["train", *QUICK, "+hydra.callbacks.mine={_target_: watcher.Watcher}"]) == 0
    finally:
        sys.path.remove(str(tmp_path))
    assert json.loads((tmp_path / "seen.json").read_text()) == str(trained[0]["path"])


@pytest.mark.parametrize(
    ("words", "warned"), [([], True), (["trainer.max_steps=null"], False), (["trainer.max_steps=5"], False)]
)
def test_epochs_that_a_recipe_does_not_count_are_warned_of(
    words: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    prepared_run.prepare(["experiment=easycap/quickstart", "trainer.epochs=1", "device=cpu", *words])
    assert ("trainer.epochs has no effect" in caplog.text) == warned
