"""Captioners as folders that transformers loads by itself, in a process without easycap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_config import TINY
from helpers.tiny_image_text_models import tiny_model
from helpers.tiny_tokenizers import CAPTIONS, tiny_gpt2, tiny_language_model_tokenizer
from PIL import Image
from safetensors.torch import load_file

import easycap
from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data.image_inputs import as_examples
from easycap.errors import UserError
from easycap.models.stored_weights import read_weights
from easycap.sharing import transformers_export
from easycap.sharing.transformers_export import export_transformers
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.types import Inputs

SIDE = 64
OF_PARTS = ("encoder.", "image_tokens.", "decoder.")
BASE = [
    *(word for word in TINY if not word.startswith(OF_PARTS)),
    *("encoder=timm", "encoder.model=test_resnet", "encoder.pretrained=false", f"encoder.image_size={SIDE}"),
    *("image_tokens=all", "decoder.max_length=8", "decoder.max_positions=64"),
]
OWN = [
    *("decoder=gpt2_tiny", "decoder.width=16", "decoder.num_heads=2", "decoder.num_layers=1"),
    *("vocab=gpt2", f"vocab.path={tiny_gpt2()}"),
]


def language_model(folder: Path, kind: str, **settings: Any) -> list[str]:
    """The settings of a decoder that is a random Llama with a tokenizer of this kind."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_language_model_tokenizer(kind))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **settings
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ["decoder=causal_lm", f"decoder.pretrained={folder}", "vocab=pretrained"]


def task_of(*words: str) -> Any:
    """A captioner with random weights, larger than as initialised, so that captions differ between images."""
    torch.manual_seed(1)
    task = create_task(check(compose([*BASE, *words]).config))
    with torch.no_grad():
        for name, weight in task.model.named_parameters():
            if weight.ndim > 1 and not name.startswith("encoder."):
                weight.normal_(0, 2 if name.startswith("image_tokens.") else 0.2)
    task.model.eval()
    return task


def cases(folder: Path) -> dict[str, list[str]]:
    return {
        "own": OWN,
        "tied_lora": [
            *language_model(folder / "lm" / "tied", "byte_fallback", tie_word_embeddings=True),
            *("encoder.model=test_convnext", "encoder.crop_pct=0.9", "decoder.tune=lora"),
        ],
        "no_bos": [
            *language_model(folder / "lm" / "no_bos", "no_bos"),
            "decoder.bos=false",
            "encoder.squash=true",
        ],
    }


ALONE = """
import json, sys
sys.modules["easycap"] = None
import torch, transformers
from PIL import Image

found = {}
for name, case in json.load(open("cases.json")).items():
    model = transformers.AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=False)
    processor = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
    photos = [Image.open(photo) for photo in case["photos"]]
    given = processor(images=photos, text=[case["prompt"]] * len(photos), return_tensors="pt")
    ids = processor.tokenizer(case["captions"], add_special_tokens=False)["input_ids"]
    scores = []
    with torch.no_grad():
        for row in range(len(photos)):
            for words in ids:
                words = torch.tensor([*words, processor.tokenizer.eos_token_id])
                read = torch.cat([given["input_ids"][row], words])[None]
                logits = model(pixel_values=given["pixel_values"][row : row + 1], input_ids=read).logits
                scores.append(logits[0, -len(words) - 1 : -1].log_softmax(1).gather(1, words[:, None])[:, 0])
    asked = [[{"role": "user", "content": [{"type": "image", "image": photo}]}] for photo in photos]
    chat = processor.apply_chat_template(asked, tokenize=True, return_dict=True, return_tensors="pt")
    texts = processor.batch_decode(
        model.generate(**given)[:, given["input_ids"].shape[1] :], skip_special_tokens=True
    )
    found[name] = {
        "pixels": given["pixel_values"], "ids": ids, "scores": scores, "captions": texts,
        "asked as a chat": torch.equal(chat["input_ids"], given["input_ids"]),
    }
torch.save(found, "found.pt")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos: two of the encoder's size, one to be resized whose rest is odd."""
    folder = tmp_path_factory.mktemp("exported")
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate([(SIDE, SIDE), (SIDE, SIDE), (3 * SIDE + 11, 2 * SIDE + 4)]):
        small = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """{name: (task, what transformers alone finds)} of each case."""
    tasks, asked = {}, {}
    for name, words in cases(place).items():
        tasks[name] = task_of(*words)
        exported = export_transformers(tasks[name], place / name)
        assert exported.difference < 1e-5
        photos = [f"{number}.png" for number in range(3)]
        asked[name] = {"prompt": exported.prompt, "photos": photos, "captions": CAPTIONS[:4]}
    (place / "cases.json").write_text(json.dumps(asked))
    subprocess.run([sys.executable, "-c", ALONE], cwd=place, check=True, capture_output=True)
    found = torch.load(place / "found.pt")
    return {name: (tasks[name], found[name]) for name in tasks}


