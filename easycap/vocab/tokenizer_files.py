"""Tokenizer files: from a local folder or the hub; the subwords of words, cached."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from easycap.errors import UserError
from easycap.utils.hub import fetch, in_one_line

FILE = "tokenizer.json"  # holds the whole of a tokenizer: what a checkpoint keeps


def read_tokenizer(source: str) -> Tokenizer:
    """Return the tokenizer of `source`, a folder or a name on the hub: tokenizer.json, else GPT-2's or BERT's files.

    GPT-2's are vocab.json and merges.txt, BERT's vocab.txt (read as uncased). Raises `UserError` with the reason.
    """
    missing = []
    for names, read in (
        ((FILE,), _whole),
        (("vocab.json", "merges.txt"), _byte_pairs),
        (("vocab.txt",), _word_pieces),
    ):
        try:
            files = fetch(source, *names)
        except OSError as error:
            missing.append(in_one_line(error))
            continue
        try:
            return read(*map(str, files))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"{' and '.join(map(str, files))} cannot be read ({in_one_line(error)})"
            ) from None
    raise UserError(missing[0] if len(set(missing)) == 1 else f"{source} holds no tokenizer files")


class FromTokenizer:
    """A vocabulary that is a tokenizer: `_use` makes it from one, and tokenizer.json is all that is saved."""

    tokenizer: Tokenizer

    def _use(self, tokenizer: Tokenizer) -> None:
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write tokenizer.json into `folder`."""
        self.tokenizer.save(str(Path(folder) / FILE), pretty=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the vocabulary that `save` wrote into `folder`."""
        vocabulary = cls.__new__(cls)  # its files are in the folder, whatever its path was
        vocabulary._use(read_tokenizer(str(folder)))
        return vocabulary


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token the vocabulary cannot do without; `UserError` if the files lack it."""
    index = tokenizer.token_to_id(token)
    if index is None:
        raise UserError(f"the tokenizer's files have no {token}: they belong to another kind of vocabulary")
    return index


def subword_encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Return text -> ids of its tokens, a leading space meaning that it follows another word.

    Tokenizers differ in what they make of a space at the start of all text, so a word is read after another one.
    """

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    before = "a"
    length = len(ids(before))
    return lambda text: ids(before + text)[length:] if text.startswith(" ") else ids(text)


class SubwordCache(dict[str, list[int]]):
    """Word -> ids of its tokens; each word is split once, as captions repeat their words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        self[word] = ids = self.tokenizer.encode(word, add_special_tokens=False).ids
        return ids


def without_added_tokens(text: str) -> str:
    """Return a tokenizer.json without special and added tokens: "<|endoftext|>" in a caption is then text."""
    stored = json.loads(text)
    stored |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return json.dumps(stored)


def _whole(file: str) -> Tokenizer:
    return Tokenizer.from_str(without_added_tokens(Path(file).read_text(encoding="utf-8")))


def _byte_pairs(vocab: str, merges: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _word_pieces(vocab: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece.from_file(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
