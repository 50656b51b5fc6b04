"""The command line as a user meets it: help, runs, one sentence for every mistake, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.damage import edit, flip_a_bit
from helpers.tiny_config import TINY
from PIL import Image

from easycap.cli import main


def easycap(*argv: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "easycap.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """One run made by typing the command, from another folder."""
    outputs = tmp_path_factory.mktemp("outputs")
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    patch.setenv("EASYCAP_OUTPUTS", str(outputs))
    done = easycap("train", *TINY, "trainer.max_steps=2", folder=tmp_path_factory.mktemp("elsewhere"))
    patch.undo()
    assert done.returncode == 0, done.stderr
    assert "CIDEr-D" in done.stdout and "report.html" in done.stdout
    (run,) = (outputs / "runs").iterdir()
    return run


def test_help_names_every_command_and_needs_no_torch(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("train", "evaluate", "caption", "compare", "runs", "score", "--debug")
    )
    code = "import sys; from easycap.cli import main; main(['--help']); main(['train', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code + "; sys.exit('torch' in sys.modules)"], capture_output=True
    )
    assert done.returncode == 0


def test_train_help_lists_what_is_on_disk(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("gpt2_tiny", "resampler", "scenes", "easycap/quickstart", "resume=RUN")
    )


def test_a_run_has_its_own_folder_named_by_its_choices(trained: Path) -> None:
    assert "scenes-small-resampler2-gpt2_tiny" in trained.name
    assert (trained / "report.html").is_file() and (trained / "train.log").read_text()
    command = json.loads((trained / "status.json").read_text())["command"]
    assert command.startswith("easycap train") and "trainer.max_steps=2" in command


def test_a_finished_run_can_be_asked_to_go_on_and_has_nothing_to_do(trained: Path) -> None:
    done = easycap("train", f"resume={trained}")
    assert done.returncode == 0, done.stderr
    assert "is already complete; nothing to do" in done.stderr


def test_resume_takes_no_other_settings(trained: Path) -> None:
    done = easycap("train", f"resume={trained}", "trainer.epochs=7")
    assert done.returncode == 1 and "trainer.epochs=7" in done.stderr


def test_runs_lists_it(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs", str(trained.parent)]) == 0
    assert "completed" in capsys.readouterr().out


def test_python_m_is_the_same_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "easycap", "train", "trainer.epoch=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "'epochs'" in done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "trainer.epoch=3"], "did you mean 'epochs'"),
        (["train", "decoder=lstmm"], "decoder=lstmm does not exist"),
        (["train", "trainer.batch_size=-3"], "trainer.batch_size=-3 must be at least 1"),
        (["train", "data.size=0"], "data.size=0"),
        (["train", "resume=nowhere"], "resume=nowhere is not a run's folder"),
        (["train", "data=coco", "data.root=nowhere"], "nowhere is not a folder"),
        (["evaluate", "nowhere"], "nowhere is not a folder"),
        (["evaluate", "."], "holds no checkpoint"),
        (["caption", "nowhere", "x.jpg"], "x.jpg does not exist"),
        (["runs", "nowhere"], "nowhere is not a folder"),
        (["compare", "nowhere", "."], "nowhere is not a folder"),
        (["compare", "conf", "conf"], "no run found in conf"),
    ],
)
def test_mistakes_end_with_one_sentence(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(argv) == 1
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
    sentence = [line for line in err.splitlines() if line.startswith("easycap: ")]
    assert len(sentence) == 1


def test_a_run_without_a_checkpoint_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1")
    (tmp_path / "status.json").write_text('{"status": "interrupted"}')
    (tmp_path / "x.jpg").touch()
    for words in (["evaluate", str(tmp_path)], ["caption", str(tmp_path), str(tmp_path / "x.jpg")]):
        assert main(words) == 1
        message = capsys.readouterr().err
        assert "has no checkpoint yet" in message and f"`easycap train resume={tmp_path}`" in message


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="not a folder"):
        main(["evaluate", "nowhere", "--debug"])


@pytest.mark.parametrize(
    "argv", [["trian"], ["evaluate"], ["caption", "x"], ["runs", "--what"], ["train", "--foo"]]
)
def test_wrong_flags_exit_with_2(argv: list[str]) -> None:
    try:
        assert main(argv) == 2
    except SystemExit as stop:
        assert stop.code == 2


def test_a_split_that_is_not_there_is_named(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(trained), "--split", "tset"]) == 1
    assert "allowed: train, val, test, test_novel" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))
    assert main(["train", *TINY]) == 1
    assert "outputs" in capsys.readouterr().err


def test_outputs_that_cannot_be_made_are_named(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "file"))
    assert main(["train", *TINY]) == 1
    err = capsys.readouterr().err
    assert "file" in err and "Traceback" not in err


def test_an_error_inside_a_run_is_one_sentence_too(tmp_path: Path) -> None:
    others = [override for override in TINY if not override.startswith("data.")]
    done = easycap("train", *others, "data=coco", f"data.root={tmp_path / 'nowhere'}")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("easycap: data.root=")


def test_several_captions_per_image_are_refused_where_one_is_needed(trained: Path, capsys) -> None:
    photo = str(next((trained / "samples" / "images").glob("*.png")))
    assert main(["caption", str(trained), photo, photo, "--decoding", "sample,num_samples=2"]) == 1
    assert "set num_samples=1" in capsys.readouterr().err


def test_a_run_that_still_runs_is_not_gone_on_with(trained: Path, tmp_path: Path, capsys) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    status = json.loads((copy / "status.json").read_text())
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as other:
        status |= {"status": "running", "pid": other.pid}
        (copy / "status.json").write_text(json.dumps(status))
        assert main(["train", f"resume={copy}"]) == 1
    assert "still running" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path, capsys) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    weights = copy / "checkpoints" / "best" / "model.safetensors"
    flip_a_bit(weights)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    for words in (["evaluate", str(copy)], ["caption", str(copy), str(tmp_path / "photo.png")]):
        assert main(words) == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert "best is damaged: model.safetensors has changed since it was saved; use" in said
    edit(weights, "{")
    assert main(["evaluate", str(copy)]) == 1
    assert "model.safetensors cannot be loaded" in capsys.readouterr().err
    edit(weights.parent / "config.json", "{")
    assert main(["evaluate", str(copy)]) == 1
    assert "config.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["seed=7", "--cfg", "job"], ["--cfg", "job", "seed=7"], ["--cfg=job", "seed=7"]]
)
def test_the_config_can_be_looked_at(argv: list[str]) -> None:
    done = easycap("train", *argv)
    assert done.returncode == 0 and "seed: 7" in done.stdout, done.stderr
