"""The word vocabulary: ids, round trip, frequencies, special ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.vocab.word import WordVocabulary, split_words

CAPTIONS = ["A dog runs.", "a dog and a cat", "The CAT's hat, a T-shirt!", "a dog"]


def vocabulary(size: int = 100, min_count: int = 1) -> WordVocabulary:
    return WordVocabulary(size=size, min_count=min_count, captions=CAPTIONS)


def test_special_ids_are_distinct_and_no_words() -> None:
    words = vocabulary()
    assert len({words.pad_id, words.bos_id, words.eos_id, words.unk_id}) == 4
    assert words.encode("<pad> <eos>") == [words.unk_id] * 2  # typed by a person, they are words


def test_ids_go_by_frequency_then_alphabet() -> None:
    assert vocabulary().words[4:8] == ["a", "dog", "and", "cat"]


def test_size_counts_words_without_special_ids() -> None:
    small = vocabulary(size=2)
    assert len(small) == 6
    assert small.encode("a dog and") == [4, 5, small.unk_id]


def test_min_count_drops_rare_words() -> None:
    assert vocabulary(min_count=3).words[4:] == ["a", "dog"]


def test_words_keep_inner_apostrophes_and_hyphens() -> None:
    assert split_words("The CAT's hat, a T-shirt!") == ["the", "cat's", "hat", "a", "t-shirt"]


def test_decode_stops_at_eos_and_skips_pad_and_bos() -> None:
    words = vocabulary()
    dog = words.encode("dog")[0]
    assert words.decode([words.bos_id, dog, words.pad_id, dog, words.eos_id, dog]) == "dog dog"


@given(st.lists(st.sampled_from(sorted({w for c in CAPTIONS for w in split_words(c)})), max_size=12))
def test_known_words_survive_a_round_trip(chosen: list[str]) -> None:
    words = vocabulary()
    assert words.decode(words.encode(" ".join(chosen))) == " ".join(chosen)


@given(st.text(max_size=60))
def test_any_text_can_be_encoded(text: str) -> None:
    words = vocabulary()
    assert all(words.unk_id <= index < len(words) for index in words.encode(text))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    words = vocabulary()
    words.save(tmp_path)
    assert WordVocabulary.load(tmp_path).words == words.words


def test_the_order_of_captions_does_not_matter() -> None:
    assert WordVocabulary(size=9, min_count=1, captions=CAPTIONS[::-1]).words == vocabulary(size=9).words


@pytest.mark.parametrize(
    ("size", "min_count", "name"), [(0, 1, "size"), (5, 0, "min_count"), (5, 99, "min_count")]
)
def test_impossible_settings_are_named(size: int, min_count: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"vocab.{name}"):
        vocabulary(size=size, min_count=min_count)
