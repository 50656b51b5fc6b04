"""Fine-tuning captioners of transformers with our loop: losses, LoRA, checkpoints that stand alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from helpers.tiny_config import TINY
from helpers.tiny_image_text_models import KINDS, tiny_model
from helpers.whole_runs import read
from PIL import Image
from safetensors.torch import load_file

import easycap
from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.schema import check, to_plain
from easycap.errors import UserError
from easycap.sharing.model_card import model_card
from easycap.tasks import memory_estimate
from easycap.tasks.dry_run import model_on_meta
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.training.place import Place
from easycap.types import Batch

OF_PARTS = ("encoder.", "image_tokens.", "decoder.")
SMALL = [word for word in TINY if not word.startswith(OF_PARTS)] + ["optim=adamw", "captioner=huggingface"]


def settings(kind: str, *overrides: str) -> dict[str, Any]:
    model = [f"captioner.model={tiny_model(kind)}", "captioner.max_length=12"]
    return check(compose([*SMALL, *model, *overrides]).config)


def task_and_batch(kind: str, *overrides: str) -> tuple[Any, Batch]:
    task = create_task(settings(kind, "data.train_images=4", "trainer.workers=0", *overrides))
    task.model.freeze_encoder(True)
    return task, training_loader(task).first_batch(0)


WITHOUT_TILES = "captioner.tiles=false"


@pytest.mark.parametrize(
    ("kind", "more"),
    [*((kind, ()) for kind in KINDS), *((kind, (WITHOUT_TILES,)) for kind in ("idefics3", "smolvlm"))],
)
def test_our_loss_is_that_of_the_model(kind: str, more: tuple[str, ...]) -> None:
    task, batch = task_and_batch(kind, "trainer.captions_per_image=1", *more)
    task.model.eval()
    ours = task.objective()(task.model, batch)[0]
    model, tokens = task.model, task.vocabulary
    given = model.prompts(batch.inputs.images.select(batch.rows.tolist()))
    real = batch.targets != tokens.pad_id
    labels = batch.targets.masked_fill(~real, -100)
    words = torch.where(batch.input_ids >= tokens.num_own, 0, batch.input_ids)[:, 1:]
    if tokens.is_encoder_decoder:
        assert given["decoder_input_ids"].shape[1] == 1
        theirs = model.model(
            **given | {"decoder_input_ids": torch.cat([given["decoder_input_ids"], words], 1)}, labels=labels
        )
    else:  # labels are shifted inside: those of the prompt do not count
        start = given["input_ids"].shape[1]
        last = labels[:, -1:].clamp(min=0)
        given["input_ids"] = torch.cat([given["input_ids"], words, last], 1)
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        before = torch.full((len(labels), start), -100)
        if "token_type_ids" in given:
            given["token_type_ids"] = (
                (torch.arange(given["input_ids"].shape[1]) >= start).long().expand(len(labels), -1)
            )
        if "mm_token_type_ids" in given:
            types = given["mm_token_type_ids"]
            given["mm_token_type_ids"] = torch.cat([types, types.new_zeros(len(labels), labels.shape[1])], 1)
        theirs = model.model(**given, labels=torch.cat([before, labels], 1))
    torch.testing.assert_close(ours, theirs.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tune", ["lora", "all"])
def test_what_is_trained(tune: str) -> None:
    task, batch = task_and_batch("git", f"captioner.tune={tune}")
    task.objective()(task.model, batch)[0].backward()
    moved = {
        name for name, p in task.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved
    assert not any(name.startswith("model.git.image_encoder") for name in moved), "the vision tower is frozen"
    assert all("lora" in name for name in moved) == (tune == "lora")
    task.model.freeze_encoder(False)
    tower = [p.requires_grad for p in task.model.encoder.parameters()]
    assert all(tower) if tune == "all" else not any(tower)


@pytest.mark.filterwarnings("error::FutureWarning")  # of names that transformers will drop
@pytest.mark.parametrize("kind", ["vision-encoder-decoder", "git", "smolvlm"])
def test_gradient_checkpointing_changes_no_gradients(kind: str) -> None:
    found = []
    for saving in (False, True):
        task, batch = task_and_batch(kind, "captioner.tune=all", "trainer.captions_per_image=1")
        task.model.train()
        if saving:
            task.model.checkpoint_gradients()
        torch.manual_seed(0)
        task.objective()(task.model, batch)[0].backward()
        layers = [
            m.gradient_checkpointing for m in task.model.modules() if hasattr(m, "gradient_checkpointing")
        ]
        assert layers and all(one == saving for one in layers)
        found.append({n: p.grad for n, p in task.model.named_parameters() if p.grad is not None})
    assert len(found[0]) > 5
    torch.testing.assert_close(found[1], found[0])


def test_rewards_reach_the_weights() -> None:
    task, batch = task_and_batch(
        "git", "objective=scst", "objective.num_samples=2", "objective.xe_first=false"
    )
    task.model.train()
    torch.manual_seed(0)
    loss, parts = task.objective()(task.model, batch)
    loss.backward()
    grads = [p.grad for p in task.model.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert parts["words_per_sample"] > 1
    assert any(grad.abs().sum() > 0 for grad in grads) or parts["reward"] == 0


def test_a_run_stands_alone_and_begins_where_the_model_is(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model("git"), model)
    words = [
        *SMALL,
        f"captioner.model={model}",
        "captioner.max_length=12",
        "trainer.max_steps=2",
        "optim.lr=0.01",
    ]
    folder = Path(easycap.train(words, folder=tmp_path / "run").folder)
    shutil.rmtree(model)
    result = read(folder, "result.json")
    assert 0 < result["cost"]["trainable_parameters"] < result["cost"]["total_parameters"]
    weights = easycap.load(folder, device="cpu").task.model.state_dict()
    before = load_file(tiny_model("git") / "model.safetensors")
    frozen = "git.image_encoder.vision_model.embeddings.class_embedding"
    assert torch.equal(weights[f"model.{frozen}"], before[frozen])
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights.items())
    scores = easycap.evaluate(folder, split="val", device="cpu")
    assert scores["val"]["CIDEr-D"]["value"] >= 0
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").save(photo)
    assert isinstance(easycap.load(folder, device="cpu").caption(photo), str)
    easycap.load(folder, device="cpu").save_pretrained(tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "model (GitForCausalLM), fine-tuned with easycap" in card
    assert "captioner: model, LoRA of rank 8" in card
    assert "began with the weights of model, whose licence applies" in card and "base_model" not in card


@pytest.mark.parametrize("tune", ["lora", "all"])
def test_the_card_names_the_base_model_on_the_hub(tune: str) -> None:
    base = "Salesforce/blip-image-captioning-base"
    config = to_plain(settings("git", f"captioner.tune={tune}", "trainer.unfreeze_encoder_at_epoch=null"))
    config["captioner"]["model"] = base
    card = model_card(config, {}, name="mine", licence=None, model_class="BlipForConditionalGeneration")
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] in (base, [base])
    assert f"{base} (BlipForConditionalGeneration), fine-tuned" in card
    tuned = {"lora": "LoRA of rank 8", "all": "all weights but those of the vision tower"}[tune]
    assert f"- captioner: {base}, {tuned}" in card
    assert card.count(f"Training began with the weights of {base}, whose licence applies.") == 1


def test_a_run_without_tiles_keeps_its_images_whole_wherever_it_goes(tmp_path: Path) -> None:
    more = ["captioner.max_length=6", "trainer.max_steps=1", "data.test_images=2", WITHOUT_TILES]
    words = [*SMALL, f"captioner.model={tiny_model('smolvlm')}", *more]
    run = Path(easycap.train(words, folder=tmp_path / "run").folder)
    Image.linear_gradient("L").save(photo := tmp_path / "photo.png")
    captioner = easycap.load(run, device="cpu")
    captioner.save_pretrained(tmp_path / "shared")
    assert main(["export", str(run), "--transformers", str(tmp_path / "exported")]) == 0
    exported = transformers.AutoProcessor.from_pretrained(tmp_path / "exported")
    shared = easycap.load(tmp_path / "shared", device="cpu")
    for processor in (exported, *(one.task.vocabulary.processor for one in (captioner, shared))):
        assert processor.image_processor.do_image_splitting is False
    as_model = easycap.load(f"hf:{tmp_path / 'exported'}", overrides=more[:1], device="cpu")
    caption = captioner.caption(photo)
    assert caption and caption == shared.caption(photo) == as_model.caption(photo)


def test_a_batch_that_is_too_large_for_each_of_two_ranks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("git")
    monkeypatch.setattr(memory_estimate, "place", lambda: Place(0, 2, 0))
    with pytest.raises(UserError, match="a training step of .* images needs at least") as error:
        memory_estimate.check_memory(config, model_on_meta(config), model_on_meta, available=1000)
    assert "trainer.shard" not in str(error.value)


def test_settings_of_parts_are_refused() -> None:
    from easycap.tasks.prepared_run import prepare

    model = ["captioner=huggingface", f"captioner.model={tiny_model('git')}", "device=cpu"]
    for words, sentence in {
        ("decoder=lstm",): "decoder=lstm is for captioner=parts: leave it out",
        ("trainer.flip=true",): "trainer.flip is for captioner=parts",
        (
            "trainer.shard=true",
        ): "trainer.shard is for captioner=parts: set trainer.shard=false with captioner=huggingface",
        (
            f"captioner.model={tiny_model('llava')}",
            "trainer.cache_features=true",
            "trainer.unfreeze_encoder_at_epoch=null",
        ): "trainer.cache_features=true is for models of the types vision-encoder-decoder, blip, git",
        (WITHOUT_TILES,): "captioner.tiles=false is for .* a git model does not: leave it out",
        ("captioner.tune=none",): "captioner.tune=none trains nothing",
        ("captioner.tune=all", "captioner.dtype=bf16"): "captioner.dtype=bf16 is too coarse",
        ("objective=scheduled_sampling",): "objective=scheduled_sampling is for captioner=parts",
    }.items():
        with pytest.raises(UserError, match=sentence):
            prepare([*model, *words])
