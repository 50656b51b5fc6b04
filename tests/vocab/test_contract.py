"""The contract of a vocabulary, over every registered one; a new one needs a row in helpers/tiny_vocabularies.py."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from helpers.tiny_tokenizers import CAPTIONS
from helpers.tiny_vocabularies import tiny_vocabulary
from hypothesis import given
from hypothesis import strategies as st

from easycap.registry import lookup, names
from easycap.types import Vocabulary
from easycap.vocab.survey import survey

EACH = pytest.mark.parametrize("name", names("vocab"))


def special_ids(words: Vocabulary) -> set[int]:
    return {words.pad_id, words.bos_id, words.eos_id}


@EACH
def test_special_ids_are_distinct_and_within_range(name: str) -> None:
    words = tiny_vocabulary(name)
    assert len(special_ids(words)) == 3
    assert words.unk_id not in special_ids(words)
    assert all(0 <= index < len(words) for index in special_ids(words))


@EACH
def test_captions_become_ids_without_special_ones(name: str) -> None:
    words = tiny_vocabulary(name)
    for caption in CAPTIONS:
        ids = words.encode(caption)
        assert ids and not special_ids(words) & set(ids)
        assert all(0 <= index < len(words) for index in ids)
        assert words.unk_id not in ids


@EACH
@given(text=st.text(max_size=40))
def test_any_text_can_be_encoded_and_decoded(name: str, text: str) -> None:
    words = tiny_vocabulary(name)
    ids = words.encode(text)
    assert not special_ids(words) & set(ids) and all(0 <= index < len(words) for index in ids)
    assert "\n" not in words.decode(ids)


@EACH
def test_what_was_decoded_survives_a_round_trip(name: str) -> None:
    """Whatever a vocabulary makes of a caption, it makes the same of its own text."""
    words = tiny_vocabulary(name)
    for caption in CAPTIONS:
        text = words.decode(words.encode(caption))
        assert text and words.decode(words.encode(text)) == text
        assert text.lower().split()[0] == caption.lower().split()[0]


@EACH
def test_decode_stops_at_eos_and_skips_pad_and_bos(name: str) -> None:
    words = tiny_vocabulary(name)
    dog = words.encode("a dog")
    marked = [words.bos_id, *dog, words.pad_id, words.eos_id, *dog]
    assert words.decode(marked) == "a dog"
    assert words.decode([]) == words.decode([words.eos_id]) == ""


@EACH
def test_the_unknown_word_is_shown_as_such(name: str) -> None:
    words = tiny_vocabulary(name)
    if words.unk_id is None:
        pytest.skip("knows everything")
    assert words.decode([words.unk_id]) == "<unk>"


@EACH
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    words = tiny_vocabulary(name)
    words.save(tmp_path)
    loaded = type(words).load(tmp_path)
    assert len(loaded) == len(words) and special_ids(loaded) == special_ids(words)
    assert [loaded.encode(c) for c in CAPTIONS] == [words.encode(c) for c in CAPTIONS]
    assert [loaded.decode(loaded.encode(c)) for c in CAPTIONS] == [
        words.decode(words.encode(c)) for c in CAPTIONS
    ]


@EACH
def test_workers_can_be_given_a_copy(name: str) -> None:
    words = tiny_vocabulary(name)
    copy = pickle.loads(pickle.dumps(words))
    assert copy.encode("a dog <|endoftext|> [SEP] anew") == words.encode("a dog <|endoftext|> [SEP] anew")


@EACH
def test_the_survey_counts_what_is_known_and_what_is_cut(name: str) -> None:
    words = tiny_vocabulary(name)
    short, long = "a dog", " ".join(["dog"] * 12)
    found = survey(words, [short, long], max_length=6)
    assert found.truncated == 0.5 and found.coverage == 1.0
    assert found.length == (len(words.encode(short)) + len(words.encode(long))) / 2
    fits = len(words.encode(long)) + 1
    assert survey(words, [long], max_length=fits).truncated == 0
    assert survey(words, [long], max_length=fits - 1).truncated == 1


def test_coverage_is_the_share_of_known_running_words() -> None:
    small = lookup("vocab", "word")(size=2, min_count=1, captions=["a dog and a dog"], segmenter="spaces")
    assert survey(small, ["a dog sleeps", "a"], max_length=20).coverage == 0.75
    assert survey(small, [], max_length=20).coverage == 1.0
