"""Runs beside each other: what differs, which protocol, as table, page, CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from pathlib import Path

import pytest
import yaml
from helpers.fabricated_run import status, write
from helpers.fabricated_sweep import IDS, REFERENCES, make_run, make_sweep
from rich.console import Console

from easycap.report.comparison import EXPORTS, comparison_table, notes, read_comparison, table_of
from easycap.report.comparison.page import render
from easycap.report.comparison.per_image import chosen_images, per_image
from easycap.report.comparison.run_names import report_address, short_names
from easycap.report.comparison.settings import most_balanced
from easycap.report.thumbnails import Pictures


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "sweep", pictures=3)


def compared(*paths: Path, metrics: list[str] | None = None, split: str = "test"):
    return read_comparison(paths, split=split, metrics=metrics)


def page_of(*paths: Path) -> str:
    folder = paths[0].resolve()
    return render(
        compared(*paths), Pictures(), title="a <b>title</b>", command="easycap compare x", folder=folder
    )


def printed(comparison, width: int) -> str:
    console = Console(markup=False, emoji=False, width=width, file=io.StringIO())
    table, _ = comparison_table(comparison, width=width)
    console.print(table)
    return console.file.getvalue()


def rows_of(comparison) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(EXPORTS["csv"](comparison))))


def test_columns_are_the_settings_that_differ(sweep: Path) -> None:
    found = compared(sweep)
    assert found.settings == ("image_tokens", "image_tokens.count") and found.has_seeds
    assert [run.name for run in found.runs] == [
        "resampler-5-s1",
        "split-5-s1",
        "resampler-1-s1",
        "split-1-s1",
    ]
    assert [run.number for run in found.runs] == [1, 2, 3, 4]
    assert found.label(found.runs[0]) == "resampler count=5"


def test_a_setting_that_only_one_choice_has_is_no_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"image_tokens.num_heads": 4}, 0.5)
    make_run(tmp_path / "b", {"image_tokens.name": "split", "tracking": {"name": "wandb"}}, 0.5)
    make_run(tmp_path / "c", {"image_tokens.name": "split", "tracking": {"name": "none"}}, 0.5)
    assert compared(tmp_path).settings == ("image_tokens",)


def test_an_entry_that_was_added_to_a_table_is_a_difference(tmp_path: Path) -> None:
    rewards = {"objective.name": "scst", "objective.rewards": {"CIDEr-D": 1.0}}
    make_run(tmp_path / "a", rewards, 0.5)
    make_run(tmp_path / "b", rewards | {"objective.rewards": {"CIDEr-D": 1.0, "truth": 1.0}}, 0.5)
    assert compared(tmp_path).settings == ("objective.rewards.truth",)
    make_run(tmp_path / "b", {"objective.name": "xe"}, 0.5)
    assert compared(tmp_path).settings == ("objective",)


def test_what_follows_from_a_choice_comes_last(tmp_path: Path) -> None:
    for name, width in (("causal_lm", 256), ("lstm", 512)):
        for count in (1, 5):
            own = {"decoder.name": name, "decoder.width": width, "image_tokens.count": count}
            make_run(tmp_path / f"{name}{count}", own, 0.5)
    found = compared(tmp_path)
    assert found.settings == ("image_tokens.count", "decoder") and found.following == ("decoder.width",)
    assert list(rows_of(found)[0])[-1] == "decoder.width"
    assert "changing with it: decoder.width" in page_of(tmp_path)
    _, left_out = comparison_table(found, width=75)
    assert "decoder.width" in left_out and "work per caption" not in left_out


def test_runs_are_found_once_wherever_they_are(sweep: Path) -> None:
    assert len(compared(sweep.parent, sweep, sweep / "split-1-s1").runs) == 4


def test_the_csv_has_the_numbers_of_the_results(sweep: Path) -> None:
    first = rows_of(compared(sweep))[0]
    score = json.loads((sweep / "resampler-5-s1/result.json").read_text())["scores"]["test"]["CIDEr-D"]
    assert (float(first["CIDEr-D"]), float(first["CIDEr-D low"])) == (score["value"], score["low"])
    assert first["image_tokens.count"] == "5" and first["seed"] == "1"
    assert float(first["flops_per_caption"]) == 5.5e6 and first["CIDEr-D signature"] == score["signature"]


def test_runs_on_other_data_are_told_apart_by_where_it_lies(tmp_path: Path) -> None:
    """The same data at two places is one; rows over seeds do not mix two."""
    other = {image: ["a cat"] for image in IDS}
    for name, root, seed, references in (
        ("a1", "/data/a/coco", 1, REFERENCES),
        ("a2", "/moved/a/coco", 2, REFERENCES),
        ("b1", "/data/b/coco", 1, other),
        ("b2", "/data/b/coco", 2, other),
    ):
        folder = make_run(tmp_path / name, {"seed": seed}, 0.5, references=references)
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings["data"] = {"name": "coco", "root": root}
        settings["trainer"] |= {"max_hours": float(seed), "threads": seed}  # how it ran, not what was trained
        write(folder / "config.yaml", yaml.safe_dump(settings))
    found = compared(tmp_path)
    assert found.settings == ("data.root",)
    assert {run.name: run.settings["data.root"] for run in found.runs} == {
        "a1": "a/coco",
        "a2": "a/coco",
        "b1": "b/coco",
        "b2": "b/coco",
    }
    table = table_of(found, wanted=["data.root", "seeds"], over_seeds=True)
    rows = sorted(zip(*([cell.text for cell in column.cells] for column in table), strict=True))
    assert rows == [("a/coco", "2"), ("b/coco", "2")]


def test_other_terms_are_marked_and_take_no_part(sweep: Path) -> None:
    make_run(sweep / "other-df", {"image_tokens.count": 9}, 2.0, signature="CIDEr-D|n:4|df:train")
    fewer = {image: texts for image, texts in REFERENCES.items() if image != IDS[3]} | {IDS[5]: ["a cat"]}
    make_run(sweep / "other-data", {"image_tokens.count": 8}, 1.5, references=fewer)
    make_run(sweep / "old", {"image_tokens.count": 7}, 1.2, references=None)
    found = compared(sweep)
    reasons = {found.runs[number - 1].name: why for number, why in found.protocols["CIDEr-D"].reasons.items()}
    assert reasons["other-df"] == "df: test / train"
    assert reasons["other-data"] == f"other images or references (2 images, e.g. '{IDS[3]}')"
    assert reasons["old"] == "references are known of one side only"
    assert len(reasons) == 3 and len(found.comparable("CIDEr-D")) == 4
    assert printed(found, 160).count("≠") == 3
    printed_notes = "\n".join(notes(found))
    assert (
        "≠ CIDEr-D of #1 is computed under a different protocol than most: df: test / train" in printed_notes
    )
    assert "work per caption: #7, #6, #5, #4" in printed_notes
    page = page_of(sweep)
    assert page.count("<abbr") == 3 and "df: test / train" in page
    assert all(
        "other" not in run.name for image in chosen_images(found, None) for run in found.comparable("CIDEr-D")
    )


def test_more_per_second_is_no_cost(tmp_path: Path) -> None:
    for name, speed in (("a", 100.0), ("b", 200.0)):
        make_run(tmp_path / name, {"seed": speed}, 0.5, cost={"images_per_second": speed})
    page = page_of(tmp_path)
    assert "images_<wbr>per" not in page and "200" in page and 'id="cost"' not in page


def test_the_order_of_references_is_no_difference(sweep: Path) -> None:
    turned = {image: REFERENCES[image][::-1] for image in reversed(IDS)}
    make_run(sweep / "turned", {"image_tokens.count": 9}, 0.7, references=turned)
    assert compared(sweep).protocols["CIDEr-D"].reasons == {}


def test_unfinished_runs_stay_in_the_table(sweep: Path) -> None:
    failed = make_run(sweep / "failed", {"image_tokens.count": 9}, 0.7)
    (failed / "result.json").unlink()
    write(failed / "status.json", status("failed", error="OutOfMemoryError: 3 <GiB>"))
    write(sweep / "at-once" / "status.json", status("failed", error="ValueError: no config yet"))
    found = compared(sweep)
    assert [(run.name, run.state) for run in found.runs[4:]] == [("at-once", "failed"), ("failed", "failed")]
    assert "failed" in printed(found, 120) and printed(found, 60).count("failed") == 2
    assert "#6 failed: OutOfMemoryError: 3 <GiB>" in notes(found)
    assert [row["status"] for row in rows_of(found)] == ["completed"] * 4 + ["failed"] * 2
    page = page_of(sweep)
    assert "OutOfMemoryError: 3 &lt;GiB&gt;" in page and "2 runs with an error" in page


@pytest.mark.parametrize("key", ["runs", "cells"])  # cells: as earlier versions wrote it
def test_runs_that_have_not_started_are_named(sweep: Path, key: str) -> None:
    runs = [{"folder": run.name, "overrides": []} for run in sweep.iterdir()]
    runs.append({"folder": "grid-1-s1", "overrides": ["image_tokens=grid", "seed=1"]})
    command = "easycap train -m image_tokens=split,resampler,grid"
    write(sweep / "sweep.json", {"name": "x", "commands": [command], "axes": {}, key: runs})
    found = compared(sweep)
    assert found.waiting == ("image_tokens=grid seed=1",) and found.commands == (command,)
    assert "not started: image_tokens=grid seed=1" in notes(found)
    assert command in page_of(sweep)
    write(sweep / "sweep.json", {"name": "x"})
    with pytest.raises(ValueError, match=r"sweep.json is not a list of a sweep's runs"):
        compared(sweep)


def test_one_run(sweep: Path) -> None:
    found = compared(sweep / "split-1-s1")
    assert found.settings == () and found.label(found.runs[0]) == "split-1-s1"
    assert "41.0" in printed(found, 80) and 'id="effects"' not in page_of(sweep / "split-1-s1")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_table_fits_the_terminal_and_keeps_the_score(sweep: Path, width: int) -> None:
    make_run(sweep / "x", {"optim.lr": 0.123, "decoder.num_layers": 7, "data.train_images": 7}, 0.7)
    found = compared(sweep)
    lines = printed(found, width).splitlines()
    assert max(map(len, lines)) <= width and any("CIDEr-D" in line for line in lines)
    _, left_out = comparison_table(found, width=width)
    assert ("wall time" in left_out) == (width <= 120) and ("work per caption" in left_out) == (width <= 60)


def test_each_row_begins_with_the_name_of_its_run_where_there_is_room(sweep: Path) -> None:
    found = compared(sweep)
    lines = printed(found, 120).splitlines()
    for run in found.runs:
        assert any(line.split()[:2] == [str(run.number), run.name] for line in lines), run.name
    assert found.runs[0].name not in printed(found, 40)


def test_images_that_differ_most_come_first(sweep: Path) -> None:
    steep = make_run(sweep / "steep", {"image_tokens.count": 9}, 0.6, slope=-0.02, pictures=3)
    found = compared(sweep)
    values = per_image(found)["CIDEr-D"]
    assert set(values.values) == {1, 2, 3, 4, 5} and values.ids == tuple(IDS)
    images = chosen_images(found, values)
    # Of the three images with a picture the first is furthest from the middle, where all lines cross.
    assert [image.sample.id for image in images if image.chosen == "runs differ most"] == IDS[:3]
    captions = images[0].captions
    assert [one.score for one in captions] == sorted((one.score for one in captions), reverse=True)
    best = {run.number: run.name for run in found.runs}[captions[0].runs[0]]
    assert best == "resampler-5-s1" and captions[0].caption == "a dog in resampler-5-s1"
    assert steep.name in {found.runs[one.runs[0] - 1].name for one in captions}


def test_equal_captions_stand_once(sweep: Path) -> None:
    same = dict.fromkeys(IDS, "a dog")
    for name in ("one", "two"):
        make_run(sweep / name, {"image_tokens.count": 9}, 0.5, captions=same, pictures=1)
    found = compared(sweep)
    image = chosen_images(found, per_image(found)["CIDEr-D"])[0]
    assert len(next(one for one in image.captions if one.caption == "a dog").runs) == 2


def test_nothing_from_a_run_is_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    captions = dict.fromkeys(IDS, evil)
    for name in ("a", "b"):
        folder = make_run(
            tmp_path / f"<img src=x>{name}",
            {"decoder.name": f"{evil}{name}"},
            0.5,
            captions=captions,
            pictures=1,
        )
        write(folder / "status.json", status("failed", error=evil, command=evil))
    page = page_of(tmp_path)
    assert "<script>alert" not in page and "<img src=x>" not in page and "<b>title" not in page
    assert page.count("</script>") == 2 and "&lt;script&gt;alert(1)" in page


def test_the_page_loads_nothing(sweep: Path) -> None:
    page = page_of(sweep)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    loads = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", markup)
    assert loads and all(link.startswith(("data:", "#")) for link in loads)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg|http-equiv", "", page)
    assert "default-src 'none'" in page


def test_the_data_of_the_page(sweep: Path) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', page_of(sweep), re.S)[1])
    assert data["keys"] == ["image_tokens", "image_tokens.count", "seed"]
    assert data["levels"] == [["resampler", "split"], ["1", "5"], ["1"]]
    # 1 MFLOP for 41.0, 1.5 for 51.0, 5 for 61.0, 5.5 for 91.0
    assert data["fronts"]["CIDEr-D"]["flops_per_caption"] == [4, 3, 2, 1]
    assert data["fronts"]["CIDEr-D"]["wall_seconds"] == [3, 1]
    assert [cost["key"] for cost in data["costs"]] == ["wall_seconds", "flops_per_caption"]
    loss = next(chart for chart in data["curves"] if chart["title"] == "train/loss")
    steps, values = loss["lines"]["1"]
    assert steps[0] == 10 and steps[-1] == 400 and len(steps) == len(values) == 40
    cider = next(chart for chart in data["curves"] if chart["title"] == "val/CIDEr-D")
    assert cider["lines"]["1"][1][-1] == pytest.approx(100 * 1.02 * (1 - 2.718281828**-4), rel=1e-3)


def test_latex_and_markdown_are_escaped(tmp_path: Path) -> None:
    for name in ("a|b_c", "x&y%"):
        make_run(tmp_path / name, {"decoder.name": f"{name}#$~^\\{{}}"}, 0.5)
    latex, markdown = (EXPORTS[name](compared(tmp_path)) for name in ("latex", "markdown"))
    assert r"a\textbar{}b\_c\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}" in latex
    rows = latex[latex.index(r"\toprule") :].splitlines()
    cells = [line.replace(r"\&", "").count("&") for line in rows if line.endswith(r"\\")]
    assert len(cells) == 3 and len(set(cells)) == 1 and r"x\&y\%" in latex
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert r"{\scriptsize 45.0 -- 55.0}" in latex and r"\begin{tabular}{lll" in latex
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1 and r"a\|b\_c" in markdown
    assert "50.0 (45.0 – 55.0)" in markdown and "Signature: CIDEr-D" in markdown


def test_over_seeds_is_a_row_per_setting_with_mean_and_deviation(tmp_path: Path) -> None:
    comparison = compared(make_sweep(tmp_path / "sweep", seeds=(1, 2, 4)))
    wanted = ("image_tokens", "image_tokens.count", "seeds", "CIDEr-D")
    table = table_of(comparison, wanted=wanted, over_seeds=True)
    rows = list(csv.DictReader(io.StringIO(EXPORTS["csv"](comparison, table))))
    assert list(rows[0]) == [*wanted, "CIDEr-D sd"]
    assert [(row["image_tokens"], row["image_tokens.count"], row["seeds"]) for row in rows] == [
        ("resampler", "5", "3"), ("split", "5", "3"), ("resampler", "1", "3"), ("split", "1", "3")
    ]  # fmt: skip
    values = [0.91, 0.92, 0.94]
    assert float(rows[0]["CIDEr-D"]) == pytest.approx(statistics.mean(values))
    assert float(rows[0]["CIDEr-D sd"]) == pytest.approx(statistics.stdev(values))
    latex = EXPORTS["latex"](comparison, table)
    assert r"resampler & 5 & 3 & \textbf{92.3} {\scriptsize $\pm$ 1.5} \\" in latex
    assert latex.count(r"\textbf") == 1 and "standard deviation over runs" in latex
    assert "| resampler | 5 | 3 | 92.3 ± 1.5 |" in EXPORTS["markdown"](comparison, table)


def test_a_seed_without_a_score_is_counted_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"seed": 1}, 0.5)
    make_run(tmp_path / "b", {"seed": 2}, 0.7)
    write(make_run(tmp_path / "c", {"seed": 3}, 0.9) / "result.json", {})
    (cell,) = next(c for c in table_of(compared(tmp_path), wanted=["CIDEr-D"], over_seeds=True)).cells
    assert (cell.text, cell.interval) == ("60.0", "± 14.1 of 2")


def test_the_best_of_comparable_scores_alone_is_bold(tmp_path: Path) -> None:
    for count, value, signature in (
        (1, 0.5, "CIDEr-D|n:4"),
        (2, 0.6, "CIDEr-D|n:4"),
        (3, 0.9, "CIDEr-D|n:2"),
    ):
        make_run(tmp_path / str(count), {"image_tokens.count": count}, value, signature=signature)
    latex = EXPORTS["latex"](compared(tmp_path))
    assert re.findall(r"\\textbf{([^}]*)}", latex) == ["60.0"]


def test_a_column_that_is_not_there_is_named(sweep: Path) -> None:
    with pytest.raises(ValueError, match="no column 'CIDEr'; did you mean 'CIDEr-D'"):
        table_of(compared(sweep), wanted=["CIDEr"], over_seeds=False)


def test_rows_link_to_reports(sweep: Path, tmp_path: Path) -> None:
    write(sweep / "split-5-s1" / "report.html", "")
    found = render(compared(sweep), Pictures(), title="", command="", folder=(tmp_path / "pages").resolve())
    assert re.findall(r'<a href="([^#"][^"]*)">', found) == ["../sweep/split-5-s1/report.html"]
    assert report_address(make_run(tmp_path / "a #1?", {}, 0.5), tmp_path) == ""
    write(tmp_path / "a #1?" / "report.html", "")
    assert report_address(tmp_path / "a #1?", tmp_path.resolve()) == "a%20%231%3F/report.html"


def test_names_of_runs_are_short_and_distinct() -> None:
    names = ["20261130-022028-scenes-small-split10-0a1b2c", "20261130-023000-scenes-small-grid4-3d4e5f"]
    assert short_names(names) == ["split10", "grid4"]
    assert short_names([*names, names[0][:-6] + "12ab34"]) == ["split10-0a1b2c", "grid4", "split10-12ab34"]
    assert short_names(["20261130-022028-scenes", "20261130-023000-scenes"])[0] == "022028-scenes"
    long = [f"a-very-long-name-of-a-run-{end}" for end in ("1-ends-alike", "2-ends-alike")]
    assert short_names([*long, "b"]) == [*long, "b"]  # cut, they would be one
    assert short_names(["resampler-count10-s1-of-the-rest", "b"])[0] == "resampler-…he-rest"
    assert short_names(["same", "same"]) == ["same", "same"] and short_names(["a-b"]) == ["a-b"]


def test_the_evenest_setting_colours_the_runs() -> None:
    assert most_balanced([("a", "x"), ("a", "y"), ("a", "x"), ("b", "y")]) == 1
    assert most_balanced([("a", "1"), ("b", "1"), ("a", "2"), ("b", "3"), ("a", "2"), ("b", "3")]) == 1
    assert most_balanced([("a", "1"), ("a", "2"), ("a", "3")]) == -1  # one value, or a run for each


def test_old_runs_without_a_field_are_shown(sweep: Path) -> None:
    old = make_run(sweep / "old", {"image_tokens.count": 9}, 0.7)
    result = json.loads((old / "result.json").read_text())
    del result["cost"], result["scores"]["test"]["CIDEr-D"]["low"]
    write(old / "result.json", result)
    for name in ("per_image.test.json", "captions.test.json", "metrics.jsonl", "samples/test.json"):
        (old / name).unlink()
    found = compared(sweep)
    line = next(line for line in printed(found, 120).splitlines() if "70.0" in line)
    assert line.count("–") == 2  # wall time and work per caption, and no interval
    assert page_of(sweep)


def test_mistakes_are_named(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    waiting = make_run(tmp_path / "waiting" / "a", {}, 0.5)
    (waiting / "result.json").unlink()
    for path, words in (
        (tmp_path / "empty", "no run found in"),
        (tmp_path / "nowhere", "nowhere is not a folder"),
        (sweep / "split-1-s1" / "captions.test.json", "is a file; runs are folders"),
        (tmp_path / "waiting", r"no run has been scored yet \(1 completed\)"),
    ):
        with pytest.raises(ValueError, match=words):
            compared(path)
    with pytest.raises(ValueError, match="no run has scores of split 'tests'; did you mean 'test'"):
        compared(sweep, split="tests")
    with pytest.raises(ValueError, match="metric 'CIDER': no run has it on test; did you mean 'CIDEr-D'"):
        compared(sweep, metrics=["CIDER"])


def test_two_hundred_runs_make_a_small_page(tmp_path: Path) -> None:
    for number in range(200):
        settings = {"optim.lr": 0.001 * (1 + number // 4), "seed": number % 4}
        captions = {image: f"a {number % 30} dog of many words on a long street" for image in IDS}
        make_run(tmp_path / f"{number:03}", settings, 0.3 + 0.002 * number, captions=captions, pictures=2)
    page = page_of(tmp_path)
    assert len(page) < 3_000_000 and page.count('id="run-') == 200


def test_settings_of_training_are_unknown_of_weights_from_elsewhere(sweep: Path) -> None:
    folder = next(path.parent for path in sweep.rglob("result.json") if path.parent.name == "split-1-s1")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps(result | {"imported": {}}), encoding="utf-8")
    config = folder / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "\ntrainer: {epochs: 100}\n", encoding="utf-8")
    run = next(run for run in compared(sweep).runs if run.name == "split-1-s1")
    assert not any(key.startswith("trainer") for key in run.settings) and "image_tokens" in run.settings


def test_runs_that_differ_in_much_go_by_their_names(sweep: Path) -> None:
    for path in sweep.rglob("config.yaml"):
        path.write_text(path.read_text(encoding="utf-8") + f"\ndecoder: {path.parent.name * 9}\n")
    found = compared(sweep)
    assert [found.label(run) for run in found.runs] == [run.name for run in found.runs]
