"""The word vocabulary: ids, round trip, frequencies, special ids."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.vocab.survey import lost_marks
from easycap.vocab.word import WordVocabulary, split_words

CAPTIONS = ["A dog runs.", "a dog and a cat", "The CAT's hat, a T-shirt!", "a dog"]


def vocabulary(size: int = 100, min_count: int = 1) -> WordVocabulary:
    return WordVocabulary(size=size, min_count=min_count, captions=CAPTIONS, segmenter="spaces")


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
    assert (
        WordVocabulary(size=9, min_count=1, captions=CAPTIONS[::-1], segmenter="spaces").words
        == vocabulary(size=9).words
    )


@pytest.mark.parametrize(
    ("size", "min_count", "name"), [(0, 1, "size"), (5, 0, "min_count"), (5, 99, "min_count")]
)
def test_impossible_settings_are_named(size: int, min_count: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"vocab.{name}"):
        vocabulary(size=size, min_count=min_count)


@pytest.mark.parametrize(
    "caption",
    [
        "एक आदमी घोड़े पर सवार है",
        "দুটি কুকুর ঘাসের উপর দৌড়াচ্ছে",
        "ஒரு மனிதன் குதிரையில் சவாரி செய்கிறான்",
        "ผู้ชาย กำลัง ขี่ ม้า",
        "လူ တစ်ယောက် မြင်း စီး နေသည်",
        "បុរស ម្នាក់ កំពុង ជិះ សេះ",
        "رَجُلٌ يَرْكَبُ حِصَانًا",
        "אִישׁ רוֹכֵב עַל סוּס",
        "مردی سوار بر اسب می\u200cرود",
        "ශ්\u200dරී ලංකාවේ වෙරළ",
        "അവന്\u200d വരുന്നു",
        "un café à l'été",
        "một người đàn ông",
        "ի՞նչ է սա",
        "한 남자가 말을 타고 있다",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_of_every_script_are_whole_and_come_back(caption: str, form: str) -> None:
    composed = unicodedata.normalize("NFC", caption)
    given = unicodedata.normalize(form, caption)
    words = WordVocabulary(size=100, min_count=1, captions=[given], segmenter="spaces")
    assert split_words(f"{given}.") == composed.split()
    assert words.decode(words.encode(given)) == composed
    assert words.unk_id not in words.encode(composed)


def test_what_is_not_seen_is_no_part_of_a_word() -> None:
    assert split_words("\ufeffa co\xadoperative \u200fكتاب\u200f\u200c ☺\ufe0f dog") == [
        *("a", "cooperative"),
        *("كتاب", "dog"),
    ]


@given(st.text(max_size=60))
def test_words_have_no_spaces_and_are_words_again(text: str) -> None:
    words = split_words(text)
    assert [found for word in words for found in split_words(word)] == words
    assert all(word.split() == [word] for word in words)


def test_a_vocabulary_of_before_splits_as_it_did(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"type": "word", "words": ["घ", "ड", "a"]}))
    old = WordVocabulary.load(tmp_path)
    assert old.encode("घोड़") == [4, 5]  # the consonants it was trained on
    old.save(tmp_path)
    assert WordVocabulary.load(tmp_path).encode("घोड़") == [4, 5]


def test_a_vocabulary_that_drops_marks_is_found_out() -> None:
    class Stripping(WordVocabulary):
        def decode(self, ids: Sequence[int]) -> str:
            text = unicodedata.normalize("NFD", super().decode(ids))
            return "".join(letter for letter in text if not unicodedata.combining(letter))

    captions = ["un café", "a dog", "a cat", "a dog and a cat"]
    settings = {"size": 100, "min_count": 1, "captions": captions, "segmenter": "spaces"}
    assert lost_marks(Stripping(**settings), captions) == 0.25
    assert lost_marks(WordVocabulary(**settings), captions) == 0
