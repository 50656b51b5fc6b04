"""What runs share is made once, also when two ask at once, and never found half made or made by other code."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tiny import TINY

from easycap.config import check
from easycap.experiment import Experiment
from easycap.launch import compose
from easycap.metrics import DocumentFrequencies
from easycap.processes import lock
from easycap.shared import digest_of, made_once
from easycap.vocab.word import WordVocabulary


def test_who_asks_at_the_same_time_waits_for_the_first(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.2)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "x", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "x" / "file").read_text() == "whole"


def test_a_failure_leaves_nothing_and_the_next_one_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        made_once(tmp_path / "x", lambda folder: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    assert made_once(tmp_path / "x", lambda folder: None).is_dir()


def test_other_texts_and_other_code_have_other_digests(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = digest_of(["a b", "c"], code=tmp_path)
    assert first == digest_of(["a b", "c"], code=tmp_path) != digest_of(["a", "b c"], code=tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert digest_of(["a b", "c"], code=tmp_path) != first


def test_a_lock_is_free_when_its_holder_is_gone(tmp_path: Path) -> None:
    with lock(tmp_path / "l") as held, lock(tmp_path / "l", wait=False) as second:
        assert held is not None and second is None
    with lock(tmp_path / "l", wait=False) as third:
        assert third is not None


def test_vocabulary_and_document_frequencies_are_made_by_the_first_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path))
    settings = check(compose([*TINY, "validation.images=1"])[0])
    first = Experiment(settings)
    words, signature = first.vocabulary.words, first.training_df.signature
    monkeypatch.setattr(WordVocabulary, "save", lambda *_: 1 / 0)
    monkeypatch.setattr(DocumentFrequencies, "from_references", lambda *_, **__: 1 / 0)
    second = Experiment(settings)
    assert (second.vocabulary.words, second.training_df.signature) == (words, signature)
    with pytest.raises(ZeroDivisionError):  # another setting, another vocabulary
        _ = Experiment(settings | {"vocab": {"name": "word", "size": 15000, "min_count": 2}}).vocabulary
