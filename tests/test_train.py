"""Whole runs at the smallest size: what they leave behind, what they survive, how they go on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.region_files import DIM, ids_of_data, write_folder
from helpers.tiny_clip import save_tiny_clip
from helpers.tiny_config import TINY, try_out
from helpers.whole_runs import OVERLAYS, RECURRENT, metrics, read, run, settings
from PIL import Image
from safetensors.torch import load_file

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.registry import lookup, names
from easycap.tasks.captioning import CaptioningTask
from easycap.train import train
from easycap.training.step import TrainStep
from easycap.training.trainer import Trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = run(tmp_path_factory.mktemp("run") / "run")
    patch.undo()
    return path


def test_a_run_leaves_everything_a_reader_needs(finished: Path) -> None:
    assert read(finished, "status.json")["status"] == "completed"
    result = read(finished, "result.json")
    for split in ("test", "test_novel"):
        for metric in ("CIDEr-D", "BLEU-4", "ROUGE-L", "truth"):
            score = result["scores"][split][metric]
            low, value, high = (score[name] for name in ("low", "value", "high"))
            assert (
                low - 1e-12 <= value <= high + 1e-12 and split in score["signature"]
            )  # sums in another order
        points = result["baselines"][split]
        assert set(points) == {"reference_caption", "model_same_references", "most_frequent"}
        assert "train" in points["reference_caption"]["CIDEr-D"]["signature"]
        assert len(read(finished, f"captions.{split}.json")) == 6
        assert len(read(finished, f"samples/{split}.json")["best"]) == 6
    cost = result["cost"]
    assert cost["steps"] == 6 and cost["trainable_parameters"] == cost["total_parameters"] > 0
    assert cost["flops_per_caption"] > 0 and cost["wall_seconds"] > cost["train_seconds"] > 0
    assert (finished / "checkpoints" / "best" / "model.safetensors").is_file()
    assert (finished / read(finished, "samples/epoch-001.json")[0]["image"]).is_file()


def test_metrics_are_named_and_complete(finished: Path) -> None:
    lines = metrics(finished)
    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5, 6]
    assert {"train/grad_norm/encoder", "train/grad_norm/image_tokens", "train/grad_norm/decoder"} <= set(
        trained[0]
    )
    validated = next(line for line in lines if "val/loss" in line)
    assert {"val/CIDEr-D", "val/truth", "val/distinct_captions", "val/loss_of_shuffled_images"} <= set(
        validated
    )


def test_the_same_config_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again")
    assert [line["train/loss"] for line in metrics(again) if "train/loss" in line] == [
        line["train/loss"] for line in metrics(finished) if "train/loss" in line
    ]
    assert read(again, "captions.test.json") == read(finished, "captions.test.json")


def test_evaluating_again_gives_the_same_scores(finished: Path, capsys: pytest.CaptureFixture) -> None:
    from easycap.commands.evaluate import main

    before = read(finished, "result.json")["scores"]
    assert main([str(finished), "--split", "test", "--device", "cpu"]) == 0
    assert read(finished, "result.json")["scores"] == before
    assert "CIDEr-D" in capsys.readouterr().out
    main([str(finished), "--split", "val", "--decoding", "beam,num_beams=2", "--device", "cpu"])
    assert "val@beam,num_beams=2" in read(finished, "result.json")["scores"]
    levels = "reference caption on val", "most frequent caption on val"  # in the chart of validation scores
    assert not any(level in (finished / "report.html").read_text() for level in levels)
    main([str(finished), "--split", "val", "--device", "cpu"])
    assert all(level in (finished / "report.html").read_text() for level in levels)


def test_several_captions_per_image_and_further_metrics(
    finished: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from easycap.commands.evaluate import main

    clip = save_tiny_clip(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    words = ["--samples", "3", "--metrics", "meteor", "--clip", str(clip), "--device", "cpu"]
    capsys.readouterr()
    assert main([str(finished), *words]) == 0
    shown = capsys.readouterr().out
    label = "test@sample,num_samples=3"
    assert (
        label in shown
        and "test_novel" not in shown
        and "Div-1" in shown
        and "METEOR: 'java' was not" in shown
    )
    scores = read(finished, "result.json")["scores"][label]
    assert 0 < scores["Div-1"]["value"] <= 1 and 0 <= scores["self-CIDEr"]["value"] <= 1
    assert {"CLIPScore", "RefCLIPScore", "truth", "CIDEr-D"} <= scores.keys()
    assert "'java' was not found" in scores["METEOR"]["absent"]
    assert "captions:mean of 3" in scores["CIDEr-D"]["signature"]
    rows = read(finished, f"captions.{label}.json")
    assert len(rows) == 18 and len({row["image_id"] for row in rows}) == 6
    # The file is what `easycap score --several` takes, and it finds the same.
    from easycap.commands.score import main as score

    files = [str(finished / f"{what}.{label}.json") for what in ("captions", "references")]
    assert score([*files, "--several", "--split", "test", "--json", str(tmp_path / "out.json")]) == 0
    again = read(tmp_path, "out.json")["scores"]
    assert all(again[name] == scores[name] for name in ("CIDEr-D", "BLEU-4", "Div-2", "self-CIDEr"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "1"], "samples=1 must be at least 2"),
        (["--samples", "2", "--decoding", "beam"], "decoding.num_samples does not exist"),
        (["--metrics", "meteo"], "no metric 'meteo'; did you mean 'meteor'"),
        (["--metrics", ","], "no metric ''"),
        (["--batch-size", "0"], "the batch size 0 must be at least 1"),
        (["--split", "tset"], "split 'tset' does not exist; allowed: "),
        (["--clip", "nowhere"], "clip=nowhere is not a folder"),
    ],
)
def test_what_cannot_be_evaluated_is_known_before_the_work(
    finished: Path, words: list[str], message: str
) -> None:
    from easycap.commands.evaluate import main

    with pytest.raises(ValueError, match=message):
        main([str(finished), *words, "--device", "cpu"])


def test_captions_of_files_are_those_of_evaluation(finished: Path, tmp_path: Path, capsys) -> None:
    from easycap.commands.caption import main

    wanted = {row["image_id"]: row["caption"] for row in read(finished, "captions.test.json")}
    folder = tmp_path / "my photos (é)"
    folder.mkdir()
    for example in CaptioningTask.read_data(settings()).splits["test"]:
        example.image.load().save(folder / f"{example.id}.png")
    assert main([str(finished), str(folder), "--json", "--batch-size", "4", "--device", "cpu"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {Path(row["file"]).stem: row["caption"] for row in rows} == wanted


def test_a_file_that_is_no_image_does_not_stop_the_others(finished: Path, tmp_path: Path, capsys) -> None:
    from easycap.commands.caption import main

    (tmp_path / "bad.jpg").write_bytes(b"no image")
    good = next((finished / "samples" / "images").glob("*.png"))
    assert main([str(finished), str(tmp_path / "bad.jpg"), str(good), "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert str(good) in out and "bad.jpg cannot be read" in err


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 5])
def test_a_killed_run_goes_on_to_the_same_weights(
    finished: Path, tmp_path: Path, monkeypatch, step: int
) -> None:
    original = Trainer.train_step

    def dying(self: Trainer, batches: list) -> dict:
        if self.state.step == step:
            raise Killed
        return original(self, batches)

    monkeypatch.setattr(Trainer, "train_step", dying)
    with pytest.raises(Killed):
        run(tmp_path / "killed", "trainer.checkpoint_every_steps=1")
    assert read(tmp_path / "killed", "status.json")["status"] == "failed"
    monkeypatch.undo()
    with pytest.raises(ValueError, match="already holds a run"):
        run(tmp_path / "killed", "seed=9")
    run(tmp_path / "killed", "trainer.checkpoint_every_steps=1", f"resume={tmp_path / 'killed'}")
    weights = [
        load_file(folder / "checkpoints/last/model.safetensors") for folder in (finished, tmp_path / "killed")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert read(tmp_path / "killed", "captions.test.json") == read(finished, "captions.test.json")


def test_accumulated_batches_count_as_one(tmp_path: Path) -> None:
    small = run(tmp_path / "a", "trainer.batch_size=4", "trainer.accumulate=2", "trainer.max_steps=3")
    large = run(tmp_path / "b", "trainer.batch_size=8", "trainer.max_steps=3")
    losses = [
        [line["train/loss"] for line in metrics(path) if "train/loss" in line] for path in (small, large)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_overfitting_one_batch_goes_to_nearly_no_loss(tmp_path: Path) -> None:
    path = run(
        tmp_path / "run", "trainer.overfit_batch=true", "trainer.epochs=4", "trainer.captions_per_image=1",
        "data.train_images=4", "trainer.batch_size=2", "decoder.width=32", "validation.every_epochs=4",
    )  # fmt: skip
    losses = [line["train/loss"] for line in metrics(path) if "train/loss" in line]
    assert len(losses) == 200 and losses[-1] < 0.1 < losses[0]


def test_a_loss_that_is_not_finite_stops_with_step_and_images(tmp_path: Path, monkeypatch) -> None:
    import easycap.objectives.xe as xe

    run_step, loss_of, now = TrainStep.run, xe.CrossEntropy.__call__, {}

    def noting(self: TrainStep, batches: list, step: int) -> dict[str, float]:
        now["step"] = step
        return run_step(self, batches, step)

    def broken(self, captioner, batch):
        loss, parts = loss_of(self, captioner, batch)
        return (
            (loss * math.nan, {"loss": loss.detach() * math.nan}) if now.get("step") == 1 else (loss, parts)
        )

    monkeypatch.setattr(TrainStep, "run", noting)
    monkeypatch.setattr(xe.CrossEntropy, "__call__", broken)
    with pytest.raises(UserError, match=r"the loss is nan at step 2; images train-\d+"):
        run(tmp_path / "run")
    assert "nan at step 2" in read(tmp_path / "run", "status.json")["error"]


def test_a_captioner_that_ignores_the_image_is_warned_of_once(
    tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    from easycap.models.captioner import Captioner

    original = Captioner.encode
    monkeypatch.setattr(Captioner, "encode", lambda self, images: original(self, images * 0))
    monkeypatch.setattr("easycap.training.validation._FEW_STEPS", 12)  # two epochs
    path = run(tmp_path / "run", "trainer.epochs=3")
    warnings = " ".join(read(path, "result.json")["warnings"])
    assert caplog.text.count("the decoder ignores the image") == 1
    assert "after epoch 2: the loss is nearly" in caplog.text
    assert caplog.text.count("get the same caption") == 1
    assert "after epoch 3: the loss" in warnings
    assert "the decoder ignores the image" in warnings and "100% of the validation images" in warnings


@pytest.mark.parametrize("epoch", [None, 1])
def test_the_encoder_is_frozen_until_its_epoch(tmp_path: Path, epoch: int | None) -> None:
    value = "null" if epoch is None else epoch
    path = run(tmp_path / "run", f"trainer.unfreeze_encoder_at_epoch={value}", "trainer.epochs=2")
    norms = [line["train/grad_norm/encoder"] for line in metrics(path) if "train/loss" in line]
    assert len(norms) == 12 and not any(norms[:6])
    assert any(norms[6:]) == (epoch == 1)


def test_a_vocabulary_without_words_is_refused_and_one_with_few_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try_out(settings(f"vocab.min_count={10**12}"))  # makes no list of that length
    with pytest.raises(UserError, match="no word occurs 100000 times in the training captions: lower"):
        run(tmp_path / "none", "vocab.min_count=100000")
    assert not (tmp_path / "none").exists()
    run(tmp_path / "few", "vocab.min_count=60", "trainer.max_steps=1")
    assert "has only 32% of the running words of the training captions" in caplog.text
    assert "vocab.min_count=60, vocab.size=15000" in caplog.text


def test_validation_fails_before_training_if_it_must(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation.metric='CIDER' is not measured; did you mean 'CIDEr-D'"):
        run(tmp_path / "run", "validation.metric=CIDER")
    with pytest.raises(ValueError, match="'most_frequent_caption' is not measured"):
        run(tmp_path / "other", "validation.metric=most_frequent_caption")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def _cases() -> list[tuple[str, str]]:
    from easycap.config.options import options

    swapped = ("encoder", "image_tokens", "decoder", "objective", "optim", "schedule", "decoding")
    return [(group, option) for group in swapped for option in options(group)]


@pytest.mark.parametrize(("group", "option"), _cases())
def test_every_option_takes_two_real_steps(group: str, option: str, tmp_path: Path) -> None:
    own = [o for o in TINY if not o.startswith(f"{group}.")]
    sizes = [o for o in TINY if o.startswith(f"{group}.")] if group != "encoder" or option == "small" else []
    if option == "all":
        sizes = []
    if option in ("split", "grid", "mlp"):
        sizes = ["image_tokens.count=2"]
    if option == "all":
        own = [o for o in own if not o.startswith("image_tokens.")]
    sizes = RECURRENT.get(option, sizes)
    if group == "encoder" and option != "small":
        sizes = ["encoder.image_size=64" if "vit" in option else "encoder.image_size=32"]
    if option == "precomputed":
        features = write_folder(tmp_path / "features", ids_of_data(TINY))
        sizes = [f"encoder.features={features}", f"encoder.region_dim={DIM}", "encoder.min_regions=1"]
    extra = OVERLAYS.get(group, {}).get(option, [])
    config = check(compose([*own, f"{group}={option}", *sizes, *extra, "trainer.max_steps=2"])[0])
    train(config, tmp_path / "run", command="")
    assert read(tmp_path / "run", "status.json")["status"] == "completed"


def test_every_registered_decoder_and_token_mode_is_covered() -> None:
    assert {lookup("decoder", n) for n in names("decoder")} and len(_cases()) >= 20


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """Eight photos laid out as COCO lays them out."""
    root = tmp_path / "coco"
    for first, split in ((0, "train2017"), (100, "val2017")):
        (root / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        ids = range(first, first + 8)
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in ids]
        for image in images:
            Image.effect_noise((90, 70), 40).convert("RGB").save(root / split / image["file_name"])
        captions = [{"image_id": n, "caption": f"a photo of thing {n % 3}."} for n in ids for _ in range(5)]
        content = json.dumps({"images": images, "annotations": captions})
        (root / "annotations" / f"captions_{split}.json").write_text(content)
    return root


# The full model's recipe with nothing but its widths reduced.
NARROW = [
    "encoder.model=resnet10t",
    "encoder.pretrained=false",
    "encoder.image_size=64",
    "decoder.width=32",
    "decoder.num_layers=2",
    "decoder.num_heads=2",
]


def test_the_full_models_recipe_takes_two_real_steps_on_coco(coco_folder: Path, tmp_path: Path) -> None:
    recipe = ["experiment=easycap/coco", f"data.root={coco_folder}", *NARROW]
    small = [
        "trainer.batch_size=4",
        "trainer.workers=1",
        "trainer.max_steps=2",
        "tracking=none",
        "device=cpu",
    ]
    train(check(compose([*recipe, *small])[0]), tmp_path / "run", command="")
    result = read(tmp_path / "run", "result.json")
    assert result["cost"]["steps"] == 2 and "CIDEr-D" in result["scores"]["test"]
    assert result["vocabulary"]["coverage"]["val"] == 1.0
