"""Trained models for others: saved in a folder, uploaded, loaded from a hub, which is a server on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from helpers.damage import flip_a_bit
from helpers.fake_hub import FakeHub, serving
from helpers.whole_runs import run as make_run

import easycap
from easycap.cli import main
from easycap.errors import UserError
from easycap.predict import Captioner
from easycap.sharing.portable import portable, portable_command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A folder with the runs plain, tagger, and conditioned on these two."""
    folder = tmp_path_factory.mktemp("private") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        make_run(folder / "plain", "trainer.max_steps=2")
        make_run(folder / "tagger", "task=tags", "tagger=cnn", "trainer.max_steps=2")
        texts = ["tags=predicted", f"tags.run={folder / 'tagger'}"]
        texts += ["draft=retrieval", f"draft.run={folder / 'plain'}"]
        make_run(folder / "conditioned", *texts, "trainer.max_steps=2")
    return folder


@pytest.fixture(scope="module")
def photos(runs: Path) -> list[Path]:
    return sorted((runs / "plain" / "samples" / "images").glob("*.png"))[:3]


@pytest.fixture(scope="module")
def captioner(runs: Path) -> Captioner:
    return easycap.load(runs / "plain", device="cpu")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    constants = huggingface_hub.constants
    with serving({}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        url = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_saved_model_captions_as_its_run(
    captioner: Captioner, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captioner.save_pretrained(tmp_path / "model", license="mit")
    saved = easycap.load(tmp_path / "model", device="cpu")
    mine, its = (one.caption(photos, details=True) for one in (captioner, saved))
    assert [one.text for one in mine] == [one.text for one in its]
    assert [one.log_probability for one in mine] == [one.log_probability for one in its]
    assert main(["caption", str(tmp_path / "model"), str(photos[0])]) == 0
    assert capsys.readouterr().out.endswith(f": {mine[0].text}\n")
    files = {one.name for one in (tmp_path / "model").iterdir()}
    assert files == {
        "README.md",
        "checksums.txt",
        "config.json",
        "model.safetensors",
        "preprocessing.json",
        "result.json",
        "vocab.json",
    }


def test_a_flipped_bit_of_what_is_kept_for_a_model_is_noticed(runs: Path, tmp_path: Path) -> None:
    """In a shared folder and in the folders that text conditions saved in a run: every file but the card."""
    easycap.load(runs / "conditioned", device="cpu").save_pretrained(tmp_path / "model")
    run = shutil.copytree(runs / "conditioned", tmp_path / "run")
    files = [one for one in (tmp_path / "model").rglob("*") if one.is_file() and one.name != "README.md"]
    kept = [one for name in ("tagger", "neighbours") for one in (run / name).rglob("*") if one.is_file()]
    assert {"tags.json", "model.safetensors", "features.npy", "checksums.txt"} <= {one.name for one in kept}
    for file in [*files, *kept]:
        content = file.read_bytes()
        flip_a_bit(file)
        found = None
        try:
            easycap.load(tmp_path / "model" if file in files else run, device="cpu")
        except UserError as error:
            found = str(error)
        assert found is not None and "is damaged: " in found, f"{file}: {found}"
        file.write_bytes(content)
    with (tmp_path / "model" / "README.md").open("a") as card:
        card.write("More about it.")
    for folder in (tmp_path / "model", run):
        easycap.load(folder, device="cpu")


def test_the_card_has_the_scores_of_the_run(captioner: Captioner, runs: Path, tmp_path: Path) -> None:
    captioner.save_pretrained(tmp_path / "model", license="mit")
    card = (tmp_path / "model" / "README.md").read_text()
    front = front_matter(card)
    named = {"library_name": "easycap", "pipeline_tag": "image-to-text", "license": "mit", "language": ["en"]}
    assert named.items() <= front.items() and "cider" in front["metrics"]
    score = json.loads((runs / "plain" / "result.json").read_text())["scores"]["test"]["ROUGE-L"]
    value, low, high = (f"{100 * score[key]:.1f}" for key in ("value", "low", "high"))
    assert f"| ROUGE-L | {value} ({low} – {high}) [" in card and f"`{score['signature']}`" in card
    by_split = {one["dataset"]["split"]: one["metrics"] for one in front["model-index"][0]["results"]}
    (listed,) = [one for one in by_split["test"] if one["name"] == "ROUGE-L"]
    assert listed["value"] == pytest.approx(100 * score["value"], abs=1e-3)
    assert listed["args"]["signature"] == score["signature"]
    assert "- parameters: " in card and 'easycap.load("model")' in card
    saved_again = easycap.load(tmp_path / "model", device="cpu")
    saved_again.save_pretrained(tmp_path / "again" / "model", license="mit")
    assert (tmp_path / "again" / "model" / "README.md").read_text() == card


def test_other_weights_than_the_best_have_no_scores(runs: Path, tmp_path: Path) -> None:
    easycap.load(runs / "plain" / "checkpoints" / "last", device="cpu").save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "These weights have not been scored" in card and "model-index" not in card
    assert "license" not in front_matter(card) and "Licence of the weights: not stated" in card


def test_a_conditioned_model_needs_no_other_run(
    runs: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = easycap.load(runs / "conditioned", device="cpu").caption(photos)
    tags = easycap.load(runs / "tagger", device="cpu").tags(photos[0])
    for name in ("conditioned", "tagger"):
        assert main(["share", str(runs / name), str(tmp_path / name)]) == 0
    away = runs.with_name("away")
    runs.rename(away)
    try:
        monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "empty"))
        moved = [away / one.relative_to(runs) for one in photos]
        assert easycap.load(tmp_path / "conditioned", device="cpu").caption(moved) == expected
        assert easycap.load(tmp_path / "tagger", device="cpu").tags(moved[0]) == tags
    finally:
        away.rename(runs)
    for file in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.md")]:
        assert str(runs.parent) not in file.read_text(), file
    assert "captions and features of the training images" in (tmp_path / "conditioned/README.md").read_text()


def test_paths_are_reduced_to_names() -> None:
    assert portable({"root": "/home/me/coco", "own": "~/x/gpt2", "id": "user/model"}) == {
        "root": "coco",
        "own": "gpt2",
        "id": "user/model",
    }
    assert portable("timm,weights=/home/me/w.pth,size=3") == "timm,weights=w.pth,size=3"
    assert portable("C:\\Users\\me\\coco") == "coco"
    command = "easycap train 'data.root=/home/me/my photos' experiment=easycap/quickstart --csv /tmp/a.csv"
    expected = "easycap train 'data.root=my photos' experiment=easycap/quickstart --csv a.csv"
    assert portable_command(command) == expected


def test_what_cannot_be_saved_is_one_sentence(
    captioner: Captioner, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    with pytest.raises(UserError, match="full is not empty"):
        captioner.save_pretrained(tmp_path / "full")
    captioner.save_pretrained(tmp_path / "full", overwrite=True)
    assert easycap.load(tmp_path / "full", device="cpu").checkpoint == tmp_path / "full"
    with pytest.raises(UserError, match="is a run or a checkpoint"):
        captioner.save_pretrained(runs / "tagger", overwrite=True)
    with pytest.raises(UserError, match="'MIT License' must be a hub licence identifier"):
        captioner.save_pretrained(tmp_path / "new", license="MIT License")
    assert not (tmp_path / "new").exists()
    for words, message in {
        ("plain",): "specify a new folder",
        ("plain", "new", "--hub", "a/b"): "specify a new folder",
        ("plain", "new", "--private"): "only apply to --hub",
        ("plain", "--hub", "a/b/c"): "is not a valid model name",
    }.items():
        assert main(["share", *words]) == 1
        assert message in capsys.readouterr().err


def test_a_model_goes_to_the_hub_and_comes_back(
    captioner: Captioner, photos: list[Path], hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    url = captioner.push_to_hub("me/scenes", private=True, license="mit", commit_message="The first")
    assert url == f"{hub.url}/me/scenes"
    made = hub.created[0]  # "visibility" in newer versions of the library
    assert made.get("private") is True or made.get("visibility") == "private"
    assert hub.commits == [("me/scenes", "The first")]
    assert hub.stored, "the weights go through LFS"
    card = hub.files["me/scenes"]["README.md"].decode()
    assert 'easycap.load("me/scenes")' in card and front_matter(card)["model-index"][0]["name"] == "scenes"
    hub.files["me/scenes"]["notes/huge.bin"] = b"0"
    loaded = easycap.load("me/scenes", device="cpu", revision="main")
    assert loaded.caption(photos) == captioner.caption(photos)
    assert not hub.sent("huge.bin"), "only what a model consists of is downloaded"
    assert main(["caption", "me/scenes", str(photos[0])]) == 0
    assert captioner.caption(photos[0]) in capsys.readouterr().out


def test_a_folder_of_the_name_is_taken_before_the_hub(
    captioner: Captioner, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    captioner.save_pretrained("me/scenes")
    assert easycap.load("me/scenes", device="cpu").folder == Path("me/scenes")
    assert hub.asked == []
    with pytest.raises(UserError, match="revision 'v2' only applies to models on the hub"):
        easycap.load("me/scenes", revision="v2")


@pytest.mark.parametrize(
    ("name", "reason"), [("me/gated", "is gated: request access"), ("me/absent", "cannot be loaded")]
)
def test_a_captioner_of_transformers_that_the_hub_does_not_give_is_one_sentence(
    name: str, reason: str, hub: FakeHub
) -> None:
    hub.files |= {"me/gated": {}}
    hub.gated = {"me/gated"}
    with pytest.raises(UserError, match=f"'{name}' {reason}") as refused:
        easycap.load(f"hf:{name}")
    assert "\n" not in str(refused.value) and hub.asked


def test_what_the_hub_does_not_give_is_one_sentence(
    captioner: Captioner, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files |= {"me/other": {"config.json": b"{}", "pytorch_model.bin": b"0"}, "me/gated": {}}
    hub.gated = {"me/gated"}
    for name, message in {
        "me/absent": "me/absent is not a run or folder here, and model me/absent was not found",
        "me/other": "not a model that easycap saved",
        "me/gated": "me/gated is gated",
    }.items():
        with pytest.raises(UserError, match=message):
            easycap.load(name)
    assert not hub.sent("pytorch_model.bin")
    captioner.push_to_hub("me/scenes")
    with pytest.raises(UserError, match="has no revision 'v9'"):
        easycap.load("me/scenes", revision="v9")
    with pytest.raises(UserError, match="me/new is not uploaded: .*log in"):
        captioner.push_to_hub("me/new", token="hf_wrong")
    assert easycap.load("me/scenes", device="cpu").caption([]) == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert easycap.load("me/scenes", device="cpu").caption([]) == []  # from the cache
    with pytest.raises(UserError, match="cannot be reached"):
        easycap.load("me/absent")
    with pytest.raises(UserError, match="cannot be reached"):
        captioner.push_to_hub("me/new")
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    with pytest.raises(UserError, match="its cache does not have me/scenes"):
        easycap.load("me/scenes")
