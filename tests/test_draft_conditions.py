"""Whole runs with drafts, at the smallest size: rounds, marks of oracles, drafts by hand, what the report shows."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.damage import edit
from helpers.tiny_config import try_out
from helpers.whole_runs import metrics, read, run, settings
from PIL import Image

from easycap.commands.caption import main as caption
from easycap.commands.evaluate import main as evaluate
from easycap.conditioning.retrieval import encoder_of, make_neighbours
from easycap.data.images import ImageFile
from easycap.models.image_model import ImageModel
from easycap.report import write_report
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.types import Example

ROUNDS = ["test@round0", "test@round1", "test"]


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    patch.setattr("easycap.training.hardware._cpu_has_bf16", lambda: True)  # emulated it is right, only slow
    path = run(
        tmp_path_factory.mktemp("run") / "run", "draft=noise", "refine.rounds=2", "trainer.precision=bf16"
    )
    patch.undo()
    return path


@pytest.fixture(scope="module")
def photo(refined: Path) -> Path:
    return refined / read(refined, "samples/test.json")["random"][0]["image"]


def test_every_round_is_scored(refined: Path) -> None:
    scores = read(refined, "result.json")["scores"]
    assert {label for label in scores if label.startswith("test@") or label == "test"} == set(ROUNDS)
    for label in ROUNDS:
        assert len(read(refined, f"captions.{label}.json")) == 6
        assert scores[label]["CIDEr-D"]["signature"] == scores["test"]["CIDEr-D"]["signature"]
        assert "oracle" not in scores[label]["CIDEr-D"]["signature"]


def test_evaluation_goes_on_from_the_same_rounds(refined: Path, capsys: pytest.CaptureFixture) -> None:
    before = read(refined, "result.json")
    captions = {label: read(refined, f"captions.{label}.json") for label in ROUNDS}
    assert evaluate([str(refined), "--rounds", "3", "--device", "cpu"]) == 0
    after = read(refined, "result.json")
    assert set(after["scores"]) - set(before["scores"]) == {"test@round3"}
    assert {label: read(refined, f"captions.{label}.json") for label in ROUNDS} == captions
    assert after["cost"] == before["cost"]
    assert "test@round3" in capsys.readouterr().out


def test_samples_have_draft_and_rounds_and_the_report_shows_them(refined: Path) -> None:
    captions = [
        {str(row["image_id"]): row["caption"] for row in read(refined, f"captions.{label}.json")}
        for label in ROUNDS
    ]
    page = write_report(refined).read_text(encoding="utf-8")
    for row in read(refined, "samples/test.json")["random"]:
        assert row["rounds"] == [found[row["id"]] for found in captions[:-1]]
        assert row["caption"] == captions[-1][row["id"]]
        assert row["conditioning"]["draft"] and row["conditioning"]["draft"] in page
    assert "round 1" in page


def test_a_draft_by_hand(refined: Path, photo: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--draft", "a cat on a sofa", "--device", "cpu"]
    assert caption([str(refined), str(photo), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in lines[1:]] == ["round 0", "round 1", "round 2"]
    assert caption([str(refined), str(photo), *words, "--rounds", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (
        row["rounds"] == [line.partition(": ")[2] for line in lines[1:3]]
        and row["caption"] == row["rounds"][1]
    )
    # The rounds are what feeding back by hand gives.
    for caption_now, then in zip(row["rounds"], row["rounds"][1:], strict=False):
        caption([str(refined), str(photo), "--draft", caption_now, "--rounds", "0", "--device", "cpu"])
        assert capsys.readouterr().out == f"{photo}: {then}\n"


def test_a_draft_by_hand_that_is_not_read_whole_is_reported(
    refined: Path, photo: Path, capsys: pytest.CaptureFixture
) -> None:
    def warnings(draft: str) -> str:
        assert caption([str(refined), str(photo), "--draft", draft, "--device", "cpu"]) == 0
        return capsys.readouterr().err

    assert "draft 'xqzt vbnw' has no words in this model's vocabulary" in warnings("xqzt vbnw")
    assert "the draft is truncated to its first 20 of 24 tokens" in warnings("a " * 24)
    assert "--draft" not in warnings("a xqzt")


def test_a_photo_without_a_draft_is_told_so_before_data_is_read(
    refined: Path, photo: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(refined, moved)
    shutil.copytree(refined, moved / "drafts")
    file = moved / "checkpoints" / "best" / "config.json"
    (file.parent / "checksums.txt").unlink()
    config = json.loads(file.read_text())
    config["data"]["cache"] = str(tmp_path / "gone" / "data")
    for name, settings_of in (("noise", {}), ("oracle", {}), ("captions", {"run": "gone"})):
        file.write_text(json.dumps(config | {"draft": config["draft"] | settings_of | {"name": name}}))
        with pytest.raises(ValueError, match=f"draft={name} has no draft for a photo: give one, --draft"):
            caption([str(moved), str(photo), "--device", "cpu"])
        assert caption([str(moved), str(photo), "--draft", "a cat", "--device", "cpu"]) == 0
    assert not (tmp_path / "gone").exists()


def test_what_was_drafted_is_part_of_the_config_that_is_gone_on_with(refined: Path) -> None:
    config = json.loads((refined / "checkpoints" / "best" / "config.json").read_text())
    assert config["draft"]["name"] == "noise" and config["refine"] == {"name": "default", "rounds": 2}


def test_an_oracle_is_marked_in_every_score(tmp_path: Path) -> None:
    path = run(tmp_path / "run", "draft=oracle", "trainer.max_steps=2")
    result = read(path, "result.json")
    for split in ("test", "test_novel"):
        assert all(s["signature"].endswith("|draft:oracle") for s in result["scores"][split].values())
        points = result["baselines"][split]
        assert "draft:oracle" in points["model_same_references"]["CIDEr-D"]["signature"]
        assert "draft:oracle" not in points["reference_caption"]["CIDEr-D"]["signature"]


def test_a_run_without_drafts_says_so(tmp_path: Path, refined: Path, photo: Path) -> None:
    path = run(tmp_path / "run", "trainer.max_steps=1")
    for command in (
        lambda: caption([str(path), str(photo), "--draft", "a cat"]),
        lambda: caption([str(path), str(photo), "--rounds", "1"]),
        lambda: evaluate([str(path), "--rounds", "1"]),
    ):
        with pytest.raises(ValueError, match="takes no draft"):
            command()
    with pytest.raises(ValueError, match="refine.rounds=-1 must be at least 0"):
        evaluate([str(refined), "--rounds", "-1"])
    assert {"conditioning", "rounds"}.isdisjoint(read(path, "samples/test.json")["random"][0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["refine.rounds=1"], "draft=none uses none"),
        (["draft=own", "refine.rounds=-1"], "refine.rounds=-1 must be at least 0"),
        (["draft=own", "trainer.captions_per_image=null"], "captions_per_image=null makes all references"),
        (["draft=noise", "draft.training.drop=2"], "draft.training.drop=2.0 must be a share"),
        (
            ["draft=noise", "decoder=transformer", "decoder.segments=[image]"],
            r"decoder.segments=\['image'\] does not name draft",
        ),
        (
            ["draft=own", "objective=scst"],
            "draft.training.another, nothing and as_tested sum to 1",
        ),
        (
            ["draft=oracle", "objective=scst", "draft.training.another=0", "draft.training.as_tested=1"],
            "draft.training.another and nothing sum to 1",
        ),
        (["draft=noise", "draft.max_length=0"], "draft.max_length=0 must be at least 1"),
        (
            ["draft=noise", "refine.rounds=1", "decoding=sample", "decoding.num_samples=2"],
            "decoding.num_samples=2 generates more than one",
        ),
    ],
)
def test_wrong_settings_end_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(settings(*overrides))


def losses(path: Path) -> list[Any]:
    return [line["train/loss"] for line in metrics(path) if "train/loss" in line]


def test_workers_change_nothing(tmp_path: Path, refined: Path) -> None:
    again = run(
        tmp_path / "again", "draft=noise", "refine.rounds=2", "trainer.workers=2", "trainer.max_steps=3"
    )
    here = run(tmp_path / "here", "draft=noise", "refine.rounds=2", "trainer.max_steps=3")
    assert losses(again) == losses(here)
    assert read(again, "captions.test.json") == read(here, "captions.test.json")


def test_retrieval_by_the_encoder_of_another_run(
    refined: Path,
    tmp_path: Path,
    photo: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = run(
        tmp_path / "run", "draft=retrieval", f"draft.run={refined}", "refine.rounds=1", "trainer.max_steps=3"
    )
    stored = json.loads((path / "neighbours" / "captions.json").read_text())
    assert len(stored["ids"]) == 24
    shown = {row["id"]: row["conditioning"]["draft"] for row in read(path, "samples/test.json")["random"]}
    assert set(shown.values()) <= set(stored["captions"])
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments" / "language_model"))
    importlib.import_module("nearest_caption").main(str(path), str(tmp_path / "nearest.json"))
    nearest = {row["image_id"]: row["caption"] for row in json.loads((tmp_path / "nearest.json").read_text())}
    assert {image_id: nearest[image_id] for image_id in shown} == shown
    # The run's folder is all that captioning needs: neither the other run nor the data.
    moved = tmp_path / "moved"
    shutil.copytree(path, moved)
    config = json.loads((moved / "checkpoints" / "best" / "config.json").read_text())
    config["draft"]["run"], config["data"]["cache"] = "gone", str(tmp_path / "gone" / "data")
    edit(moved / "checkpoints" / "best" / "config.json", json.dumps(config))
    capsys.readouterr()
    assert caption([str(moved), str(photo), "--device", "cpu", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["rounds"]) == 2
    image_id = read(refined, "samples/test.json")["random"][0]["id"]
    captions = {str(row["image_id"]): row["caption"] for row in read(path, "captions.test.json")}
    assert row["caption"] == captions[image_id]
    assert not (tmp_path / "gone").exists()
    shutil.rmtree(moved / "neighbours")
    with pytest.raises(ValueError, match="has no folder neighbours"):
        caption([str(moved), str(photo), "--device", "cpu"])
    assert caption([str(moved), str(photo), "--draft", "a cat", "--device", "cpu"]) == 0


def test_the_encoder_of_retrieval_is_folded_for_the_training_images(
    refined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path))
    asked: list[int] = []
    monkeypatch.setattr(ImageModel, "fold_encoder", lambda self, num_images: asked.append(num_images))
    image = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(image)
    examples = [Example(name, ImageFile(image), ("a red image",)) for name in "abc"]
    make_neighbours(encoder_of(str(refined), "", torch.device("cpu")), examples, workers=0)
    assert asked == [3]


def test_an_image_of_training_is_not_its_own_draft(refined: Path, tmp_path: Path) -> None:
    overrides = ["draft=retrieval", f"draft.run={refined}", "draft.training.as_tested=1"]
    task = create_task(settings(*overrides, "draft.training.another=0"))
    batch = next(training_loader(task).epoch(0))
    vocabulary = task.vocabulary
    firsts = {vocabulary.decode(vocabulary.encode(e.references[0])): e.id for e in task.examples("train")}
    drafts = [vocabulary.decode(ids) for ids in batch.inputs.context["draft"].tolist()]
    assert len(drafts) == 4
    assert all(firsts[draft] != image_id for draft, image_id in zip(drafts, batch.image_ids, strict=True))


def test_what_another_run_says(refined: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(refined, other)
    overrides = ["draft=captions", f"draft.run={other}", "trainer.max_steps=2"]
    with pytest.raises(
        ValueError, match=r"no captions.val.json: `easycap evaluate \S+ --split val` makes them"
    ):
        try_out(settings(*overrides))
    evaluate([str(other), "--split", "val", "--device", "cpu"])
    (other / "captions.test_novel.json").rename(other / "kept.json")
    with pytest.raises(ValueError, match="no captions.test_novel.json"):
        run(tmp_path / "without", *overrides)
    assert not list((tmp_path / "without").glob("checkpoints/*"))
    (other / "kept.json").rename(other / "captions.test_novel.json")
    path = run(tmp_path / "run", *overrides)
    captions = {str(row["image_id"]): row["caption"] for row in read(other, "captions.test.json")}
    for row in read(path, "samples/test.json")["random"]:
        assert row["conditioning"]["draft"] == captions[row["id"]]
    assert "oracle" not in read(path, "result.json")["scores"]["test"]["CIDEr-D"]["signature"]
    # The run is whole without the other: it is evaluated and resumed.
    before = read(path, "captions.test.json")
    shutil.rmtree(other)
    assert evaluate([str(path), "--device", "cpu"]) == 0
    assert read(path, "captions.test.json") == before
    try_out(settings(*overrides, f"resume={path}"))


def test_captions_of_an_oracle_are_marked_in_every_score(tmp_path: Path, refined: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(refined, other)
    evaluate([str(other), "--split", "val", "--device", "cpu"])
    result = read(other, "result.json")
    for score in result["scores"]["test"].values():
        score["signature"] += "|tags:oracle"
    (other / "result.json").write_text(json.dumps(result))
    path = run(tmp_path / "run", "draft=captions", f"draft.run={other}", "trainer.max_steps=1")
    for split in ("test", "test_novel"):
        scores = read(path, "result.json")["scores"][split]
        assert all(score["signature"].endswith("|draft:oracle") for score in scores.values())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["draft=captions", "draft.run=nowhere"], "draft.run=nowhere is not a folder"),
        (["draft=retrieval", "draft.run=nowhere"], "draft.run: nowhere is not a folder"),
        (["draft=retrieval", "draft.encoder=resnet19"], "draft.encoder: encoder 'resnet19' does not exist"),
        (["draft=retrieval", "draft.encoder='precomputed,features=f'"], "cannot see raw images"),
    ],
)
def test_drafts_from_nowhere_end_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(settings(*overrides))


def test_rewarded_captions_are_beside_training_drafts(tmp_path: Path) -> None:
    drafts = ["draft=own", "draft.training.nothing=0.9", "refine.rounds=1"]
    path = run(tmp_path / "run", *drafts, "objective=scst", "trainer.max_steps=2")
    assert {"test@round0", "test"} <= read(path, "result.json")["scores"].keys()
    assert len([line for line in metrics(path) if "train/reward" in line]) == 2


def test_a_run_that_ended_while_it_copied_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run"
    (path / ".drafts.partial").mkdir(parents=True)
    (path / ".result.json.partial").write_text("{")
    (path / "status.json").write_text('{"status": "failed"}')
    run(path, f"resume={path}", "trainer.max_steps=1")
    assert "test" in read(path, "result.json")["scores"] and not (path / ".result.json.partial").exists()
