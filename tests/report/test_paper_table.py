"""easycap table: a paper's published scores, and beside them the runs that stand for them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from easycap.cli import main
from easycap.launch import options_of
from easycap.paths import experiments_dirs
from easycap.report.published import read_paper

ROW = {
    "name": "ResNet baseline",
    "recipe": "updown/resnet",
    "scores": {"CIDEr-D": 105.4, "BLEU-4": 33.4, "SPICE": 19.2},
    "split": "Karpathy test",
    "source": "Table 1",
    "sources": 2,
    "checked": True,
    "notes": "beam 5",
    "settings": {"decoding": "beam", "decoding.num_beams": 5},
}
MEMORY = {
    "name": "From memory",
    "scores": {"CIDEr-D": 99.8},
    "split": "Karpathy test",
    "source": "from memory",
    "sources": 0,
    "checked": False,
}
COMMAND = "easycap train experiment=updown/resnet data=coco_karpathy data.root=/photos seed=3"
TERMS = "|v:1|tok:ptb1|df:refs,N=5000|eos:no|refs:5|images:{images}|split:test"


def write_paper(folder: Path, *rows: dict) -> str:
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump({"paper": "A paper", "rows": list(rows)}), encoding="utf-8")
    return str(path)


def score(value: float, images: int = 5000, terms: str = TERMS) -> dict:
    signature = "CIDEr-D" + terms.format(images=images)
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "signature": signature}


@pytest.fixture
def ours(run: Path) -> Path:
    """A run of the recipe on the test split of Karpathy: 103.5 (101.5 – 105.5) and 36.0 (34.0 – 38.0)."""
    change(run / "status.json", command=COMMAND)
    scores = {"CIDEr-D": score(1.035), "BLEU-4": score(0.36)}
    change(run / "result.json", scores={"test": scores})
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"data": {"name": "coco_karpathy"}, "decoding": {"name": "beam", "num_beams": 5}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def table(capsys: pytest.CaptureFixture, *argv: str) -> list[dict[str, str]]:
    """The lines of the CSV that the command prints."""
    assert main(["table", *argv, "--csv", "-"]) == 0, capsys.readouterr().err
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def terminal(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert main(["table", *argv]) == 0, capsys.readouterr().err
    return " ".join(capsys.readouterr().out.split())


def test_a_run_of_a_rows_recipe_stands_beside_it(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW, MEMORY)
    cider, bleu, spice, memory = table(capsys, paper, str(ours))
    assert (cider["row"], cider["run"]) == ("ResNet baseline", ours.name)
    numbers = [float(cider[key]) for key in ("published", "ours", "low", "high", "difference")]
    assert numbers == pytest.approx([105.4, 103.5, 101.5, 105.5, -1.9])
    assert float(bleu["difference"]) == pytest.approx(2.6)
    assert (spice["ours"], spice["difference"], memory["run"]) == ("", "", "not run")
    assert cider["differs"] == "", "the seed and where the photos lie make no difference"
    assert cider["signature"].startswith("CIDEr-D|v:1")
    text = terminal(capsys, paper, str(ours))
    assert "105.4 103.5 101.5 – 105.5 -1.9 ≈" in text, "the published score lies within our interval"
    assert "33.4 36.0 34.0 – 38.0 +2.6 SPICE" in text, "and here it does not"


def test_what_was_not_read_is_marked_and_compared_with_nothing(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW, MEMORY)
    text = terminal(capsys, paper)
    assert "not run: CIDEr-D 99.8?" in text and "not to be quoted as the paper's" in text
    assert "CIDEr-D 105.4, BLEU-4 33.4, SPICE 19.2" in text
    (*_, line) = table(capsys, paper, "--row", "From memory", str(ours))
    assert (line["run"], line["difference"], line["checked"]) == (ours.name, "", "false")
    assert "≈" not in terminal(capsys, paper, "--row", "From memory", str(ours))
    assert "quoted" not in terminal(capsys, write_paper(tmp_path, ROW))


def test_what_differs_is_said(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW)
    change(ours / "status.json", command=f"{COMMAND} trainer.max_steps=100 tracking=none")
    odd = TERMS.replace("df:refs,N=5000", "df:train,N=113287")
    change(ours / "result.json", scores={"test": {"CIDEr-D": score(1.035, 1000, odd)}})
    config = yaml.safe_load((ours / "config.yaml").read_text()) | {"decoding": {"name": "greedy"}}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    assert table(capsys, paper, str(ours))[0]["differs"].split("; ") == [
        "scored on 1000 images, published on 5000",
        "changed in the recipe: trainer.max_steps=100",
        "decoding greedy, published beam",
        "decoding.num_beams –, published 5",
        "CIDEr-D on other terms than coco-caption's: df:train,N=113287",
    ]


def test_scores_of_other_data_are_marked(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, {**ROW, "split": "COCO test server"})
    text = terminal(capsys, paper, str(ours))
    assert "scored on coco_karpathy test, published on COCO test server" in text
    assert "-1.9 ≠" in text and "≈" not in text


def test_another_way_of_decoding_has_its_own_settings(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "result.json", scores={"test@beam,num_beams=3": {"CIDEr-D": score(1.035)}})
    (line, *_) = table(capsys, write_paper(tmp_path, ROW), str(ours), "--split", "test@beam,num_beams=3")
    assert line["differs"] == "decoding.num_beams 3, published 5" and line["difference"] == "-1.9"


def test_a_run_without_scores_or_unfinished_is_shown_as_it_is(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "status.json", status="failed")
    (ours / "result.json").unlink()
    assert f"run: {ours.name} (failed)" in terminal(capsys, write_paper(tmp_path, ROW), str(ours))


def test_markdown_has_every_row(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW, {**MEMORY, "name": "a|b"})
    out = tmp_path / "table.md"
    assert main(["table", paper, str(ours), "--markdown", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert f"| ResNet baseline | {ours.name} | CIDEr-D | 105.4 | 103.5 | 101.5 – 105.5 | -1.9 ≈ |" in lines
    assert "| a\\|b | not run | CIDEr-D | 99.8? | – |  | – |" in lines


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["updwn"], "no published scores of 'updwn'; did you mean 'updown'? allowed: "),
        (["PAPER", "nowhere"], "there is no run in nowhere"),
        (
            ["PAPER", "--row", "ResNet", "RUN"],
            "--row 'ResNet': no row has that name; did you mean 'ResNet base",
        ),
        (["PAPER", "STRAY"], "was trained with experiment=easycap/quickstart, which stands for no row"),
    ],
)
def test_mistakes_end_with_one_sentence(
    argv: list[str], words: str, ours: Path, tmp_path: Path, capsys
) -> None:
    if "STRAY" in argv:
        change(ours / "status.json", command="easycap train experiment=easycap/quickstart")
    known = {"PAPER": write_paper(tmp_path, ROW), "RUN": str(ours), "STRAY": str(ours)}
    assert main(["table", *(known.get(word, word) for word in argv)]) == 1
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": 0}, "cannot be checked with 'sources: 0'"),
        ({"scores": {"CIDEr-D": "high"}}, "'scores' must be"),
        ({"recepi": "updown/resnet"}, "'recepi' is no key; did you mean 'recipe'?"),
    ],
)
def test_a_wrong_file_is_named_with_its_row(change: dict, words: str, tmp_path: Path, capsys) -> None:
    assert main(["table", write_paper(tmp_path, ROW | change)]) == 1
    err = capsys.readouterr().err
    assert "published.yaml, row 1 (ResNet baseline)" in err and words in err


PAPERS = sorted(path for folder in experiments_dirs() for path in folder.glob("*/published.yaml"))


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.parent.name)
def test_every_published_row_can_be_read_and_its_recipe_is_there(path: Path) -> None:
    recipes = options_of("experiment")
    for row in read_paper(path).rows:
        assert row.recipe is None or row.recipe in recipes, row.name
