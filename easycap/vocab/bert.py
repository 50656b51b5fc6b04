"""BERT's vocabulary: lower-cased words and parts of words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from easycap.errors import UserError
from easycap.registry import register
from easycap.utils.segmenters import segmenter as find_segmenter
from easycap.vocab.tokenizer_files import (
    FromTokenizer,
    SubwordCache,
    read_tokenizer,
    special_id,
    subword_encoder,
)

_HUB = "google-bert/bert-base-uncased"

# BERT cuts punctuation off as words of their own and forgets where there was no space.
_JOINED = (
    (re.compile(r" ([.,!?;:%)\]])"), r"\1"),
    (re.compile(r"([(\[$#]) "), r"\1"),
    (re.compile(r"(?<=\w) ([-/]) (?=\w)"), r"\1"),
    (re.compile(r"(?<=\d)([.,:]) (?=\d)"), r"\1"),
    (re.compile(r"(?<=\w) (['’]) (?=(?:s|t|re|ve|ll|d|m)\b)"), r"\1"),
)


@register("vocab", "bert")
class BertVocabulary(FromTokenizer):
    """WordPiece, uncased (Devlin et al. 2019): 30,522 tokens; [CLS], [SEP], [PAD], [UNK] are bos, eos, pad and unk.

    Encoding lower-cases and strips accents. Decoding joins tokens to words, sets full stops, commas and the like
    without a space before them, and joins hyphens and English contractions: "A man's T-shirt." comes back as
    "a man's t-shirt.". `path` is a folder with tokenizer.json or vocab.txt; null: from the hub. `segmenter` is for the
    scores alone. Raises `UserError` if the files cannot be had, and for an unknown segmenter.
    """

    def __init__(self, *, path: str | None, segmenter: str) -> None:
        find_segmenter(segmenter)
        try:
            self._use(read_tokenizer(path or _HUB))
        except ValueError as error:
            raise UserError(
                f"vocab=bert has no tokenizer ({error}): download vocab.txt of huggingface.co/{_HUB} into a folder "
                "and pass vocab.path=FOLDER"
            ) from None

    def _use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self._pieces = tokenizer, SubwordCache(tokenizer)
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = (
            special_id(tokenizer, token) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
        )
        self.tokens = [tokenizer.id_to_token(index) or "" for index in range(tokenizer.get_vocab_size())]

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ids but with unk for what has no token."""
        return [index for word in text.split() for index in self._pieces[word]]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos; pad and bos are skipped, unk is <unk>."""
        text = ""
        for index in ids:
            if index == self.eos_id:
                break
            if index in (self.pad_id, self.bos_id):
                continue
            token = "<unk>" if index == self.unk_id else self.tokens[index]
            text += token[2:] if token.startswith("##") else f" {token}"
        for pattern, joined in _JOINED:
            text = pattern.sub(joined, text)
        return text.strip()

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return the ids of each token in `tokenizer`: the same if it has the same tokens; else of words as in running
        text, and none for pad, bos, eos and unk.
        """
        if tokenizer.get_vocab() == self.tokenizer.get_vocab():
            return [[index] for index in range(len(self))]
        encode = subword_encoder(tokenizer)
        special = {self.pad_id, self.bos_id, self.eos_id, self.unk_id}
        return [[] if index in special else encode(token) for index, token in enumerate(self._texts())]

    def _texts(self) -> list[str]:
        return [token[2:] if token.startswith("##") else f" {token}" for token in self.tokens]
