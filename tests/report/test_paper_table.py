"""easycap table: a paper's published scores, and beside them the runs that stand for them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from easycap.cli import main
from easycap.config.options import options
from easycap.report.published import read_paper
from easycap.utils.paths import experiments_dirs

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


def write_paper(folder: Path, *rows: dict, **more: object) -> str:
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump({"paper": "A paper", "rows": list(rows)} | more), encoding="utf-8")
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


def test_an_ensemble_of_runs_of_a_recipe_stands_beside_its_row(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW)
    change(ours / "result.json", training_commands=[COMMAND, COMMAND.replace("seed=3", "seed=4")])
    change(ours / "status.json", command="easycap evaluate A B --ensemble")
    config = yaml.safe_load((ours / "config.yaml").read_text()) | {
        "ensemble": {"size": 2, "members": ["A", "B"]}
    }
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    (cider, *_) = table(capsys, paper, str(ours))
    assert (cider["run"], cider["differs"]) == (ours.name, "an ensemble of 2 runs")
    change(ours / "result.json", training_commands=[COMMAND, COMMAND.replace("updown/resnet", "m2/resnet")])
    assert main(["table", paper, str(ours)]) == 1
    assert "trained without a recipe" in capsys.readouterr().err


def test_what_was_not_read_is_marked_and_compared_with_nothing(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW, MEMORY)
    text = terminal(capsys, paper)
    assert "not run: CIDEr-D 99.8?" in text and "do not cite as the paper's" in text
    assert "CIDEr-D 105.4, BLEU-4 33.4, SPICE 19.2" in text
    (*_, line) = table(capsys, paper, "--row", "From memory", str(ours))
    assert (line["run"], line["difference"], line["checked"]) == (ours.name, "", "false")
    assert "≈" not in terminal(capsys, paper, "--row", "From memory", str(ours))
    assert "quoted" not in terminal(capsys, write_paper(tmp_path, ROW))


def test_what_differs_is_reported(ours: Path, tmp_path: Path, capsys) -> None:
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
        "CIDEr-D computed under a different protocol than coco-caption's: df:train,N=113287",
    ]


REGIONS = {
    "name": "Regions",
    "scores": {"CIDEr-D": 103.0},
    "split": "Karpathy test",
    "source": "Table 1",
    "sources": 1,
    "checked": True,
    "settings": {"encoder": "precomputed", "decoding.num_beams": 5},
}


def test_a_row_of_other_features_is_never_marked_equal(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, REGIONS)
    text = terminal(capsys, paper, "--row", "Regions", str(ours))
    assert "103.0 103.5 101.5 – 105.5 +0.5" in text and "≈" not in text
    assert "trained with experiment=updown/resnet, no recipe of this row" in text
    assert "encoder small, published precomputed" in text and "num_beams" not in text
    paper = write_paper(tmp_path, REGIONS | {"recipe": "updown/resnet"})
    assert "≈" not in terminal(capsys, paper, str(ours)), "whatever its recipe says"
    paper = write_paper(tmp_path, REGIONS | {"settings": {}})
    text = terminal(capsys, paper, "--row", "Regions", str(ours))
    assert "what else differs is unknown: the row states no settings" in text and "≈" not in text


def test_what_a_recipe_deviates_in_is_said_and_never_marked_equal(ours: Path, tmp_path: Path, capsys) -> None:
    plain, deviating = (write_paper(tmp_path, ROW), str(ours)), {"updown/resnet": ["another clipping"]}
    assert "≈" in terminal(capsys, *plain)
    text = terminal(capsys, write_paper(tmp_path, ROW, differs=deviating), str(ours))
    assert "recipe: another clipping" in text and "≈" not in text
    assert main(["table", write_paper(tmp_path, ROW, differs=["clipping"])]) == 1
    assert "'differs' must be {recipe: list of texts}" in capsys.readouterr().err


def test_whose_regions_a_run_has_read_is_not_known(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "status.json", command=f"{COMMAND} encoder.features=/data/regions")
    config = yaml.safe_load((ours / "config.yaml").read_text())
    config["encoder"] = {"name": "precomputed", "features": "/data/regions"}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    paper = write_paper(tmp_path, REGIONS | {"recipe": "updown/resnet"})
    words = "features of regions, not known to be the published ones"
    assert table(capsys, paper, str(ours))[0]["differs"] == words
    assert "≈" not in terminal(capsys, paper, str(ours))


@pytest.mark.parametrize(
    ("changes", "command", "line"),
    [
        ({"differs": ["an ensemble of 4"]}, COMMAND, "published: an ensemble of 4"),
        ({}, f"{COMMAND} trainer.epochs=1", "changed in the recipe: trainer.epochs=1"),
        (
            {"recipe": "updown/other", "near": ["updown/resnet"]},
            COMMAND,
            "trained with experiment=updown/resnet, not with experiment=updown/other",
        ),
    ],
)
def test_what_is_known_to_differ_is_not_marked_equal(
    changes: dict, command: str, line: str, ours: Path, tmp_path: Path, capsys
) -> None:
    change(ours / "status.json", command=command)
    text = terminal(capsys, write_paper(tmp_path, ROW | changes), str(ours))
    assert f"differs: {line}" in text and "-1.9" in text and "≈" not in text


STATED = {"objective": "scst", "optim.lr": "5e-6", "decoder.num_layers": 9, "decoding": "beam"}


def test_what_nobody_knows_of_imported_weights_is_no_difference(ours: Path, tmp_path: Path, capsys) -> None:
    """Settings of the model and of decoding are facts about weights, those of training are not."""
    change(ours / "status.json", command="easycap import m2 a.pth data=coco_karpathy optim.lr=0.1")
    file = {"name": "a.pth", "sha256": "0123456789abcdef" * 4}
    change(ours / "result.json", imported={"system": "m2", "model": "m2", "files": [file]})
    argv = (write_paper(tmp_path, ROW | {"settings": STATED}), "--row", ROW["name"], str(ours))
    text = terminal(capsys, *argv)
    assert "m2, released: a.pth (sha256 0123456789ab); beam 5; not trained with easycap" in text
    assert (
        "differs: decoder.num_layers 4, published 9 not known: objective (published scst), optim.lr" in text
    )
    assert not any(word in text for word in (" xe", "experiment=", "seed 1", "set: ", "≈"))
    assert "not known: objective (published scst)" in table(capsys, *argv)[0]["differs"]


def test_of_captions_alone_no_setting_is_known(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "status.json", command="easycap import captions a.json data=coco_karpathy")
    change(ours / "result.json", imported={"system": "captions", "files": []}, seed=None)
    config = {"task": "caption", "captions": {"name": "a"}, "data": {"name": "coco_karpathy"}}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    text = terminal(
        capsys, write_paper(tmp_path, ROW | {"settings": STATED}), "--row", ROW["name"], str(ours)
    )
    assert "ours: coco_karpathy, a folder of texts; not trained with easycap" in text
    assert "decoder.num_layers (published 9), decoding (published beam)" in text and "differs" not in text


def test_a_pretrained_captioner_is_another_model(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "status.json", command="easycap evaluate hf:owner/blip data=coco_karpathy")
    change(ours / "result.json", pretrained="owner/blip")
    config = yaml.safe_load((ours / "config.yaml").read_text())
    config |= {name: {"name": "none"} for name in ("encoder", "image_tokens", "decoder", "vocab")}
    config |= {"captioner": {"name": "huggingface", "model": "owner/blip", "tune": "none"}}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    text = terminal(
        capsys, write_paper(tmp_path, ROW | {"settings": STATED}), "--row", ROW["name"], str(ours)
    )
    assert "ours: coco_karpathy, owner/blip; beam 5; not trained with easycap" in text
    assert "differs: another model: owner/blip, a captioner of transformers not known: objective" in text
    assert "num_layers" not in text and "seed" not in text and " xe" not in text
    assert main(["table", write_paper(tmp_path, ROW), str(ours)]) == 1
    assert "was not trained here" in capsys.readouterr().err


def test_a_stated_value_may_be_the_beginning_of_ours(ours: Path, tmp_path: Path, capsys) -> None:
    for value, differs in (("pic*", ""), ("vgg19*", "data.kind pictures, published vgg19")):
        config = yaml.safe_load((ours / "config.yaml").read_text())
        config["data"]["kind"] = "pictures"
        (ours / "config.yaml").write_text(yaml.safe_dump(config))
        paper = write_paper(tmp_path, ROW | {"settings": {"data.kind": value}})
        assert table(capsys, paper, str(ours))[0]["differs"] == differs


def test_what_rewards_begin_with_is_part_of_the_recipe(ours: Path, tmp_path: Path, capsys) -> None:
    change(ours / "status.json", command=f"{COMMAND} init_from=outputs/runs/first")
    paper = write_paper(tmp_path, ROW)
    assert "init_from=outputs/runs/first" in table(capsys, paper, str(ours))[0]["differs"]
    config = yaml.safe_load((ours / "config.yaml").read_text()) | {"objective": {"name": "scst"}}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    assert table(capsys, paper, str(ours))[0]["differs"] == ""


def test_of_one_recipe_on_several_data_the_rows_of_the_runs_own_are_taken(
    ours: Path, tmp_path: Path, capsys
) -> None:
    flickr = {**ROW, "split": "Flickr8k test", "scores": {"CIDEr-D": 50.0}}
    paper = write_paper(tmp_path, ROW, flickr)
    runs = {line["split"]: line["run"] for line in table(capsys, paper, str(ours))}
    assert runs == {"Karpathy test": ours.name, "Flickr8k test": "not run"}
    config = yaml.safe_load((ours / "config.yaml").read_text()) | {"data": {"name": "scenes"}}
    (ours / "config.yaml").write_text(yaml.safe_dump(config))
    assert {line["split"]: line["run"] for line in table(capsys, paper, str(ours))} == runs


def test_rows_of_one_name_are_told_apart_by_their_split(ours: Path, tmp_path: Path, capsys) -> None:
    rows = [{**ROW, "name": "Up-Down, nocaps", "split": f"nocaps, {part}"} for part in ("near", "out")]
    paper = write_paper(tmp_path, *rows)
    lines = table(capsys, paper, "--row", "Up-Down, nocaps@nocaps, out", str(ours))
    assert {line["split"] for line in lines if line["run"] == ours.name} == {"nocaps, out"}
    assert main(["table", paper, "--row", "Up-Down, nocaps", str(ours)]) == 1
    words = "say which: 'Up-Down, nocaps@nocaps, near' or 'Up-Down, nocaps@nocaps, out'"
    assert words in capsys.readouterr().err
    assert main(["table", paper, "--row", "Up", str(ours)]) == 1
    assert "allowed: 'Up-Down, nocaps@nocaps, near', 'Up-" in capsys.readouterr().err


def test_a_run_may_stand_for_several_rows(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW, MEMORY)
    argv = ["--row", "From memory", str(ours), "--row", "ResNet baseline", str(ours)]
    assert {line["run"] for line in table(capsys, paper, *argv)} == {ours.name}


def test_metrics_that_are_not_there_come_with_the_command(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW | {"scores": {"METEOR": 26.1, "SPICE": 19.2}})
    commands = [
        (f"no METEOR and SPICE: easycap evaluate {ours} --metrics meteor,spice", {"CIDEr-D": score(1.0)}),
        ("no METEOR: Java is missing", {"METEOR": {"absent": "Java is missing"}}),
    ]
    for words, scores in commands:
        change(ours / "result.json", scores={"test": scores})
        assert main(["table", paper, str(ours)]) == 0
        assert "".join(words.split()) in "".join(capsys.readouterr().out.split())


def test_runs_of_a_folder_that_stand_for_nothing_are_left_out_and_named(
    ours: Path, tmp_path: Path, capsys
) -> None:
    stray = shutil.copytree(ours, ours.parent / "stray")
    change(stray / "status.json", command="easycap train experiment=easycap/quickstart")
    assert main(["table", write_paper(tmp_path, ROW), str(ours.parent), "--csv", "-"]) == 0
    out, err = capsys.readouterr()
    assert "stray" not in out and ours.name in out
    assert err.startswith(f"easycap: left out: {stray} was trained with experiment=easycap/quickstart")


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


def test_latex_is_escaped_and_has_every_metric(ours: Path, tmp_path: Path, capsys) -> None:
    paper = write_paper(tmp_path, ROW | {"name": "50% & more_or_less"})
    assert main(["table", paper, str(ours), "--latex", "-"]) == 0
    latex = capsys.readouterr().out
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(ROW["scores"]) and all(row.replace(r"\&", "").count("&") == 6 for row in rows)
    assert r"50\% \& more\_or\_less" in latex and r"101.5 -- 105.5" in latex and r"-1.9 $\approx$" in latex
    assert r"\begin{tabular}{lllrrrr}" in latex and r"95 \% interval" in latex


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
        (["PAPER", "nowhere"], "nowhere is not a folder"),
        (
            ["PAPER", "--row", "ResNet", "RUN"],
            "--row 'ResNet': no row has that name; did you mean 'ResNet base",
        ),
        (["PAPER", "STRAY"], "was trained with experiment=easycap/quickstart, which matches no row"),
        (
            ["PAPER", "RUN", "--split", "tset"],
            "has no scores of it; did you mean 'test'? allowed: test; further",
        ),
        (["PAPER", "RUN", "--split", "test@beem"], "decoding 'beem' does not exist; did you mean 'beam'?"),
        (
            ["PAPER", "RUN", "--split", "test@beam,num_beam=3"],
            "'num_beam=3' is not a KEY=VALUE of decoding 'beam'; did you mean 'num_beams'?",
        ),
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
        ({"recepi": "updown/resnet"}, "'recepi' is not a key; did you mean 'recipe'?"),
        ({"near": "updown/resnet"}, "'near' must be a list of texts"),
    ],
)
def test_a_wrong_file_is_named_with_its_row(change: dict, words: str, tmp_path: Path, capsys) -> None:
    assert main(["table", write_paper(tmp_path, ROW | change)]) == 1
    err = capsys.readouterr().err
    assert "published.yaml, row 1 (ResNet baseline)" in err and words in err


PAPERS = sorted(path for folder in experiments_dirs() for path in folder.glob("*/published.yaml"))


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.parent.name)
def test_every_published_row_can_be_read_and_its_recipe_is_there(path: Path) -> None:
    recipes = options("experiment")
    for row in read_paper(path).rows:
        assert {row.recipe, *row.near} <= {None, *recipes}, row.name


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.parent.name)
def test_every_recipe_of_a_paper_has_a_row_beside_which_it_is_set(path: Path) -> None:
    rows = read_paper(path).rows
    placed = {recipe for row in rows for recipe in (row.recipe, *row.near)}
    paper = path.parent.name
    assert {recipe for recipe in options("experiment") if recipe.startswith(f"{paper}/")} <= placed


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.parent.name)
def test_every_row_beside_which_a_run_can_be_set_says_how_it_was_made(path: Path) -> None:
    for row in read_paper(path).rows:
        assert row.settings or not (row.recipe or row.near), row.name