EACH = pytest.mark.parametrize("name", ["own", "tied_lora", "no_bos"])


def pixels_of(task: Any, place: Path) -> torch.Tensor:
    photos = [place / f"{number}.png" for number in range(3)]
    return torch.stack([task.pipeline.transform(one.image) for one in as_examples(photos)])


@pytest.mark.slow
@EACH
def test_pixels_are_ours_to_one_level(
    alone: dict[str, tuple[Any, dict[str, Any]]], place: Path, name: str
) -> None:
    task, found = alone[name]
    ours = (pixels_of(task, place).float() - task.model.mean) / task.model.std
    levels = (found["pixels"] - ours).abs() * task.model.std
    if name != "tied_lora":  # which cuts their edges off
        assert levels[:2].max() < 1e-3
    assert levels.max() < 1.001


@pytest.mark.slow
@EACH
def test_log_probabilities_of_captions_are_ours(
    alone: dict[str, tuple[Any, dict[str, Any]]], name: str
) -> None:
    task, found = alone[name]
    words = task.vocabulary
    assert found["ids"] == [words.encode(caption) for caption in CAPTIONS[:4]]
    seen = (found["pixels"] * task.model.std + task.model.mean).round().to(torch.uint8)
    theirs = iter(found["scores"])
    spread = set()
    for image in seen:
        for ids in found["ids"]:
            read = torch.tensor([[words.bos_id, *ids]])
            with torch.no_grad():
                logits = task.model(Inputs(image[None]), read, torch.tensor([0])).logits[0]
            targets = torch.tensor([*ids, words.eos_id])
            ours = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
            torch.testing.assert_close(next(theirs), ours, atol=1e-5, rtol=0)
            spread.add(round(float(ours.sum()), 2))
    assert len(spread) > 8, "captions or images make no difference"


@pytest.mark.slow
@EACH
def test_greedy_captions_are_ours(alone: dict[str, tuple[Any, dict[str, Any]]], name: str) -> None:
    task, found = alone[name]
    seen = (found["pixels"] * task.model.std + task.model.mean).round().to(torch.uint8)
    memory = task.model.build_memory(Inputs(seen))
    rows = task.generator("greedy")(task.model.decoder, memory).words.tolist()
    ours = [task.vocabulary.decode(row) for row in rows]
    assert [" ".join(text.split()) for text in found["captions"]] == ours
    assert len(set(ours)) > 1 and all(ours)
    assert found["asked as a chat"]


