from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers.fabricated_run import config, make, result, score, status, write
from rich.console import Console
from rich.table import Table

from easycap.report.rich_tables import list_runs, runs_table, scores_table, scores_tables
from easycap.utils.text import amount_text, bytes_text, duration_text, number_text, score_text


def _lines(table: Table, width: int = 160) -> list[str]:
    console = Console(markup=False, emoji=False, width=width, file=io.StringIO(), record=True)
    console.print(table)
    return [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]


def test_scores_are_times_a_hundred_with_intervals_and_baselines() -> None:
    lines = _lines(scores_table(result()))
    assert "CIDEr-D 102.3 100.5 – 104.1 87.1 85.3 – 88.9" in lines
    assert "METEOR not measured not measured" in lines
    assert "CIDEr-D, reference caption 101.2 99.4 – 103.0" in lines
    assert "CIDEr-D, this model, same protocol 98.8 97.0 – 100.6" in lines
    assert sum("×100" in line for line in lines) == 1
    assert "Not measured: METEOR: Java was not found" in lines


def test_scores_fit_eighty_characters() -> None:
    assert not any("…" in line for line in _lines(scores_table(result()), width=80))


def test_many_splits_stand_in_several_tables_and_only_the_asked_ones() -> None:
    whole = result()
    names = ["test", "val", "test@beam,num_beams=10", "test@sample,num_samples=5"]
    many = {
        "scores": {name: whole["scores"]["test"] for name in names},
        "baselines": {"val": whole["baselines"]["test"]},
    }
    tables = scores_tables(many, names, width=80)
    assert [_columns(table) for table in tables] == [names[:1] + names[1:2], names[2:3], names[3:]]
    for table in tables:
        lines = _lines(table, width=80)
        assert sum(line.startswith("CIDEr-D 102.3 100.5 – 104.1") for line in lines) == 1, "no row is wrapped"
    (one,) = scores_tables(many, ["val"], width=80)
    assert _columns(one) == ["val"] and any("reference caption" in line for line in _lines(one))


def _columns(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns][1:]


def test_scores_of_a_result_with_holes() -> None:
    holes = {"scores": {"test[1]": {"CIDEr-D": {"value": float("nan")}, "[b]": {"value": 0.5}}, "val": {}}}
    lines = _lines(scores_table(holes))
    assert "metric test[1] val" in lines
    assert "[b] 50.0 –" in lines and "CIDEr-D – –" in lines
    assert _lines(scores_table({}))


def test_runs_are_listed_newest_last_and_broken_ones_explained(tmp_path: Path) -> None:
    newer, older = make(tmp_path / "b-newer"), make(tmp_path / "c-older")
    write(
        older / "status.json",
        status("failed", started="2024-01-01T00:00:00+00:00", ended="2024-01-01T00:00:50+00:00"),
    )
    (older / "result.json").unlink()
    write(tmp_path / "a-broken/config.yaml", "seed: 1")
    runs = list_runs(tmp_path)
    assert [(run.folder.name, run.state) for run in runs] == [
        ("c-older", "failed"),
        ("b-newer", "completed"),
        ("a-broken", "broken"),
    ]
    assert runs[1].folder == newer
    lines = _lines(runs_table(runs, width=180))
    assert (
        "b-newer completed scenes small resampler × 10 causal_lm 4×256 1,600 102.3 82.3 3 min 20 s "
        "2025-03-01 10:00" in lines
    )
    assert any(line.startswith("c-older failed") and "1,600 – – 50 s 2024-01-01" in line for line in lines)
    names = [line.split()[0] for line in lines]
    assert names.index("c-older") < names.index("b-newer") < names.index("a-broken")
    assert "a-broken is not a run: it has no status.json" in " ".join(lines)


def test_a_narrow_list_keeps_names_and_scores(run: Path) -> None:
    lines = _lines(runs_table(list_runs(run), width=80), width=80)
    assert any("completed 102.3" in line and run.name in line for line in lines)
    wider = _lines(runs_table(list_runs(run), width=110), width=110)
    assert any("completed 1,600 102.3 82.3 3 min 20 s" in line for line in wider)


def test_a_config_of_another_shape_is_still_listed(run: Path) -> None:
    odd = config() | {
        "encoder": {"name": "timm", "model": "resnet101.tv_in1k"},
        "image_tokens": "all",
        "data": None,
    }
    write(
        run / "config.yaml",
        "\n".join(f"{key}: {value!r}" for key, value in odd.items()).replace("None", "null"),
    )
    write(run / "result.json", {"scores": {"val": {"CIDEr-D": score(0.5)}}})
    (line,) = [
        line for line in _lines(runs_table(list_runs(run), width=200), width=200) if "completed" in line
    ]
    assert "completed – timm resnet101.tv_in1k all causal_lm 4×256 1,600 50.0 –" in line


def test_an_empty_root_gives_an_empty_list(tmp_path: Path) -> None:
    assert list_runs(tmp_path, tmp_path / "nowhere") == []
    assert runs_table([]).row_count == 0


def test_a_run_that_failed_before_its_config_says_why(tmp_path: Path) -> None:
    write(tmp_path / "run/status.json", status("failed", error="[x] encoder.width=-1 must be positive"))
    runs = list_runs(tmp_path)
    assert [(run.state, run.problem) for run in runs] == [("failed", "[x] encoder.width=-1 must be positive")]
    assert "run: [x] encoder.width=-1 must be positive" in _lines(runs_table(runs, width=180))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (score_text(1.0234), "102.3"),
        (score_text(3.412, "claims_per_caption"), "3.41"),
        (score_text(float("nan")), "–"),
        (score_text(None), "–"),
        (number_text(1234.5678), "1,235"),
        (number_text(0.00012), "0.00012"),
        (number_text(0.0200), "0.02"),
        (number_text(100), "100"),
        (number_text(0), "0"),
        (duration_text(3.21), "3.2 s"),
        (duration_text(59.7), "60 s"),
        (duration_text(14_700), "4 h 05 min"),
        (duration_text(200_000), "2 d 7 h"),
        (duration_text(None), "–"),
        (bytes_text(1_340_000_000), "1.25 GiB"),
        (amount_text(124_439_808), "124 M"),
        (amount_text(4.2e9, "FLOPs"), "4.2 GFLOPs"),
    ],
)
def test_numbers_are_written_for_reading(text: str, expected: str) -> None:
    assert text == expected
