"""The tokenizer of a pretrained language model, of whatever kind, as a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from easycap.errors import UserError
from easycap.registry import register
from easycap.utils.auto_tokenizer import read_fast_tokenizer
from easycap.utils.segmenters import segmenter as find_segmenter
from easycap.vocab.tokenizer_files import FILE, subword_encoder, without_added_tokens

_SPECIAL = "special_tokens.json"  # {bos, eos, pad, unk: id or null}


@register("vocab", "pretrained")
class PretrainedVocabulary:
    """The tokenizer that transformers' AutoTokenizer reads: byte-level BPE, SentencePiece, Unigram or WordPiece.

    bos, eos, pad and unk are its own; a BERT's [CLS] and [SEP] are bos and eos. A bos or pad
    that is missing, or the same as another of them, gets a new id after all others. All other special
    and added tokens are in `never_ids`: they are neither generated nor printed, and in a
    caption they are text. A run of white space is one space. `path` is a folder or a name on the hub; `segmenter` is
    for the scores alone. Raises `UserError` if there is no tokenizer, or if it has no eos.
    """

    def __init__(self, *, path: str | None, segmenter: str) -> None:
        find_segmenter(segmenter)
        if path is None:
            raise UserError(
                "vocab=pretrained is the tokenizer of a language model: set decoder.pretrained, or vocab.path, to a "
                "name on the hub or a folder"
            )
        try:
            self._use(*read_fast_tokenizer(path))
        except UserError as error:
            raise UserError(f"vocab=pretrained: {error}") from None

    def _use(self, text: str, special: dict[str, int | None]) -> None:
        self._text, self._special = text, special
        self.tokenizer = Tokenizer.from_str(without_added_tokens(text))
        added = {token["id"]: token for token in json.loads(text)["added_tokens"]}
        self.num_own = max([self.tokenizer.get_vocab_size() - 1, *added]) + 1
        eos, self.unk_id = special["eos"], special["unk"]
        if eos is None:
            raise UserError("the tokenizer has no eos token, so captions would never end")
        self.eos_id = eos
        taken = {self.eos_id, self.unk_id}
        self.bos_id = self._own_or_new(special["bos"], taken, self.num_own)
        taken.add(self.bos_id)
        self.pad_id = self._own_or_new(special["pad"], taken, max(self.num_own, self.bos_id + 1))
        self._length = max(self.num_own, self.bos_id + 1, self.pad_id + 1)
        self.never_ids = tuple(sorted(set(added) - {self.eos_id, self.unk_id, self.bos_id, self.pad_id}))
        self._skipped = {*self.never_ids, self.bos_id, self.pad_id}

    @staticmethod
    def _own_or_new(own: int | None, taken: set[int | None], new: int) -> int:
        return new if own is None or own in taken else own

    def __len__(self) -> int:
        return self._length

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ids but with unk for what has no token."""
        return self.encode_prompt(" ".join(text.split()))

    def encode_prompt(self, text: str) -> list[int]:
        """Return the same of a text with its white space: line breaks, and a space at the end."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids if text else []
        # A word vocabulary may contain "[SEP]"; in a caption it is not a special token.
        return [index for index in ids if index != self.eos_id and index not in self._skipped]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos; special tokens are skipped, invalid bytes become U+FFFD."""
        kept = []
        for index in ids:
            if index == self.eos_id:
                break
            if index < self.num_own and index not in self._skipped:
                kept.append(index)
        return " ".join(self.tokenizer.decode(kept, skip_special_tokens=False).split())

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return the ids of each token in `tokenizer`: the same if it is this one, none for new ids."""
        new: list[list[int]] = [[] for _ in range(self._length - self.num_own)]
        if tokenizer.get_vocab() == self.tokenizer.get_vocab():
            return [[index] for index in range(self.num_own)] + new
        known, encode = tokenizer.get_vocab(), subword_encoder(tokenizer)
        found: list[list[int]] = []
        for index in range(self.num_own):
            token = self.tokenizer.id_to_token(index)
            if token is None or index in self._skipped or index == self.eos_id:
                found.append([])
            else:
                found.append([known[token]] if token in known else encode(self.tokenizer.decode([index])))
        return found + new

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and special_tokens.json into `folder`."""
        (Path(folder) / FILE).write_text(self._text, encoding="utf-8")
        (Path(folder) / _SPECIAL).write_text(json.dumps(self._special), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the vocabulary that `save` wrote into `folder`."""
        vocabulary = cls.__new__(cls)
        special: dict[str, Any] = json.loads((Path(folder) / _SPECIAL).read_text(encoding="utf-8"))
        vocabulary._use((Path(folder) / FILE).read_text(encoding="utf-8"), special)
        return vocabulary

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self._text, "special": self._special}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._use(state["text"], state["special"])
