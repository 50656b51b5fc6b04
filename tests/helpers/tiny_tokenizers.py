"""Tiny tokenizers, trained in the test, as they lie on disk after a download."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tokenizers import (
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CAPTIONS = [
    "A dog runs on the grass.",
    "a dog and a cat sit on the grass",
    "The cat's hat, a T-shirt and a dog's ball!",
    "two cats running after a red ball",
] * 3


@cache
def tiny_gpt2() -> Path:
    """A folder with vocab.json and merges.txt: 256 bytes, merges of CAPTIONS, then <|endoftext|>, as in GPT-2."""
    folder = _new_folder()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(CAPTIONS, vocab_size=300, min_frequency=2, show_progress=False)
    tokenizer.save_model(str(folder))
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ids["<|endoftext|>"] = len(ids)
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


@cache
def tiny_bert() -> Path:
    """A folder with vocab.txt, BERT's special tokens in it."""
    folder = _new_folder()
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(CAPTIONS, vocab_size=80, min_frequency=1, show_progress=False)
    tokenizer.save_model(str(folder))
    return folder


KINDS = ("byte_level", "no_bos", "byte_fallback", "unigram", "wordpiece")


@cache
def tiny_language_model_tokenizer(kind: str = "no_bos") -> Path:
    """A folder with a tokenizer as language models have it, saved by transformers.

    byte_level    bos, eos and pad of its own, eos not among the pieces (SmolLM)
    no_bos        byte-level BPE with eos and pad alone (Qwen)
    byte_fallback SentencePiece's BPE with ▁ for spaces and bytes for unknown characters; pad is eos (Llama)
    unigram       SentencePiece's Unigram, with pad, eos and unk, without bos (T5)
    wordpiece     [CLS] and [SEP] for bos and eos (BERT)
    """
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    folder = _new_folder()
    if kind == "wordpiece":
        BertTokenizerFast(vocab=str(tiny_bert() / "vocab.txt")).save_pretrained(folder)
        return folder
    named = {
        "byte_level": {"bos_token": "<|start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"},
        "no_bos": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "byte_fallback": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"},
        "unigram": {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    }[kind]
    made = {"byte_fallback": _byte_fallback, "unigram": _unigram}.get(kind, _byte_level)()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **named)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    tokenizer.save_pretrained(folder)
    return folder


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    return tokenizer


def _byte_fallback() -> Tokenizer:
    """As Llama's, whose first 259 pieces are <unk>, <s>, </s> and the bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({letter for caption in CAPTIONS for letter in caption if letter != " "} | {"▁"})
    vocab = {piece: index for index, piece in enumerate([*pieces, *letters, "▁a", "▁d", "▁do", "▁dog"])}
    merges = [("▁", "a"), ("▁", "d"), ("▁d", "o"), ("▁do", "g")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    return tokenizer


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="easycap-tokenizer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
