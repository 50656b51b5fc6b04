"""GPT-2's own vocabulary: byte-level tokens, so that it covers any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from easycap.errors import UserError
from easycap.registry import register
from easycap.utils.files import read_mapping
from easycap.utils.segmenters import segmenter as find_segmenter
from easycap.vocab.tokenizer_files import (
    FromTokenizer,
    SubwordCache,
    read_tokenizer,
    special_id,
    subword_encoder,
)

_HUB = "openai-community/gpt2"
_EOS = "<|endoftext|>"
_SPECIAL = "special_tokens.json"  # {end: token}


@register("vocab", "gpt2")
class GPT2Vocabulary(FromTokenizer):
    """Byte-level BPE (Radford et al. 2019): 50,257 tokens, then bos and pad, which GPT-2 lacks.

    eos is GPT-2's own <|endoftext|>. Nothing is unknown. Case and punctuation are kept; a run of white space becomes
    one space, none at the ends. A word within a caption is encoded with the space before it, as in GPT-2's training
    text, the first one without. With `end` that token, and not eos, ends a caption and is part of its text: "." in
    ClipCap's weights, which never learned eos. It then does not occur within a caption. `path` is a folder with
    tokenizer.json, or vocab.json and merges.txt; null: from the hub. `segmenter` is for the scores alone. Raises
    `UserError` if the files cannot be had.
    """

    unk_id = None

    def __init__(self, *, path: str | None, segmenter: str, end: str | None) -> None:
        find_segmenter(segmenter)
        try:
            self._use(read_tokenizer(path or _HUB))
        except ValueError as error:
            raise UserError(
                f"vocab=gpt2 has no tokenizer ({error}): download vocab.json and merges.txt of "
                f"huggingface.co/{_HUB} into a folder and pass vocab.path=FOLDER"
            ) from None
        if end is not None:
            self._end_at(end)

    def _use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self._pieces = tokenizer, SubwordCache(tokenizer)
        self.end: str | None = None
        self.never_ids: tuple[int, ...] = ()
        self.eos_id = special_id(tokenizer, _EOS)
        self.bos_id = tokenizer.get_vocab_size()
        self.pad_id = self.bos_id + 1

    def _end_at(self, end: str) -> None:
        ids = self._pieces[end]
        if len(ids) != 1:
            raise UserError(
                f"vocab.end={end!r} is not a single token of this vocabulary; use one such as '.'"
            )
        self.end, self.never_ids, self.eos_id = end, (self.eos_id,), ids[0]

    def __len__(self) -> int:
        return self.pad_id + 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ids."""
        first, *rest = text.split() or [""]
        # No piece reaches over a space, so words can be looked up one by one.
        ids = list(self._pieces[first])
        for word in rest:
            ids += self._pieces[f" {word}"]
        return self._without_end(ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the same of a text with its white space: line breaks, and a space at the end."""
        return self._without_end(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _without_end(self, ids: list[int]) -> list[int]:
        return ids if self.end is None else [index for index in ids if index != self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos, or with it if it is `end`; invalid bytes become U+FFFD."""
        kept = []
        for index in ids:
            if index == self.eos_id and self.end is None:
                break
            if index < self.bos_id:
                kept.append(index)
            if index == self.eos_id:
                break
        return " ".join(self.tokenizer.decode(kept, skip_special_tokens=False).split())

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return the ids of each token in `tokenizer`: the same token if it has it, none for bos and pad."""
        known = tokenizer.get_vocab()
        encode = subword_encoder(tokenizer)
        found = []
        for index in range(self.bos_id):
            token = self.tokenizer.id_to_token(index)
            found.append([known[token]] if token in known else encode(self.tokenizer.decode([index])))
        return [*found, [], []]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json into `folder`, and special_tokens.json if captions end with another token than eos."""
        super().save(folder)
        if self.end is not None:
            (Path(folder) / _SPECIAL).write_text(json.dumps({"end": self.end}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the vocabulary that `save` wrote into `folder`."""
        vocabulary = super().load(folder)
        if (Path(folder) / _SPECIAL).is_file():
            vocabulary._end_at(read_mapping(Path(folder) / _SPECIAL)["end"])
        return vocabulary
