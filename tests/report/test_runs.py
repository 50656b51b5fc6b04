"""`easycap runs`, and runs by their names in every command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from helpers.fabricated_run import config, make, status, write
from helpers.tiny_config import TINY
from hypothesis import given
from hypothesis import strategies as st

from easycap.cli import main
from easycap.config.compose import compose
from easycap.errors import UserError
from easycap.report.rich_tables import RunSummary, list_runs
from easycap.report.selection import filtered, ordered
from easycap.runs.find import checkpoint_of, find_run
from easycap.runs.reading import read_status, runs_in
from easycap.training.trainer import Trainer
from easycap.utils.text import duration_text, parse_duration

NAME = "20250301-100000-scenes-small-resampler10-gpt2_tiny-with-a-very-long-name-of-a-run-abc123"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: two completed on scenes with 8 and 20 epochs, one that failed, on COCO."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(folder))
    monkeypatch.chdir(tmp_path)
    for name, epochs in ((NAME, 8), ("second", 20)):
        make(folder / "runs" / name)
        changed = config() | {"trainer": config()["trainer"] | {"epochs": epochs}}
        change(folder / "runs" / name, changed, status())
    make(folder / "sweeps" / "s" / "cell")
    change(folder / "sweeps/s/cell", config() | {"data": {"name": "coco"}}, status("failed", error="no"))
    return folder


def change(run: Path, settings: dict, state: dict) -> None:
    write(run / "config.yaml", yaml.safe_dump(settings))
    write(run / "status.json", state)


def names(runs: list) -> list[str]:
    return [run.folder.name for run in runs]


def test_runs_are_found_by_their_names(outputs: Path) -> None:
    assert find_run(NAME) == outputs / "runs" / NAME
    assert find_run("cell") == outputs / "sweeps/s/cell"
    assert find_run("s") == outputs / "sweeps/s"
    assert find_run("nowhere") == Path("nowhere")
    (outputs.parent / "second").mkdir()
    assert find_run("second") == Path("second"), "a path counts before a name"


def test_a_name_of_two_runs_is_refused(outputs: Path) -> None:
    (outputs / "sweeps/other/cell").mkdir(parents=True)
    with pytest.raises(UserError, match="several runs are named .*other/cell, .*s/cell"):
        find_run("cell")


def test_names_reach_every_setting_that_is_a_run(outputs: Path) -> None:
    chosen = compose(
        ["tags=predicted", "tags.run=second", "draft=retrieval", f"draft.run={NAME}", "resume=cell"]
    )[0]
    assert chosen.tags.run == str(outputs / "runs/second") and chosen.draft.run == str(
        outputs / "runs" / NAME
    )
    assert chosen.resume == str(outputs / "sweeps/s/cell")


def test_names_are_taken_by_the_commands(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    (outputs / "runs/second/checkpoints/best").mkdir(parents=True)
    (outputs / "runs/second/checkpoints/best/model.safetensors").touch()
    assert checkpoint_of(Path("second")) == outputs / "runs/second/checkpoints/best"
    assert main(["compare", "second", NAME]) == 0
    assert runs_in([find_run("second")]) == [outputs / "runs/second"]
    capsys.readouterr()


def test_a_list_that_is_no_terminal_is_not_cut(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    assert not sys.stdout.isatty()
    assert main(["runs"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if NAME in line)
    assert all(part in line for part in ("completed", "scenes", "resampler", "causal_lm", "2025"))


def test_a_pretrained_captioner_is_listed_by_its_model(outputs: Path, capsys) -> None:
    parts = {name: {"name": "none"} for name in ("encoder", "image_tokens", "decoder", "vocab")}
    captioner = {"name": "huggingface", "model": "owner/blip", "tune": "lora", "lora_rank": 8}
    change(outputs / "runs/second", config() | parts | {"captioner": captioner}, status())
    assert main(["runs"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("second"))
    assert "owner/blip" in line and "none" not in line


def test_a_tag_model_is_listed_with_its_mean_average_precision(outputs: Path, capsys) -> None:
    write(outputs / "runs/second/result.json", {"scores": {"test": {"mAP": {"value": 0.4216}}}})
    assert main(["runs"]) == 0
    assert "mAP 42.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["status=completed"], [NAME, "second"]),
        (["status!=completed"], ["cell"]),
        (["data=coco"], ["cell"]),
        (["trainer.epochs>8"], ["second"]),
        (["trainer.epochs>=8", "data=Scenes"], [NAME, "second"]),
        (["CIDEr-D>102", "trainer.epochs<20"], [NAME, "cell"]),
        (["CIDEr-D<1"], []),
        (["CIDEr-D=102.3"], [NAME, "second", "cell"]),
        (["CIDEr-D=102.2"], []),
        (["trainer.max_steps=null", "trainer.epochs=20"], ["second"]),
        (["run=*-with-*"], [NAME]),
        (["run!=*-with-*"], ["cell", "second"]),
        (["image tokens=resampler", "run=second"], ["second"]),
        (["decoder=causal_lm"], [NAME, "second", "cell"]),
        (["decoder=gpt2_tiny"], [NAME, "second", "cell"]),
        (["decoder!=gpt2_tiny"], []),
        (["decoder=lstm"], []),
    ],
)
def test_filters(outputs: Path, conditions: list[str], expected: list[str]) -> None:
    assert sorted(names(filtered(list_runs(outputs), conditions))) == sorted(expected)


@pytest.mark.parametrize("words", [["--sort", "-run"], ["--sort=-run"]])
def test_a_descending_key_may_stand_apart(words: list[str], outputs: Path, capsys) -> None:
    assert main(["runs", *words]) == 0
    out = capsys.readouterr().out
    assert out.index("second") < out.index("cell")


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("status", "must be KEY=VALUE"),
        ("statis=completed", "did you mean 'status'"),
        ("=3", "must be KEY=VALUE"),
        ("time>soon", "'soon' is not a duration such as 90s"),
        ("xyz>3", "no run has 'xyz'; allowed: BLEU-.*, or a setting such as trainer.epochs$"),
    ],
)
def test_a_wrong_filter_is_named(outputs: Path, condition: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        filtered(list_runs(outputs), [condition])


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("time>1h", {"long"}),
        ("time<=59m", {"short"}),
        ("time=1 h 02 min", {"long"}),
        ("time=1h2m", {"long"}),
        ("time!=62min", {"short"}),
        ("time>3700", {"long"}),
        ("wall_seconds<0.5d", {"long", "short"}),
    ],
)
def test_durations_are_typed_as_they_are_printed(condition: str, expected: set[str]) -> None:
    runs = [
        RunSummary(Path(name), "completed", seconds=seconds, result={"cost": {"wall_seconds": seconds}})
        for name, seconds in (("short", 59.6), ("long", 3725.0))
    ]
    assert set(names(filtered(runs, [condition]))) == expected


@given(st.floats(0.1, 1e6))
def test_a_printed_duration_is_read_again(seconds: float) -> None:
    text = duration_text(seconds)
    assert duration_text(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "h", "1x", "1.2.3", "-3", "1h later", "nan", "3,5"])
def test_other_text_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


def test_order(outputs: Path) -> None:
    runs = list_runs(outputs)
    assert names(ordered(runs, "-trainer.epochs"))[0] == "second"
    assert names(ordered(runs, "run")) == sorted(names(runs))
    (outputs / "runs/second/result.json").unlink()
    assert names(ordered(list_runs(outputs), "-CIDEr-D"))[-1] == "second", "a run without it comes last"


def test_what_is_no_run_is_left_out(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    (outputs / "runs/sweep.json").write_text("{}")
    (outputs / "runs/.jobs").mkdir()
    paths = sorted(str(path) for path in (outputs / "runs").iterdir())
    assert main(["compare", *paths]) == 0
    assert "skipped, not runs:" in (printed := capsys.readouterr().err) and "sweep.json" in printed


def test_a_run_stopped_by_a_signal_is_interrupted(tmp_path: Path) -> None:
    """Also as earlier versions wrote it."""
    make(tmp_path / "run")
    change(tmp_path / "run", config(), status("failed", error="interrupted"))
    assert read_status(tmp_path / "run").state == "interrupted"


def fails(self: Trainer, batches: list) -> dict[str, float]:
    raise RuntimeError("no step")


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(
    tmp_path: Path, scenes_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    step, taken = Trainer.train_step, []
    monkeypatch.setattr(Trainer, "train_step", fails)
    assert main(["train", *TINY]) == 1
    assert not list((tmp_path / "runs").iterdir())

    def fails_later(self: Trainer, batches: list) -> dict[str, float]:
        taken.append(1)
        return fails(self, batches) if len(taken) > 1 else step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", fails_later)
    assert main(["train", *TINY]) == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert read_status(run).error == "RuntimeError: no step"
    assert "unexpected RuntimeError: no step" in capsys.readouterr().err
