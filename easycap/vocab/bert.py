"""BERT's vocabulary: lower-cased words and pieces of words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from easycap.registry import register
from easycap.vocab.files import FromTokenizer, Pieces, read_tokenizer, special_id, words_as_pieces

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
    """WordPiece, uncased (Devlin et al. 2019): 30,522 pieces; [CLS], [SEP], [PAD], [UNK] are bos, eos, pad and unk.

    Encoding lower-cases and strips accents. Decoding joins pieces to words, sets full stops, commas and the like
    without a space before them, and joins hyphens and English contractions: "A man's T-shirt." comes back as
    "a man's t-shirt.". `path` is a folder with tokenizer.json or vocab.txt; null: from the hub. Raises `ValueError`
    if the files cannot be had.
    """

    def __init__(self, *, path: str | None) -> None:
        try:
            self._use(read_tokenizer(path or _HUB))
        except ValueError as error:
            raise ValueError(
                f"vocab=bert has no tokenizer ({error}): download vocab.txt of huggingface.co/{_HUB} into a folder "
                "and pass vocab.path=FOLDER"
            ) from None

    def _use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self._pieces = tokenizer, Pieces(tokenizer)
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = (
            special_id(tokenizer, token) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
        )
        self.tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces of `text`, without special ids but with unk for what has no pieces."""
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

    def pieces(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return each id as pieces of `tokenizer`: words as in running text, none for pad, bos, eos and unk."""
        said = words_as_pieces(tokenizer)
        special = {self.pad_id, self.bos_id, self.eos_id, self.unk_id}
        return [[] if index in special else said(token) for index, token in enumerate(self._texts())]

    def _texts(self) -> list[str]:
        return [token[2:] if token.startswith("##") else f" {token}" for token in self.tokens]
