"""Compared runs on other sets and groups of images: nocaps' domains beside all its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fabricated_run import write
from helpers.fabricated_sweep import make_run

from easycap.commands.compare import main
from easycap.report.comparison.read_runs import read_comparison
from easycap.report.comparison.set_scores import set_tables

DOMAINS = {"in-domain": 3, "near-domain": 4, "out-domain": 5}


def score(value: float, images: int, metric: str = "CIDEr-D") -> dict[str, Any]:
    text = f"{metric}|images:{images}"
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "signature": text}


def on_nocaps(
    run: Path, value: float, *, domains: dict[str, int] | None = DOMAINS, metric: str = "CIDEr-D"
) -> Path:
    """The run as if it had been evaluated on nocaps: `value` on all images, less with each domain."""
    path = run / "result.json"
    result = json.loads(path.read_text())
    images = sum((domains or DOMAINS).values())
    result["scores"].setdefault("nocaps", {})[metric] = score(value, images, metric)
    result["other_sets"] = {"nocaps": {"split": "test", "images": images, "data": {"name": "tables"}}}
    groups = result.setdefault("groups", {}).setdefault("nocaps", {}).setdefault("domain", {})
    for number, (name, size) in enumerate((domains or {}).items()):
        found = groups.setdefault(name, {"images": size, "scores": {}})
        found["scores"][metric] = score(value - number / 100, size, metric)
    path.write_text(json.dumps(result))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    values = {"a": 0.5, "b": 0.7, "c": 0.3}
    return [make_run(tmp_path / name, {"seed": n}, value) for n, (name, value) in enumerate(values.items())]


def test_a_table_for_each_set_with_intervals_and_numbers_of_images(runs: list[Path], capsys) -> None:
    on_nocaps(runs[0], 0.6)
    on_nocaps(runs[1], 0.4)
    assert main([*map(str, runs), "--html", str(runs[0] / "page.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("nocaps by domain: CIDEr-D")))
    table = [line.split() for line in lines[first:] if line.strip()]
    assert table[1] == ["domain", "images", "#1", "#2"]  # best on test first; #3 was not scored there
    assert ["near-domain", "4", "39.0", "29.0", "–", "49.0", "59.0", "49.0", "–", "69.0"] in table
    assert ["entire", "12", "40.0", "30.0", "–", "50.0", "60.0", "50.0", "–", "70.0"] in table
    page = (runs[0] / "page.html").read_text()
    assert "nocaps by domain" in page and "near-domain<br>4 images" in page
    assert "entire<br>12 images" in page and "30.0 – 50.0" in page


def test_in_a_narrow_terminal_many_runs_become_rows(runs: list[Path], capsys, monkeypatch) -> None:
    for run in runs:
        on_nocaps(run, 0.6, domains={"in-domain": 3})
    monkeypatch.setenv("COLUMNS", "60")
    main([*map(str, runs)])
    out = capsys.readouterr().out
    assert "#3  60.0" in out and "in-domain" in out[out.index("nocaps by") :]
    monkeypatch.setenv("COLUMNS", "38")
    main([*map(str, runs)])
    assert "No room for #2, #3: see the page." in capsys.readouterr().out


def test_scores_of_other_images_are_marked(runs: list[Path], capsys) -> None:
    on_nocaps(runs[0], 0.6)
    on_nocaps(runs[1], 0.4)
    on_nocaps(runs[2], 0.5, domains={**DOMAINS, "out-domain": 6})
    assert main([*map(str, runs), "--html", str(runs[0] / "page.html")]) == 0
    out = capsys.readouterr().out
    assert "≠ CIDEr-D of #3 on nocaps, out-domain: images: 5 / 6" in out
    assert (
        "images: 5 / 6" in (runs[0] / "page.html").read_text()
        and "5–6 images" in (runs[0] / "page.html").read_text()
    )


def test_runs_evaluated_on_different_sets_are_told_what_to_do(runs: list[Path], capsys) -> None:
    stored = json.loads((runs[1] / "result.json").read_text())
    write(runs[1] / "result.json", stored | {"scores": {"val": stored["scores"]["test"]}})
    assert main([*map(str, runs)]) == 0
    line = "#3 was not scored on test, only on val: `easycap evaluate RUN data=NAME` scores a run on another data set"
    assert line in capsys.readouterr().out
    for run in runs:
        on_nocaps(run, 0.6, domains=None)
    assert main([*map(str, runs), "--html", str(runs[0] / "page.html")]) == 0
    line = "#3 was not scored on test, only on nocaps, val: --split nocaps compares all of them"
    assert line in capsys.readouterr().out and line in (runs[0] / "page.html").read_text()
    write(runs[2] / "references.test.json", {"test-000": ["another"]})
    write(runs[1] / "result.json", stored)
    assert main([*map(str, runs)]) == 0
    assert "was scored on other images or references: `easycap evaluate" in capsys.readouterr().out


def test_a_set_without_groups_has_all_images_alone(runs: list[Path]) -> None:
    for run in runs:
        on_nocaps(run, 0.6, domains=None)
    (table,) = set_tables(read_comparison(runs, split="test", metrics=None))
    assert table.title == "nocaps" and table.columns == (("entire", "12"),)
    assert [cells[0].text for _, cells in table.rows] == ["60.0"] * 3
    assert set_tables(read_comparison(runs, split="nocaps", metrics=None)) == []  # it is the main table


def test_metrics_that_the_split_lacks_are_on_the_page(runs: list[Path]) -> None:
    on_nocaps(on_nocaps(runs[0], 0.6), 0.1, metric="SPICE")
    tables = set_tables(read_comparison(runs, split="test", metrics=None))
    assert [(table.metric, len(table.rows)) for table in tables] == [("CIDEr-D", 1), ("SPICE", 1)]