def test_a_run_is_exported_and_captions_again_as_a_model_of_transformers(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = tmp_path / "run", tmp_path / "folder"
    words = [*BASE, *OWN, "trainer.max_steps=2", "optim.lr=0.1"]
    assert main(["train", *words, f"hydra.run.dir={run}"]) == 0
    capsys.readouterr()
    assert main(["export", str(run), "--transformers", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed
    assert "checked with transformers: log-probabilities differ by at most" in printed
    assert printed.endswith("the prompt is <image><bos>\n")
    assert main(["export", str(run), "--transformers", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
    photo = str(place / "0.png")
    ours = easycap.load(run, device="cpu").caption(photo, decoding="greedy")
    assert main(["caption", f"hf:{folder}", "captioner.max_length=8", "--device", "cpu", photo]) == 0
    assert capsys.readouterr().out.strip().endswith(str(ours))


@pytest.mark.parametrize("decoder", ["own", "language_model"])
def test_an_export_is_fine_tuned_from_the_loss_of_its_run(tmp_path: Path, decoder: str) -> None:
    words = OWN if decoder == "own" else language_model(tmp_path / "lm", "byte_fallback")
    both = [word for word in BASE if not word.startswith(("encoder", "image_tokens", "decoder"))]
    both += [f"data.size={SIDE}", "trainer.batch_size=4", "trainer.captions_per_image=2", "optim=adamw"]
    run = task_of(*words, *both, "decoder.max_length=58", "encoder.crop_pct=1.0")
    export_transformers(run, tmp_path / "folder")
    model = ["captioner=huggingface", f"captioner.model={tmp_path / 'folder'}", "captioner.max_length=58"]
    tuned = create_task(check(compose([*both, *model]).config))
    losses, seen = [], []
    first = next(part for part in tuned.model.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    first.register_forward_hook(lambda _, given, found: seen.append(len(given[0])))
    for task in (run, tuned):
        task.model.freeze_encoder(True)
        task.model.eval()
        losses.append(task.objective()(task.model, training_loader(task).first_batch(0))[0])
    torch.testing.assert_close(losses[1], losses[0], atol=1e-4, rtol=0)
    assert seen == [4], "the vision tower reads an image once for both of its captions"
    losses[1].backward()
    moved = [name for name, p in tuned.model.named_parameters() if p.grad is not None and p.grad.any()]
    assert moved and all("lora" in name for name in moved)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*OWN, "encoder.model=test_vit"], "encoder.model=test_vit makes no map"),
        ([*OWN, "encoder.pooled=true"], "encoder.pooled=true changes"),
        ([*OWN, "encoder.pool=1"], "encoder.pool=1 changes"),
        ([*OWN, "image_tokens=split"], "image_tokens=split is not a projection of each patch"),
        ([*OWN, "decoder.predict_special=false"], "decoder.predict_special=false changes"),
        ([*OWN, "vocab.end=a"], "vocab.end='a' ends captions with a word"),
        ([*OWN[:-2], "vocab=word"], "vocab=word is not the tokenizer of a language model"),
        ([*OWN, "draft=own"], "it is no captioner of images alone"),
    ],
)
def test_what_transformers_cannot_express_names_the_setting(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"transformers has no class for this captioner: .*{sentence}"):
        export_transformers(task_of(*words), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_language_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_language_model_tokenizer("byte_level"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.GraniteConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, logits_scaling=4.0, **sizes
    )
    transformers.GraniteForCausalLM(config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    task = task_of("decoder=causal_lm", f"decoder.pretrained={tmp_path / 'lm'}", "vocab=pretrained")
    with pytest.raises(UserError, match="nothing was saved; FastVLM .* a granite model may scale them"):
        export_transformers(task, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_numbers_that_differ_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="gives a log-probability that differs by .*: nothing was saved"):
        export_transformers(task_of(*OWN), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


WHOLE = """
import sys
sys.modules["easycap"] = None
import torch, transformers
from PIL import Image

place = sys.argv[1]
model = transformers.AutoModelForImageTextToText.from_pretrained(place, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(place)
pixels = transformers.AutoImageProcessor.from_pretrained(place)(Image.open(sys.argv[2]), return_tensors="pt")
words = model.generate(**pixels, max_new_tokens=7, do_sample=False, num_beams=1)
print(" ".join(tokenizer.decode(words[0], skip_special_tokens=True).split()))
"""


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vision-encoder-decoder", ["captioner.tune=lora", "captioner.dtype=bf16"]),
        pytest.param("blip", ["captioner.tune=lora", "captioner.prompt=a photo of"], marks=pytest.mark.slow),
        pytest.param("git", ["captioner.tune=all"], marks=pytest.mark.slow),
        pytest.param("llava", ["captioner.tune=lora"], marks=pytest.mark.slow),
    ],
)
def test_a_fine_tuned_model_is_one_of_transformers(
    kind: str, more: list[str], tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in TINY if not word.startswith(OF_PARTS)]
    words += ["captioner=huggingface", f"captioner.model={tiny_model(kind)}", "captioner.max_length=7", *more]
    run, folder, photo = tmp_path / "run", tmp_path / "folder", str(place / "2.png")
    settings = ["optim=adamw", "optim.lr=0.1", "schedule=constant", "schedule.warmup_steps=0"]
    assert main(["train", *words, *settings, "trainer.max_steps=2", f"hydra.run.dir={run}"]) == 0
    if "captioner.tune=lora" in more:
        kept = read_weights(run / "checkpoints" / "best")
        assert max(float(t.abs().max()) for name, t in kept.items() if "lora_B" in name) > 0.05
    capsys.readouterr()
    assert main(["export", str(run), "--transformers", str(folder)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("; the prompt is a photo of") == (kind == "blip")
    overrides = ["captioner.max_length=7", "trainer.precision=fp32"]  # by itself, bf16 on some CPUs
    overrides += [word for word in more if word.startswith("captioner.prompt")]
    saved = easycap.load(f"hf:{folder}", device="cpu", overrides=overrides)
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    if kind == "vision-encoder-decoder":
        alone = subprocess.run(
            [sys.executable, "-c", WHOLE, folder, photo], check=True, capture_output=True, text=True
        )
        assert alone.stdout.strip() == saved.caption(photo) != ""
    else:  # the weights of the former are in bf16
        assert saved.caption(photo) == easycap.load(run, device="cpu").caption(photo) != ""
