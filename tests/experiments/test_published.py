"""The published scores: each row complete, under known names, with a source, and a recipe that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from easycap.config.compose import compose
from easycap.utils.paths import config_dir

FILES = sorted(Path(__file__).parents[2].glob("experiments/*/published.yaml"))
METRICS = {*(f"BLEU-{n}" for n in range(1, 5)), "METEOR", "ROUGE-L", "CIDEr-D", "SPICE"}
NEEDED = {"name", "scores", "split", "source", "sources", "checked"}
OPTIONAL = {"recipe", "near", "notes", "settings", "differs"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_row_says_what_it_is_and_where_it_was_read(path: Path) -> None:
    published = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(published) - {"shared"} == {"paper", "differs", "rows"}
    for row in published["rows"]:
        assert set(row) >= NEEDED and set(row) <= NEEDED | OPTIONAL, row
        assert row["scores"] and set(row["scores"]) <= METRICS, row
        assert all(isinstance(score, (int, float)) and 1 < score < 150 for score in row["scores"].values()), (
            row
        )
        assert row["sources"] in (0, 1, 2) and (row["sources"] > 0 or row["checked"] is False), row
        for recipe in (*([row["recipe"]] if "recipe" in row else []), *row.get("near", [])):
            assert (config_dir() / "experiment" / f"{recipe}.yaml").is_file(), row


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_rows_state_are_settings_that_runs_have(path: Path) -> None:
    for row in yaml.safe_load(path.read_text(encoding="utf-8"))["rows"]:
        for key, value in row.get("settings", {}).items():
            group, _, field = key.partition(".")
            options = {
                file.stem: yaml.safe_load(file.read_text()) for file in (config_dir() / group).glob("*.yaml")
            }
            if field:
                assert any(field.split(".")[0] in option for option in options.values()), (row["name"], key)
            else:
                assert value in options, (row["name"], key, value)


def test_the_papers_of_this_project_are_there() -> None:
    assert {"show_and_tell", "show_attend_tell", "updown", "m2", "clipcap"} <= {
        path.parent.name for path in FILES
    }


BF16 = "bf16 where the hardware has it; original: fp32"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_recipe_of_a_paper_says_in_what_it_differs_and_trains_as_precisely(path: Path) -> None:
    differs = yaml.safe_load(path.read_text(encoding="utf-8"))["differs"]
    folder = config_dir() / "experiment" / path.parent.name
    assert set(differs) == {f"{path.parent.name}/{file.stem}" for file in folder.glob("*.yaml")}
    for recipe in differs:
        features = ["encoder.features=somewhere"] if "bottom_up" in recipe else []
        config = compose([f"experiment={recipe}", "data.root=somewhere", *features]).config
        assert config.trainer.precision == ("auto" if BF16 in differs[recipe] else "fp32"), (
            recipe
        )  # as all authors
