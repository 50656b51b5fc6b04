"""`hf:NAME_OR_FOLDER`: a captioner of transformers captions photos without a run; bad ones end with a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from helpers.tiny_clip import save_tiny_clip
from helpers.tiny_image_text_models import tiny_model
from PIL import Image
from safetensors.torch import load_file, save_file

import easycap
from easycap.cli import main


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def test_a_pretrained_captioner_captions_a_photo(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"hf:{tiny_model('vision-encoder-decoder')}"
    assert main(["caption", model, "captioner.max_length=6", str(photo), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["file"] == str(photo)
    expected = easycap.load(model, overrides=["captioner.max_length=6"], device="cpu")
    assert row["caption"] == expected.caption(photo)


def test_a_prompt_begins_the_caption_or_is_taken_off(photo: Path) -> None:
    prompt = ["captioner.prompt=a dog", "captioner.max_length=6"]
    kept, removed = (
        easycap.load(
            f"hf:{tiny_model('git')}", overrides=[*prompt, f"captioner.remove_prompt={value}"]
        ).caption(photo)
        for value in ("false", "true")
    )
    assert kept.startswith("a dog")
    assert kept.removeprefix("a dog").strip() == removed.removeprefix("##")


SCENES = ["data=scenes", "data.size=32", "data.train_images=8", "data.val_images=4", "data.test_images=4"]


def test_an_evaluation_leaves_a_run_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    model = f"hf:{tiny_model('git')}"
    words = [model, *SCENES, "captioner.max_length=6", "--folder", str(folder), "--device", "cpu"]
    assert main(["evaluate", *words]) == 0
    result = json.loads((folder / "result.json").read_text())
    cost, parameters = result["cost"], easycap.load(model, device="cpu").task.model.parameters()
    assert cost["total_parameters"] == sum(p.numel() for p in parameters)
    assert all(cost[name] > 0 for name in ("captions_per_second", "flops_per_caption", "peak_memory_bytes"))
    assert len(json.loads((folder / "captions.test.json").read_text())) == 4
    assert json.loads((folder / "status.json").read_text())["status"] == "completed"
    (row,) = easycap.compare(folder)
    assert row["CIDEr-D"] == result["scores"]["test"]["CIDEr-D"]["value"]
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 1
    assert f"name the captioner itself, {model}" in capsys.readouterr().err


def test_an_evaluation_that_fails_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"hf:{tiny_model('git')}"
    for words, sentence in {
        (): "name the images to score",
        (*SCENES, "--split", "nowhere"): "has no split 'nowhere'",
        (*SCENES, "--decoding", "diverse_beam"): "decoding=diverse_beam is not among",
        (*SCENES, "decoder=lstm"): "",
    }.items():
        assert main(["evaluate", model, *words, "--folder", str(tmp_path / "run")]) == 1
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.fixture
def refused(photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def sentence(model: str, *words: str) -> str:
        capsys.readouterr()
        assert main(["caption", f"hf:{model}", *words, str(photo)]) == 1
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1 and err.startswith("easycap: ")
        return err

    return sentence


def test_models_that_do_not_caption_are_refused(refused, tmp_path: Path) -> None:
    clip, text = tmp_path / "clip", tmp_path / "text"
    clip.mkdir()
    save_tiny_clip(clip)
    transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9).save_pretrained(text)
    assert "is a clip model, which writes no captions: use one that does" in refused(str(clip))
    assert "is a gpt2 model, which reads text alone: use it as the decoder" in refused(str(text))


def test_absent_and_damaged_models_are_refused(refused, tmp_path: Path) -> None:
    assert "captioner.model='somebody/blip' cannot be loaded" in refused("somebody/blip")
    assert "followed by a captioner's name" in refused("")
    folder = tmp_path / "git"
    shutil.copytree(tiny_model("git"), folder)
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    assert "has no processor" in refused(str(folder))


@pytest.mark.parametrize("kind", ["blip", "git", "blip-2", "qwen2_vl"])
def test_a_model_without_a_tokenizer_is_refused(refused, kind: str, tmp_path: Path, capsys) -> None:
    """transformers gives it an empty tokenizer, with which all captions are empty."""
    folder = tmp_path / kind
    shutil.copytree(tiny_model(kind), folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert f"{folder} has no tokenizer" in refused(str(folder))
    run = tmp_path / "run"
    assert main(["evaluate", f"hf:{folder}", *SCENES, "--folder", str(run), "--device", "cpu"]) == 1
    assert f"{folder} has no tokenizer" in capsys.readouterr().err
    whole = ["captioner=huggingface", f"captioner.model={folder}", "tracking=none", "device=cpu"]
    assert main(["train", *whole, *SCENES, f"hydra.run.dir={run}"]) == 1
    assert f"{folder} has no tokenizer" in capsys.readouterr().err
    assert not run.exists()


def copied(kind: str, folder: Path, **config: object) -> Path:
    """A tiny model whose config says something else."""
    shutil.copytree(tiny_model(kind), folder)
    stored = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def test_the_reason_why_a_model_cannot_be_loaded(refused, tmp_path: Path) -> None:
    cut = copied("git", tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[:-1000])
    assert "model.safetensors is damaged or cut off; download it again" in refused(str(cut))
    own = {"AutoConfig": "configuration_x.X", "AutoModel": "modeling_x.X"}
    remote = copied("git", tmp_path / "remote", model_type="x", auto_map=own)
    (remote / "configuration_x.py").write_text("raise SystemExit")
    assert "code from models is not run" in refused(str(remote))
    assert "there is no such folder here, and the hub cannot be reached" in refused("hf_nosuch")
    assert "'/hf/no/such' cannot be loaded: there is no such folder\n" in refused("/hf/no/such")


def test_weights_of_another_head_are_named(refused, tmp_path: Path) -> None:
    folder = copied("blip", tmp_path / "blip", architectures=["BlipForImageTextRetrieval"])
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_decoder")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "is a BlipForImageTextRetrieval, which writes no captions" in refused(str(folder))
    copied("blip", tmp_path / "damaged")
    save_file(kept, tmp_path / "damaged" / "model.safetensors", metadata={"format": "pt"})
    assert "of its model's tensors" in refused(str(tmp_path / "damaged"))


def test_a_folder_of_transformers_settings_and_sharing(tmp_path: Path, capsys) -> None:
    folder = tiny_model("git")
    for words, sentence in (
        (["evaluate", str(folder)], f"is used by the name hf:{folder}"),
        (["evaluate", f"hf:{folder}", "encoder=timm"], "encoder=timm is not a setting of a pre"),
        (
            ["evaluate", f"hf:{folder}", *SCENES, "trainer.batch_size=4"],
            "trainer.batch_size=4 is not a setting",
        ),
        (
            ["share", f"hf:{folder}", str(tmp_path / "x")],
            "was not trained here, so there is nothing to share",
        ),
    ):
        assert main(words) == 1
        assert sentence in capsys.readouterr().err
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("task: caption\n")
    (run / "status.json").write_text('{"status": "completed"}')
    (run / "result.json").write_text(json.dumps({"pretrained": "some/model"}))
    assert main(["share", str(run), str(tmp_path / "x")]) == 1
    assert "was not trained here" in capsys.readouterr().err


def test_weights_that_are_only_a_pickle_are_refused(refused, tmp_path: Path) -> None:
    folder = tmp_path / "git"
    shutil.copytree(tiny_model("git"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "has no model.safetensors, and weights in other files are pickles" in refused(str(folder))


def test_settings_that_do_not_fit_are_refused(refused) -> None:
    model = str(tiny_model("git"))
    assert "decoding=diverse_beam is not among" in refused(model, "--decoding", "diverse_beam")
    assert "captioner.max_length=1 must be at least 2" in refused(model, "captioner.max_length=1")
    assert "takes no tags" in refused(model, "--tags", "dog")
