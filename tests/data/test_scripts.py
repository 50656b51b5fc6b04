"""Captions are read in one Unicode form; scripts without spaces are named by `data check` and by training."""

from __future__ import annotations

import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from easycap.commands.data import _tables
from easycap.data.assemble import match
from easycap.data.issues import DataIssues, OnBadImage
from easycap.tasks.preflight import about_scripts
from easycap.types import Dataset, Example
from easycap.vocab.word import WordVocabulary

CHINESE = ("一个男人在海滩上骑马", "两只狗在草地上奔跑")


def examples(*references: str) -> list[Example]:
    return [Example("1", Mock(), references)]


def test_captions_are_composed_when_read() -> None:
    captions = [("1", "cafe\u0301 "), ("1", "café")]
    issues = DataIssues(OnBadImage.error)
    (found,) = match("train", [("1", Path("a.jpg"))], captions, issues, file=Path("captions.json"))
    assert found.references == ("café", "café")


def test_data_check_notes_a_script_without_spaces() -> None:
    notes = [
        text for text in _tables(Dataset("folder", {"train": examples(*CHINESE)})) if "note" in str(text)
    ]
    assert len(notes) == 1 and "Chinese without spaces" in notes[0]
    assert _tables(Dataset("folder", {"train": examples("a dog")}))[1:] == [
        "scripts: Latin 100 %; vocab.segmenter=spaces fits",
        "nothing is wrong",
    ]


@pytest.mark.parametrize(
    ("references", "messages"), [(CHINESE, ["Chinese without spaces"]), (("a dog",), [])]
)
def test_training_says_so_once(references: tuple[str, ...], messages: list[str]) -> None:
    vocabulary = WordVocabulary(references, size=9, min_count=1, segmenter="spaces")
    found = list(about_scripts({"vocab": {"name": "word"}}, vocabulary, references))
    assert [level for level, _ in found] == [logging.WARNING] * len(messages)
    assert all(text in message for text, (_, message) in zip(messages, found, strict=True))
