"""Tag models as whole runs: trained, scored, scored again, resumed, and what a captioner takes of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.whole_runs import read, run, settings
from safetensors.torch import load_file

from easycap.models.stored_weights import read_weights
from easycap.train import train

TAGS = ["task=tags", "tag_vocab.min_count=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = run(tmp_path_factory.mktemp("run") / "run", *TAGS, "tagger=cnn")
    patch.undo()
    return path


@pytest.mark.parametrize("tagger", ["cnn", "lstm"])
def test_a_tag_model_is_trained_and_scored(tagger: str, tmp_path: Path) -> None:
    path = run(tmp_path / "run", *TAGS, f"tagger={tagger}", "tag_vocab=data")
    result = read(path, "result.json")
    for split in ("test", "test_novel"):
        assert {"mAP", "precision@3", "recall@5", "F1@3"} <= result["scores"][split].keys()
        score = result["scores"][split]["mAP"]
        assert 0 < score["value"] <= 1 and f"split:{split}" in score["signature"] and "low" in score
        assert len(result["tags"][split]) == result["vocabulary"]["tags"] > 3
    stored = read(path / "checkpoints" / "best", "tags.json")
    assert stored["source"] == "data" and "dog" in stored["tags"]
    shown = read(path, "samples/test.json")["random"][0]
    assert (
        shown["caption"].split()[0] in stored["tags"]
        and shown["references"][0].split(", ")[0] in stored["tags"]
    )
    page = (path / "report.html").read_text() if (path / "report.html").exists() else _report(path)
    assert "<h2>Tags</h2>" in page and "average precision" in page


def _report(path: Path) -> str:
    from easycap.report import write_report

    return write_report(path).read_text()


def test_evaluating_again_gives_the_same_scores(finished: Path, capsys: pytest.CaptureFixture) -> None:
    from easycap.commands.evaluate import main

    before = read(finished, "result.json")
    assert main([str(finished), "--split", "test", "--device", "cpu"]) == 0
    after = read(finished, "result.json")
    assert (after["scores"], after["tags"]) == (before["scores"], before["tags"])
    assert "mAP" in capsys.readouterr().out
    with pytest.raises(ValueError, match="leave out decoding"):
        main([str(finished), "--decoding", "beam", "--device", "cpu"])


def test_a_killed_tag_run_goes_on_to_the_same_weights(finished: Path, tmp_path: Path, monkeypatch) -> None:
    from easycap.training.trainer import Trainer

    original = Trainer.train_step

    def dies(self, batches):
        if self.state.step == 4:
            raise KeyboardInterrupt
        return original(self, batches)

    path, config = tmp_path / "run", settings(*TAGS, "tagger=cnn", "trainer.checkpoint_every_steps=2")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "train_step", dies)
        train(config, path, command="")
    train(config | {"resume": str(path)}, path, command="")
    for name in ("checkpoints/last/model.safetensors", "checkpoints/best/model.safetensors"):
        ours, theirs = load_file(path / name), load_file(finished / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_captioner_takes_its_encoder_alone(finished: Path, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        path = run(
            tmp_path / "run",
            f"init_from={finished}",
            "trainer.unfreeze_encoder_at_epoch=null",
            "trainer.max_steps=2",
        )
    assert "only the encoder of" in caplog.text and "random weights" not in caplog.text
    ours, theirs = (read_weights(p / "checkpoints/last") for p in (path, finished))
    shared = [name for name in ours if name.startswith("encoder.")]
    assert shared and all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_an_encoder_of_another_kind_is_refused_before_any_work(finished: Path) -> None:
    from helpers.tiny_config import try_out

    with pytest.raises(
        ValueError, match=r"belong to another model: encoder\..*use the encoder settings of that run"
    ):
        try_out(settings(f"init_from={finished}", "encoder.widths=[8,24]"))


def test_a_tag_model_begins_with_another_or_with_the_encoder_of_a_captioner(
    finished: Path, tmp_path: Path
) -> None:
    again = run(
        tmp_path / "again", *TAGS, "tagger=cnn", f"init_from={finished}", "optim.lr=0", "trainer.max_steps=1"
    )
    assert read(again / "checkpoints/best", "tags.json") == read(finished / "checkpoints/best", "tags.json")
    captioner = run(tmp_path / "captioner", "trainer.max_steps=1")
    other = run(
        tmp_path / "other",
        *TAGS,
        "tagger=lstm",
        f"init_from={captioner}",
        "trainer.unfreeze_encoder_at_epoch=null",
    )
    ours, theirs = (load_file(p / "checkpoints/best/model.safetensors") for p in (other, captioner))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("encoder."))
