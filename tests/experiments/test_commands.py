"""Every `easycap train` command of the studies' pages composes: its options, settings and recipes exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from easycap.config.compose import compose
from easycap.config.schema import check

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RUNS = ("init_from", "hydra.run.dir")  # name what the page's reader has
SWEEPS = ("sweep", "sweep.name", "sweep.dry_run", "launcher", "launcher.jobs")


def commands() -> list[tuple[str, str]]:
    """(study, command) pairs; a backslash continues a line."""
    found = []
    for page in sorted(EXPERIMENTS.glob("*/README.md")):
        text = page.read_text().replace("\\\n", " ")
        for name, words in re.findall(r'^(?:\$ |    )(\w+)="(.*)"$', text, re.MULTILINE):
            text = text.replace(f"${name}", words)
        found += [
            (page.parent.name, line)
            for line in re.findall(r"^(?:\$ |    )(easycap train .*)$", text, re.MULTILINE)
        ]
    return found


@pytest.mark.parametrize(("study", "command"), commands())
def test_a_command_of_a_study_composes(study: str, command: str) -> None:
    overrides = []
    for word in shlex.split(command, comments=True)[2:]:
        key, equals, value = word.partition("=")
        if not equals or key in RUNS or key in SWEEPS:
            continue
        if value == "RECIPE":
            pytest.skip("for any recipe")
        first = value if re.search(r"[\[{'\"(]", value) else value.split(",")[0]  # of a sweep's values
        overrides.append(f"{key}={first}")
    check(compose(overrides)[0])


def test_commands_are_found() -> None:
    assert len({study for study, _ in commands()}) > 8
