"""What runs share is made once, also when two ask at once, and never found half made or made by other code."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from helpers.tiny_config import TINY
from helpers.waiting import wait_for

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.metrics import DocumentFrequencies
from easycap.tasks.captioning import CaptioningTask
from easycap.train import create_task
from easycap.utils.cache import cached_dir, digest_of
from easycap.utils.processes import lock
from easycap.vocab.word import WordVocabulary


def test_who_asks_at_the_same_time_waits_for_the_first(tmp_path: Path) -> None:
    asking, made = [], []

    def make(folder: Path) -> None:
        made.append(folder)
        wait_for(lambda: len(asking) == 4)
        (folder / "file").write_text("whole")

    def ask() -> None:
        asking.append(threading.current_thread())
        cached_dir(tmp_path / "x", make)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "x" / "file").read_text() == "whole"


def test_a_failure_leaves_nothing_and_the_next_one_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cached_dir(tmp_path / "x", lambda folder: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    assert cached_dir(tmp_path / "x", lambda folder: None).is_dir()


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
    first = create_task(settings)
    words, signature = first.vocabulary.words, first.document_frequencies().signature
    monkeypatch.setattr(WordVocabulary, "save", lambda *_: 1 / 0)
    monkeypatch.setattr(DocumentFrequencies, "from_references", lambda *_, **__: 1 / 0)
    second = create_task(settings)
    assert (second.vocabulary.words, second.document_frequencies().signature) == (words, signature)
    with pytest.raises(ZeroDivisionError):  # another setting, another vocabulary
        other = settings | {"vocab": settings["vocab"] | {"min_count": 2}}
        CaptioningTask.build_vocabulary(other, first.data, None)
