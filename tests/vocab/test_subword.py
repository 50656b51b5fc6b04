"""The vocabularies of GPT-2 and BERT: their ids, their normalisation, where their files come from.

EASYCAP_TEST_DATA may name a folder with the real files: gpt2/vocab.json, gpt2/merges.txt, bert/vocab.txt.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.tiny_tokenizers import CAPTIONS, tiny_bert, tiny_gpt2
from hypothesis import given
from hypothesis import strategies as st

from easycap.metrics.tokenizer import tokenize
from easycap.vocab.bert import BertVocabulary
from easycap.vocab.gpt2 import GPT2Vocabulary
from easycap.vocab.same import same_vocabulary

REAL = Path(os.environ.get("EASYCAP_TEST_DATA", "no folder"))
needs_real_files = pytest.mark.skipif(
    not (REAL / "gpt2").is_dir(), reason="EASYCAP_TEST_DATA names no folder with gpt2/ and bert/"
)
GPT2 = GPT2Vocabulary(path=str(tiny_gpt2()), segmenter="spaces", end=None)
BERT = BertVocabulary(path=str(tiny_bert()), segmenter="spaces")

# Text as people type it: words, punctuation, and what tokenizers stumble over.
TEXTS = st.lists(
    st.sampled_from(["dog", "DOG's", " ", "  ", "\t", "\u00a0", "é", "漢字", "3.5", "...", "<|", "\x1c"])
)


@given(TEXTS.map("".join) | st.text(max_size=30))
def test_gpt2_gives_a_text_back_but_for_white_space(text: str) -> None:
    assert GPT2.decode(GPT2.encode(text)) == " ".join(text.split())


@given(TEXTS.map("".join))
def test_word_by_word_gives_the_pieces_of_the_whole_text(text: str) -> None:
    whole = " ".join(text.split())
    assert GPT2.encode(text) == GPT2.tokenizer.encode(whole).ids
    assert BERT.encode(text) == BERT.tokenizer.encode(whole).ids


def test_gpt2s_own_end_of_text_is_eos_and_text_that_looks_like_it_is_not() -> None:
    assert GPT2.eos_id == GPT2.tokenizer.token_to_id("<|endoftext|>")
    assert (GPT2.bos_id, GPT2.pad_id) == (GPT2.eos_id + 1, GPT2.eos_id + 2) == (len(GPT2) - 2, len(GPT2) - 1)
    text = "a <|endoftext|> sign"
    assert GPT2.eos_id not in GPT2.encode(text) and GPT2.decode(GPT2.encode(text)) == text


def test_half_a_character_is_shown_as_a_replacement() -> None:
    first, *_ = GPT2.encode("漢")
    assert GPT2.decode([first]) == "\ufffd"


@pytest.mark.parametrize(
    ("caption", "back"),
    [
        ("The cat's  hat, a T-shirt!", "the cat's hat, a t-shirt!"),
        ("a dog - on the grass.", "a dog-on the grass."),
        ("the dogs' ball", "the dogs ' ball"),
        ("DÓG", "dog"),
    ],
)
def test_bert_gives_a_caption_back_in_lower_case(caption: str, back: str) -> None:
    assert BERT.decode(BERT.encode(caption)) == back


def test_scores_do_not_see_what_bert_changes() -> None:
    for caption in CAPTIONS:
        assert tokenize(BERT.decode(BERT.encode(caption))) == tokenize(caption)


def test_another_token_than_eos_may_end_captions_and_is_part_of_them(tmp_path: Path) -> None:
    """As "." does in ClipCap's weights, which never learned eos."""
    dotted = GPT2Vocabulary(path=str(tiny_gpt2()), segmenter="spaces", end=".")
    dot = GPT2.encode(".")[0]
    assert (dotted.eos_id, dotted.never_ids) == (dot, (GPT2.eos_id,))
    ids = dotted.encode("A dog runs on the grass.")
    assert ids == GPT2.encode("A dog runs on the grass") and dot not in dotted.encode("a dog. a cat.")
    assert dotted.decode([*ids, dot, *ids]) == "A dog runs on the grass."
    dotted.save(tmp_path)
    again = GPT2Vocabulary.load(tmp_path)
    assert (again.end, again.eos_id, again.never_ids) == (".", dot, (GPT2.eos_id,))
    assert not same_vocabulary(dotted, GPT2) and same_vocabulary(dotted, again)
    with pytest.raises(ValueError, match="'a dog' is not a single token"):
        GPT2Vocabulary(path=str(tiny_gpt2()), segmenter="spaces", end="a dog")


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(("words", "kind"), [(GPT2, GPT2Vocabulary), (BERT, BertVocabulary)])
def test_a_folder_with_one_tokenizer_json_is_as_good(words, kind, tmp_path: Path) -> None:
    words.tokenizer.add_special_tokens(["<|endoftext|>", "[SEP]"])  # as transformers saves them
    words.tokenizer.save(str(tmp_path / "tokenizer.json"))
    end = {"end": None} if kind is GPT2Vocabulary else {}
    other = kind(path=str(tmp_path), segmenter="spaces", **end)
    assert len(other) == len(GPT2 if kind is GPT2Vocabulary else BERT)
    text = "a dog <|endoftext|> [SEP]"
    assert other.eos_id not in other.encode(text)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (GPT2Vocabulary, "vocab.json and merges.txt of huggingface.co/openai-community/gpt2"),
        (BertVocabulary, "vocab.txt of huggingface.co/google-bert/bert-base-uncased"),
    ],
)
def test_without_files_one_sentence_says_what_to_fetch(kind, words, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("easycap.utils.hub._reachable", lambda: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for path in (None, str(tmp_path)):
        with pytest.raises(ValueError) as error:
            kind(path=path, segmenter="spaces", **({"end": None} if kind is GPT2Vocabulary else {}))
        sentence = str(error.value)
        assert words in sentence and "vocab.path=FOLDER" in sentence and "\n" not in sentence


def test_files_of_the_other_kind_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have no .*endoftext"):
        GPT2Vocabulary(path=str(tiny_bert()), segmenter="spaces", end=None)
    with pytest.raises(ValueError, match=r"have no \[PAD\]"):
        BertVocabulary(path=str(tiny_gpt2()), segmenter="spaces")
    shutil.copytree(tiny_gpt2(), tmp_path / "cut")
    (tmp_path / "cut" / "vocab.json").write_text('{"a": 0, ')
    with pytest.raises(ValueError, match="vocab.json.* cannot be read"):
        GPT2Vocabulary(path=str(tmp_path / "cut"), segmenter="spaces", end=None)


@needs_real_files
def test_the_real_files_give_the_published_sizes_and_ids() -> None:
    gpt2, bert = (
        GPT2Vocabulary(path=str(REAL / "gpt2"), segmenter="spaces", end=None),
        BertVocabulary(path=str(REAL / "bert"), segmenter="spaces"),
    )
    assert (len(gpt2), gpt2.eos_id, gpt2.bos_id, gpt2.pad_id) == (50_257 + 2, 50_256, 50_257, 50_258)
    assert (len(bert), bert.pad_id, bert.unk_id, bert.bos_id, bert.eos_id) == (30_522, 0, 100, 101, 102)
    assert gpt2.encode("Hello world") == [15496, 995]
    assert bert.encode("Hello world") == [7592, 2088]
    for caption in ["A man's T-shirt, and a woman riding two 10-speed bicycles.", *CAPTIONS]:
        assert gpt2.decode(gpt2.encode(caption)) == caption
        assert bert.decode(bert.encode(caption)) == caption.lower()
