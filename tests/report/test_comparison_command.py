"""`easycap compare` of any number of runs: what it prints, where it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fabricated_run import write
from helpers.fabricated_sweep import make_sweep

from easycap.commands.compare import main


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "sweep", seeds=(1, 2))


def test_a_sweep_gets_a_table_and_a_page_beside_it(sweep: Path, capsys) -> None:
    assert main([str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "92.0" in out and f"page: {sweep / 'compare.html'}" in out and "A − B" not in out
    assert f"#1 is {sweep / 'resampler-5-s2'}" in out
    assert "easycap compare" in (sweep / "compare.html").read_text(encoding="utf-8")


def test_runs_of_two_places_get_a_page_in_outputs(sweep: Path, tmp_path: Path, capsys) -> None:
    runs = [str(sweep / f"split-{count}-s{seed}") for count in (1, 5) for seed in (1, 2)]
    assert main(runs) == 0
    assert main(list(reversed(runs))) == 0
    (page,) = (tmp_path / "outputs").glob("compare-*.html")
    assert capsys.readouterr().out.count(f"page: {page}") == 2
    assert main([*runs, "--html", str(tmp_path / "own" / "x.html"), "--metrics", "CIDEr-D"]) == 0
    assert (tmp_path / "own" / "x.html").is_file()


def test_two_runs_are_also_compared_in_pairs(sweep: Path, capsys) -> None:
    runs = [str(sweep / "split-1-s1"), str(sweep / "resampler-1-s1")]
    assert main(runs) == 0
    out = capsys.readouterr().out
    assert "51.0" in out and "A − B" in out and "page: " in out
    (sweep / "split-1-s1" / "references.test.json").write_text('{"test-000": ["other"]}')
    assert main(runs) == 0
    out = capsys.readouterr().out
    assert "Not compared in pairs: " in out and "≠" in out and "A − B" not in out
    with pytest.raises(ValueError, match="different images or references"):
        main([*runs, "--top", "1"])


def test_exports_go_to_files_or_to_the_terminal_alone(sweep: Path, tmp_path: Path, capsys) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("csv", "latex", "markdown")}
    main([str(sweep), *(part for name, path in files.items() for part in (f"--{name}", str(path)))])
    capsys.readouterr()
    for name, path in files.items():
        main([str(sweep), f"--{name}", "-"])
        captured = capsys.readouterr()
        assert captured.out == path.read_text(encoding="utf-8") and captured.err.startswith("page: ")


def test_columns_and_rows_of_the_exports_are_chosen(sweep: Path, capsys) -> None:
    main([str(sweep), "--columns", "CIDEr-D,image_tokens", "--over-seeds", "--csv", "-"])
    assert capsys.readouterr().out.splitlines()[0] == "CIDEr-D,CIDEr-D sd,image_tokens"
    with pytest.raises(ValueError, match="--columns needs one of --csv, --latex, --markdown"):
        main([str(sweep), "--columns", "CIDEr-D"])


def test_mistakes_with_many_are_one_sentence(sweep: Path, tmp_path: Path) -> None:
    runs = [str(sweep / f"split-{count}-s1") for count in (1, 5)]
    file = tmp_path / "peer.json"
    write(file, {"test-000": "a dog"})
    for argv, words in (
        ([*runs, str(file)], "peer.json is a file: files with captions are compared two at a time"),
        ([str(file)], "peer.json is a file: files with captions are compared two at a time"),
        ([str(sweep), "--by", "CIDEr-D"], "--by is for two systems"),
        ([*runs, runs[0], "--other-split", "val"], "--other-split is for two systems"),
        ([str(sweep), "--csv", str(tmp_path / "no" / "x.csv")], "x.csv cannot be written"),
        ([str(sweep), "--csv", str(tmp_path)], "--csv .* is a folder: name a file"),
        ([str(sweep), "--html", str(tmp_path)], "--html .* is a folder: name a file"),
        ([str(sweep), "--html", str(file / "x.html")], "cannot be written .*choose another by --html OUT"),
    ):
        with pytest.raises(ValueError, match=words):
            main(argv)
