"""`vocab=pretrained`: the tokenizers of language models, of every kind."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.tiny_tokenizers import CAPTIONS, KINDS, tiny_gpt2, tiny_language_model_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.generation.logits_processors import DecodingSettings
from easycap.vocab.pretrained import PretrainedVocabulary
from easycap.vocab.tokenizer_files import read_tokenizer

EACH = pytest.mark.parametrize("kind", KINDS)
# Greetings and the like in 30 scripts, with combining marks, ligatures and signs outside the basic plane.
SCRIPTS = json.loads((Path(__file__).parents[1] / "metrics" / "scripts.json").read_text(encoding="utf-8"))


@cache
def vocabulary(kind: str) -> PretrainedVocabulary:
    return PretrainedVocabulary(path=str(tiny_language_model_tokenizer(kind)), segmenter="spaces")


def saved(kind: str) -> dict[str, int]:
    """The special and added tokens of a tokenizer's file: {text: id}."""
    stored = json.loads((tiny_language_model_tokenizer(kind) / "tokenizer.json").read_text(encoding="utf-8"))
    return {token["content"]: token["id"] for token in stored["added_tokens"]}


def test_special_tokens_are_the_tokenizers_own() -> None:
    words, own = vocabulary("byte_level"), saved("byte_level")
    assert (words.bos_id, words.eos_id, words.pad_id) == (own["<|start|>"], own["<|im_end|>"], own["<|pad|>"])
    assert words.unk_id is None and words.never_ids == (own["<|image|>"],)
    assert len(words) == max(own.values()) + 1
    words, own = vocabulary("wordpiece"), saved("wordpiece")
    assert [words.bos_id, words.eos_id, words.pad_id, words.unk_id] == [
        own[f"[{name}]"] for name in ("CLS", "SEP", "PAD", "UNK")
    ]


def test_a_missing_bos_and_a_pad_that_is_eos_get_new_ids() -> None:
    words, own = vocabulary("no_bos"), saved("no_bos")
    assert words.eos_id == own["<|im_end|>"] and words.pad_id == own["<|endoftext|>"]
    assert words.bos_id == max(own.values()) + 1 == len(words) - 1
    words, own = vocabulary("byte_fallback"), saved("byte_fallback")
    assert (words.eos_id, words.bos_id, words.unk_id) == (own["</s>"], own["<s>"], own["<unk>"])
    assert words.pad_id == len(words) - 1 and words.pad_id not in own.values()


@EACH
def test_a_caption_comes_back(kind: str) -> None:
    words = vocabulary(kind)
    for caption in CAPTIONS:
        back = words.decode([*words.encode(caption), words.eos_id, *words.encode("more")])
        plain = caption.lower() if kind == "wordpiece" else caption
        # WordPiece sets spaces around punctuation; transformers' decoder joins only some of it again.
        assert back.replace(" ", "") == plain.replace(" ", "") if kind == "wordpiece" else back == plain


@pytest.mark.parametrize("kind", ["byte_level", "no_bos", "byte_fallback"])
def test_text_of_any_script_comes_back(kind: str) -> None:
    words, texts = vocabulary(kind), list(_texts(SCRIPTS))
    assert len(texts) >= 30
    for text in texts:
        assert words.decode(words.encode(text)) == " ".join(text.split())


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for member in members for text in _texts(member)]


@EACH
@given(text=st.text(max_size=30) | st.sampled_from(["<|im_end|> a", "</s>", "a [SEP] dog", "<|image|>"]))
def test_special_tokens_in_a_caption_are_text(kind: str, text: str) -> None:
    words = vocabulary(kind)
    special = {words.bos_id, words.eos_id, words.pad_id, *words.never_ids}
    assert not special & set(words.encode(text))


@EACH
def test_special_tokens_are_neither_generated_nor_printed(kind: str) -> None:
    words = vocabulary(kind)
    settings = DecodingSettings(
        max_length=None, min_length=0, no_repeat_ngram=0, may_repeat=(), allow_unk=False
    )
    scores = settings.logits_processor(words)(torch.zeros(1, len(words)), torch.zeros(1, 0, dtype=torch.long))
    never = {words.bos_id, words.pad_id, *words.never_ids} | ({words.unk_id} - {None})
    assert set(scores[0].isneginf().nonzero().flatten().tolist()) == never
    dog = words.encode("a dog")
    assert words.decode([words.bos_id, *words.never_ids, *dog, words.pad_id]) == "a dog"


@EACH
def test_a_saved_vocabulary_is_the_same(kind: str, tmp_path: Path) -> None:
    words = vocabulary(kind)
    words.save(tmp_path)
    again = PretrainedVocabulary.load(tmp_path)
    for name in ("bos_id", "eos_id", "pad_id", "unk_id", "never_ids"):
        assert getattr(again, name) == getattr(words, name)
    assert len(again) == len(words) and again.encode(CAPTIONS[0]) == words.encode(CAPTIONS[0])


def test_its_own_model_knows_each_of_its_tokens() -> None:
    words = vocabulary("no_bos")
    own = read_tokenizer(str(tiny_language_model_tokenizer("no_bos")))
    assert words.subword_ids(own) == [[index] for index in range(words.bos_id)] + [[]]
    others = words.subword_ids(read_tokenizer(str(tiny_gpt2())))
    assert len(others) == len(words) and others[words.eos_id] == [] and all(map(len, others[:250]))


def test_the_path_is_that_of_the_decoder() -> None:
    config = check(compose(["decoder=causal_lm", "decoder.pretrained=some/model", "vocab=pretrained"])[0])
    assert config["vocab"]["path"] == "some/model"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "set decoder.pretrained, or vocab.path"),
        ("no folder", "vocab=pretrained: 'no folder' has no readable tokenizer"),
    ],
)
def test_what_is_missing_is_named(path: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PretrainedVocabulary(path=path, segmenter="spaces")


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = read_tokenizer(str(tiny_gpt2()))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no eos token"):
        PretrainedVocabulary(path=str(tmp_path), segmenter="spaces")
