"""Names and captions come out of every command as they are: nothing in them is markup, an emoji or a colour."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from helpers.fabricated_run import make
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from easycap.cli import main
from easycap.commands import caption, paired
from easycap.commands import data as data_command
from easycap.commands import score as scoring
from easycap.errors import UserError
from easycap.metrics import Scores, compare, score
from easycap.report.published import Paper, Row, match_runs, show
from easycap.report.rich_tables import RunSummary, runs_table, scores_table
from easycap.tasks.predictor import Prediction
from easycap.types import DataIssue, Dataset
from easycap.utils.console import LogHandler, console

# What people write in names, and what Rich reads as markup, as the end of it, as an emoji, or as neither.
NAMES = (
    "b [copy].jpg",
    "[/photo].jpg",
    "[red]",
    "a [bold]dog[/bold]",
    ":dog:",
    "\\[x]",
    "[link=a]b",
    "[#ff0000]1",
)
names = st.sampled_from(NAMES) | st.text("ab[]/:\\=#1.-dogre ", min_size=1, max_size=24).map(
    str.strip
).filter(bool)


def caption_of_photo(name: str) -> None:
    caption._print(Path("photos") / name.replace("/", "|"), Prediction([name], {}, name))


def rounds_of_photo(name: str) -> None:
    caption._print(Path("a.jpg"), Prediction(["a dog", name], {}, name))


def photo_not_read(name: str) -> None:
    caption._print(Path("a.jpg"), UserError(name))


def log_line(name: str) -> None:
    LogHandler().emit(logging.LogRecord("easycap", logging.WARNING, "", 0, "left out: %s", (name,), None))


def list_of_runs(name: str) -> None:
    folder = Path("runs") / name.replace("/", "|")
    console().print(runs_table([RunSummary(folder, "broken", problem=name)]))


def scores_of_split(name: str) -> None:
    console().print(scores_table({"scores": {name: {"CIDEr-D": {"absent": name}}}}))


def findings_of_data(name: str) -> None:
    for table in data_command._tables(
        Dataset("x", {}, issues=(DataIssue("train", name, name, "is bad", True),))
    ):
        console().print(table)


def published_rows(name: str) -> None:
    row = Row(name, {"CIDEr-D": 50.0}, name, name, 1, True, notes=name)
    show(console(), Paper(name, (row,)), match_runs(Paper(name, (row,)), [], split="test")[0])


def two_systems(name: str) -> None:
    references = {name: ["a dog", f"{name} dog"], "z": ["a cat"]}
    texts = ({name: f"{name} dog", "z": "a cat"}, {name: "a cat", "z": "a dog"})
    sides = [paired.System(Path(name), one, references) for one in texts]
    found = compare(*(score(one, references) for one in texts))
    rows = paired.furthest(found["ROUGE-L"], *sides, references)
    paired.Paired(*sides, found, "ROUGE-L", rows).show()


def absent_metric(name: str) -> None:
    scoring._print(Scores({}, {"SPICE": name}, {"missing": 0, "empty_captions": 0, "images": 1}), {}, [name])


WAYS: list[Callable[[str], None]] = [
    caption_of_photo, rounds_of_photo, photo_not_read, log_line, list_of_runs, scores_of_split, findings_of_data,
    published_rows, two_systems, absent_metric,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
@example(name="b [copy].jpg")
@example(name="[/photo].jpg")
@example(name=":dog:")
def test_what_users_name_is_printed_as_it_is(
    way: Callable[[str], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    text = io.StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        way(name)
    assert name in text.getvalue() or name.replace("/", "|") in text.getvalue()
    if way is two_systems:
        assert f"{name} dog" in text.getvalue()


@pytest.mark.parametrize("name", [name.replace("/", "|") for name in NAMES])
def test_the_commands_name_a_runs_folder_as_it_is(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path / name)
    assert main(["runs", "."]) == 0
    assert name in capsys.readouterr().out
    main(["compare", name, "--html", "page.html"])
    assert name in capsys.readouterr().out
    from easycap.commands.evaluate import show_run

    show_run(run)
    printed = capsys.readouterr().out
    assert re.search(rf"report: .*{re.escape(name)}/report.html", printed)
