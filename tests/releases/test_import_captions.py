"""`easycap import captions FILE data=...`: captions of any origin become a run with scores, a page and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.small_data import write_images

from easycap.cli import main
from easycap.errors import UserError
from easycap.releases.captions_files import read_any_captions

CAPTIONS = {"4": "a photo of thing 1", "5": "a photo of a thing"}
DATA = ["data=coco_karpathy", "data.root=COCO"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))
    write_images(tmp_path / "COCO", *(f"val2014/{n}.jpg" for n in range(6)), "train2014/0.jpg")
    images = [
        {"cocoid": n, "filename": f"{n}.jpg", "filepath": "val2014", "split": split}
        | {"sentences": [{"raw": f"A photo of thing {n % 3}."}, {"raw": "One thing."}]}
        for n, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ]
    (tmp_path / "COCO" / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return tmp_path


def write(folder: Path, kind: str) -> Path:
    """CAPTIONS in a file or folder of a kind."""
    rows = [{"image_id": int(image), "caption": text} for image, text in CAPTIONS.items()]
    contents = {
        "coco.json": json.dumps(rows),
        "by_id.json": json.dumps(CAPTIONS),
        "table.csv": "image,caption\n" + "".join(f"{n},{text}\n" for n, text in CAPTIONS.items()),
        "table.tsv": "score\tfile_name\tprediction\n"
        + "".join(f"0.5\t{n}\t{text}\n" for n, text in CAPTIONS.items()),
        "lines.jsonl": "\n".join(map(json.dumps, rows)),
    }
    path = folder / kind
    if kind == "texts":
        path.mkdir()
        for image, text in CAPTIONS.items():
            (path / f"{image}.txt").write_text(text + "\n")
    else:
        path.write_text(contents[kind])
    return path


KINDS = ("coco.json", "by_id.json", "table.csv", "table.tsv", "lines.jsonl", "texts")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_has_the_same_captions(tmp_path: Path, kind: str) -> None:
    assert read_any_captions(write(tmp_path, kind)) == CAPTIONS


def test_captions_become_a_run_with_scores_and_a_page(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, "coco.json"), write(place, "texts")
    assert main(["import", "captions", "coco.json", *DATA, "--folder", "run"]) == 0
    assert "CIDEr-D" in capsys.readouterr().out
    result = json.loads((place / "run" / "result.json").read_text())
    assert result["scores"]["test"]["BLEU-1"]["value"] > 0.5
    assert result["imported"]["files"][0]["name"] == "coco.json"
    assert set(result["baselines"]["test"]) >= {"reference_caption", "most_frequent"}
    assert {row["caption"] for row in json.loads((place / "run" / "captions.test.json").read_text())} == set(
        CAPTIONS.values()
    )
    page = (place / "run" / "report.html").read_text()
    assert "coco.json (sha256 " in page
    assert CAPTIONS["5"] in page and (place / "run" / "samples" / "images" / "4.png").is_file()
    assert main(["import", "captions", "texts", *DATA, "--name", "another", "--folder", "two"]) == 0
    assert main(["compare", "run", "two"]) == 0
    shown = capsys.readouterr().out
    assert "coco" in shown and "another" in shown
    assert main(["evaluate", "run"]) == 1
    assert "holds captions that were imported, and no model" in capsys.readouterr().err


def test_equal_to_easycap_score(place: Path) -> None:
    write(place, "coco.json")
    assert main(["import", "captions", "coco.json", *DATA, "--folder", "run"]) == 0
    words = ["coco.json", "COCO/dataset_coco.json", "--split", "test", "--json", "scores.json"]
    assert main(["score", *words]) == 0
    scored = json.loads((place / "scores.json").read_text())["scores"]
    assert json.loads((place / "run" / "result.json").read_text())["scores"]["test"] == scored


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["coco.json"], "name the data set that the captions belong to"),
        ([*DATA], "give one file or folder of captions"),
        (["nowhere.json", *DATA], "'nowhere.json' is not a file"),
        (["nowhere.docx", *DATA], "nowhere.docx is not a captions file"),
        (
            ["coco.json", *DATA, "--split", "train"],
            "coco.json has no caption for 2 of the 2 images of train, e.g. '0'",
        ),
        (["coco.json", *DATA, "--split", "dev"], "has no split 'dev'"),
        (["few.json", *DATA], "few.json has no caption for 1 of the 2 images of test, e.g. '5'"),
        (["twice.csv", *DATA], "image '4' has two captions"),
        (["named.csv", *DATA], "has the columns picture, words, none of them called image_id"),
        (["coco.json", *DATA, "--folder", "COCO"], "COCO exists already"),
    ],
)
def test_what_cannot_be_scored_leaves_nothing(
    place: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, "coco.json")
    (place / "few.json").write_text(json.dumps({"4": "a photo"}))
    (place / "twice.csv").write_text("image,caption\n4,a\n4,b\n5,c\n")
    (place / "named.csv").write_text("picture,words\n4,a\n")
    before = sorted(place.iterdir())
    assert main(["import", "captions", *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("easycap: ") and sentence in error
    assert sorted(place.iterdir()) == before


def test_captions_of_other_images_are_left_out_and_counted(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a paper's results are of all of val2014."""
    (place / "more.json").write_text(json.dumps(CAPTIONS | {"17": "a photo", "18": "a photo"}))
    assert main(["import", "captions", "more.json", *DATA, "--folder", "run"]) == 0
    assert "2 captions of images that are not in test are left out" in caplog.text
    assert len(json.loads((place / "run" / "captions.test.json").read_text())) == 2


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no .txt files"):
        read_any_captions(tmp_path)
