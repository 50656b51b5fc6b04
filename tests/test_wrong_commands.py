"""Wrong commands of all kinds (experiments/reliability/wrong_commands.csv) end with one sentence and leave nothing."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

STUDY = Path(__file__).parents[1] / "experiments" / "reliability"


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, Path]]:
    """The script, and the folder with the run and the files that its commands read."""
    folder = tmp_path_factory.mktemp("wrong")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        patch.setenv("EASYCAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("EASYCAP_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        script = importlib.import_module("wrong_commands")
        script.make_files(folder)
        yield script, folder
        logging.disable(logging.NOTSET)


def rows_of(script: ModuleType, command: str) -> list[tuple[str, str]]:
    return [row for row in script.read_table() if row[0].split()[0] == command]


COMMANDS = (
    "train",
    "caption",
    "evaluate",
    "compare",
    "data",
    "score",
    "export",
    "share",
    "demo",
    "new",
    "table",
    "runs",
    "import",
    "average",
    "nonsense",
    "--nonsense",
    '""',
)


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_commands_end_with_one_sentence_and_leave_nothing(
    command: str, wrong: tuple[ModuleType, Path], tmp_path: Path
) -> None:
    script, folder = wrong
    rows = rows_of(script, command)
    answers = [
        (words, wanted, script.answer_to(words, folder, tmp_path / "outputs")) for words, wanted in rows
    ]
    assert rows
    assert [one for one in answers if not one[2].is_clear or one[1] != one[2].sentence] == []
