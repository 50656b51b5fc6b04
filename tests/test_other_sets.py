"""A run evaluated on another set than its own: the run's words and preprocessing, the other set's images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_config import TINY
from PIL import Image

from easycap.commands.compare import main as compare
from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.other_set import split_other_set
from easycap.config.schema import check
from easycap.evaluation.evaluation_set import OtherSet, split_of_other
from easycap.evaluation.groups import examples_by_value
from easycap.metrics import RougeL
from easycap.metrics.corpus import Corpus
from easycap.report.evaluated_sets import set_lines
from easycap.tasks import datasets
from easycap.train import train
from easycap.types import Dataset, Example, Score
from easycap.utils.segmenters import segmenter
from easycap.vocab.survey import unknown_words
from easycap.vocab.word import WordVocabulary

COUNT = 9
PLACES = ("in-domain", "near-domain", "out-domain")


def write_photos(
    folder: Path, *, captions: Iterable[str] = ("a dog runs", "Zebras, eating zebras!")
) -> list[str]:
    """Overrides for photos in `folder`/photos whose ids are those of the run's own images, with two columns more."""
    (folder / "photos").mkdir(parents=True)
    lines = ["image,caption,place,text_detected"]
    for number in range(COUNT):
        Image.effect_noise((40, 30), 10 * number + 5).convert("RGB").save(folder / "photos" / f"{number}.png")
        place = PLACES[number % 3]
        lines += [f'{number}.png,"{text} {number}",{place},{number % 2}' for text in captions]
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return ["data=folder", f"data.images={folder / 'photos'}", f"data.captions={folder / 'photos.csv'}"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = tmp_path_factory.mktemp("other") / "run"
    train(check(compose(TINY)[0]), path, command="easycap train")
    patch.undo()
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


def test_a_known_set_is_called_by_its_own_name_not_its_readers() -> None:
    about = {"data": {"name": "tables", "dataset": "nocaps"}, "split": "val", "images": 8}
    assert set_lines({"other_sets": {"n": about}}, ["n"]) == ["n: 8 images, split val of data=nocaps"]


def test_a_test_split_that_is_val_too_is_called_val() -> None:
    val = [Example("1", None, ("a dog",))]  # type: ignore[arg-type]
    other = OtherSet("nocaps", {}, Dataset("nocaps", {"train": [], "val": val, "test": val}))
    for split in (None, "val", "test"):
        images = split_of_other(other, split)
        assert (images.label, images.split) == ("nocaps", split or "val")
    other = other._replace(data=Dataset("nocaps", {"val": val, "test": list(val)}))
    assert split_of_other(other, None).split == "test" and split_of_other(other, "val").label == "nocaps_val"


def test_another_set_is_scored_under_its_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = result(run)
    own = {file.name: file.read_bytes() for file in run.glob("*.test.json")}
    assert evaluate([str(run), *write_photos(tmp_path), "--split", "all"]) == 0
    printed = capsys.readouterr().out
    after = result(run)
    assert {name: after["scores"][name] for name in before["scores"]} == before["scores"]
    assert after["cost"] == before["cost"]
    assert {file.name: file.read_bytes() for file in run.glob("*.test.json")} == own
    score = after["scores"]["photos_all"]["CIDEr-D"]
    assert "|split:photos_all" in score["signature"] and f"images:{COUNT}" in score["signature"]
    assert "truth" not in after["scores"]["photos_all"]  # the run's own data knows it, these photos do not
    about = after["other_sets"]["photos_all"]
    assert about["data"]["name"] == "folder" and about["images"] == COUNT
    # of "a dog runs 3" and "Zebras, eating zebras! 3", known: a, dog
    lacking = about["unknown_reference_words"]
    assert lacking >= 5 / 8 and about["most_frequent_unknown"][0] == "zebras"
    assert f"photos_all: {COUNT} images, all splits of data=folder; {100 * lacking:.1f} % of the" in printed
    rows = json.loads((run / "captions.photos_all.json").read_text())
    assert {row["image_id"] for row in rows} == {f"{number}.png" for number in range(COUNT)}
    assert after["baselines"]["photos_all"].keys() == after["baselines"]["test"].keys()
    page = (run / "report.html").read_text()
    assert f"photos_all: {COUNT} images" in page
    assert compare([str(run), "--split", "photos_all", "--csv", str(tmp_path / "out.csv")]) == 0
    assert f"{100 * lacking:.1f}" in (tmp_path / "out.csv").read_text()


def test_its_samples_show_its_own_images(run: Path, tmp_path: Path) -> None:
    """Ids of two sets may be the same."""
    photos = write_photos(tmp_path)
    (run / "samples" / "images").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(run / "samples" / "images" / "3_png.png")
    evaluate([str(run), *photos, "--split", "all"])
    rows = json.loads((run / "samples" / "photos_all.json").read_text())["random"]
    (row,) = [row for row in rows if row["id"] == "3.png"]
    shown = np.asarray(Image.open(run / row["image"]))
    assert np.array_equal(shown, np.asarray(Image.open(tmp_path / "photos" / "3.png")))


def test_the_test_split_has_the_bare_name(run: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path)
    evaluate([str(run), *photos, "--decoding", "beam,num_beams=2"])
    evaluate([str(run), *photos, "--split", "val", "--name", "mine"])
    assert {"photos@beam,num_beams=2", "mine_val"} <= result(run)["scores"].keys()
    with pytest.raises(ValueError, match="photos has no split 'tset'; allowed: train, val, test, all"):
        evaluate([str(run), *photos, "--split", "tset"])


def test_same_name_of_another_set_is_refused(run: Path, tmp_path: Path) -> None:
    evaluate([str(run), *write_photos(tmp_path / "a"), "--split", "all"])
    other = write_photos(tmp_path / "b", captions=["a cat sleeps"])
    with pytest.raises(ValueError, match=r"called photos_all \(data.images=.*/a/photos,.* another name"):
        evaluate([str(run), *other, "--split", "all"])
    moved = [word.replace(f"{tmp_path}/a", f"{tmp_path}/c") for word in write_photos(tmp_path / "c")]
    assert evaluate([str(run), *moved, "--split", "all"]) == 0  # the same captions elsewhere
    with pytest.raises(ValueError, match="test is a split of the run's own data: give .* another name"):
        evaluate([str(run), *other, "--name", "test"])
    with pytest.raises(ValueError, match="the name 'a/b' may only contain letters"):
        evaluate([str(run), *other, "--name", "a/b"])
    with pytest.raises(ValueError, match="the name x is for another set"):
        evaluate([str(run), "--name", "x"])


def test_other_scenes_are_judged_as_the_own(run: Path) -> None:
    small = [word for word in TINY if word.startswith("data.")]
    assert evaluate([str(run), "data=scenes", *small, "data.seed=5"]) == 0
    assert "truth" in result(run)["scores"]["scenes"]
    assert "truth" in json.loads((run / "per_image.scenes.json").read_text())


def test_without_the_training_captions_there_are_no_baselines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_photos(tmp_path / "own")
    settings = [word for word in TINY if not word.startswith("data.")]
    train(
        check(compose([*settings, *own, "vocab.min_count=1"])[0]), tmp_path / "run", command="easycap train"
    )
    other = write_photos(tmp_path / "other")
    (tmp_path / "own").rename(tmp_path / "away")
    assert evaluate([str(tmp_path / "run"), *other, "--name", "there"]) == 0
    found = result(tmp_path / "run")
    assert found["baselines"]["there"] == {} and "novel_captions" not in found["diagnostics"]["there"]
    assert "no baselines and no share of novel captions: of the run's own data, data.images=" in caplog.text


def test_wrong_words_are_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.seed=3 without data=NAME: data.root, .*say"):
        evaluate([str(run), "data.seed=3"])
    with pytest.raises(ValueError, match="data=folder,scenes names several sets"):
        evaluate([str(run), "data=folder,scenes"])
    with pytest.raises(ValueError, match="data=floder does not exist; did you mean 'folder'"):
        evaluate([str(run), "data=floder"])
    with pytest.raises(ValueError, match="data.images has no value"):
        evaluate([str(run), "data=folder"])


def test_a_set_without_test_images_is_scored_on_val(run: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path)
    (tmp_path / "photos.csv").write_text("image,caption,split\n1.png,a dog,val\n2.png,a cat,val\n")
    settings = [str(run), *photos, "data.split_column=split", "data.on_bad_image=skip", "--name", "mine"]
    assert evaluate(settings) == 0
    assert result(run)["other_sets"]["mine"]["split"] == "val"
    with pytest.raises(ValueError, match="mine has no images in split 'test': .*; splits with images: val"):
        evaluate([*settings, "--split", "test"])


def test_words_of_data_are_split_off() -> None:
    assert split_other_set(["RUN", "data.root=x"]) == (["RUN", "data.root=x"], [])
    words = ["RUN", "data=coco", "--split", "val", "+data.root=a=b", "encoder.features=f"]
    assert split_other_set(words) == (
        ["RUN", "--split", "val", "encoder.features=f"],
        ["data=coco", "+data.root=a=b"],
    )


def test_unknown_words_are_counted_and_named() -> None:
    vocabulary = WordVocabulary(["a dog runs"], size=10, min_count=1, segmenter="spaces")
    found = unknown_words(vocabulary, ["a Zebra, runs", "a zebra-dog (eats) a zebra"])
    assert found.share == 4 / 8 and found.most_frequent == ["zebra", "eats", "zebra-dog"]
    assert unknown_words(vocabulary, ["A dog."]) == (0.0, [])


def test_unknown_words_are_cut_by_the_segmenter() -> None:
    captions = ["一只狗在跑", "一只猫"]
    vocabulary = WordVocabulary(["一只狗"], size=10, min_count=1, segmenter="characters")
    found = unknown_words(vocabulary, captions, segmenter=segmenter("characters"))
    assert found.share == 3 / 8 and found.most_frequent == ["在", "猫", "跑"]


def with_fields(examples: list[Example]) -> list[Example]:
    """Examples with nocaps' domains and a column of numbers."""
    fields = [{"domain": PLACES[n % 3], "objects": str(n % 2 * 9 + 1)} for n in range(len(examples))]
    return [replace(example, fields=of) for example, of in zip(examples, fields, strict=True)]


def test_scores_for_each_value_of_a_field(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = datasets.build_dataset

    def read_with_fields(config: dict[str, Any], **kwargs: Any) -> Dataset:
        data = read(config, **kwargs)
        return data._replace(splits={name: with_fields(of) for name, of in data.splits.items()})

    monkeypatch.setattr(datasets, "build_dataset", read_with_fields)
    photos = [str(run), *write_photos(tmp_path), "--split", "all", "--name", "nocaps"]
    scored, score_corpus = [], RougeL.score_corpus

    def counted(scorer: RougeL, corpus: Corpus) -> dict[str, Score]:
        scored.append(len(corpus.ids))
        return score_corpus(scorer, corpus)

    monkeypatch.setattr(RougeL, "score_corpus", counted)
    assert evaluate([*photos, "--group-by", "objects", "--group-by", "domain"]) == 0
    assert scored == [COUNT], "each metric runs once, not once for each group"
    found = result(run)
    groups = found["groups"]["nocaps_all"]
    assert list(groups["objects"]) == ["1", "10"] and list(groups["domain"]) == list(PLACES)
    assert sum(group["images"] for group in groups["domain"].values()) == COUNT
    for field in groups.values():
        for metric in ("CIDEr-D", "ROUGE-L"):
            weighted = sum(group["images"] * group["scores"][metric]["value"] for group in field.values())
            assert weighted / COUNT == pytest.approx(found["scores"]["nocaps_all"][metric]["value"])
    score = groups["domain"]["out-domain"]["scores"]["CIDEr-D"]
    assert (
        "|split:nocaps_all/domain=out-domain" in score["signature"]
        and f"df:refs,N={COUNT}" in score["signature"]
    )
    assert score.keys() == {"value", "low", "high", "signature"}
    assert evaluate(photos) == 0  # by nocaps' domains without being asked
    assert list(result(run)["groups"]["nocaps_all"]) == ["domain"]
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed[printed.rindex("by domain") :].splitlines() if line.strip()]
    assert [row for row in rows if row in (*PLACES, "entire")] == [*PLACES, "entire"]
    page = (run / "report.html").read_text()
    assert "nocaps_all by domain" in page and "near-domain" in page
    with pytest.raises(
        ValueError, match="no image has the field 'domian' to group by; did you mean 'domain'"
    ):
        evaluate([*photos, "--group-by", "domian"])


def test_groups_are_ordered_and_few() -> None:
    def of(values: Iterable[str]) -> list[Example]:
        return [
            Example(str(n), None, ("a",), fields={"f": value} if value else {})
            for n, value in enumerate(values)
        ]

    assert list(examples_by_value(of(["b", "10", "", "9", "a"]), "f")) == ["9", "10", "a", "b", "(none)"]
    with pytest.raises(ValueError, match="150 images have 150 different values of 'f'; .* at most 100"):
        examples_by_value(of(map(str, range(150))), "f")
    with pytest.raises(
        ValueError, match="no image has the field 'f' to group by; these images have no fields"
    ):
        examples_by_value(of([""]), "f")
