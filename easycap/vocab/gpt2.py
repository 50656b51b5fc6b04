"""GPT-2's own vocabulary: byte-level tokens, so that it covers any text."""

from __future__ import annotations

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

_HUB = "openai-community/gpt2"


@register("vocab", "gpt2")
class GPT2Vocabulary(FromTokenizer):
    """Byte-level BPE (Radford et al. 2019): 50,257 tokens, then bos and pad, which GPT-2 lacks.

    eos is GPT-2's own <|endoftext|>. Nothing is unknown. Case and punctuation are kept; a run of white space becomes
    one space, none at the ends. A word within a caption is encoded with the space before it, as in GPT-2's training
    text, the first one without. `path` is a folder with tokenizer.json, or vocab.json and merges.txt; null: from the
    hub. `segmenter` is for the scores alone. Raises `UserError` if the files cannot be had.
    """

    unk_id = None

    def __init__(self, *, path: str | None, segmenter: str) -> None:
        find_segmenter(segmenter)
        try:
            self._use(read_tokenizer(path or _HUB))
        except ValueError as error:
            raise UserError(
                f"vocab=gpt2 has no tokenizer ({error}): download vocab.json and merges.txt of "
                f"huggingface.co/{_HUB} into a folder and pass vocab.path=FOLDER"
            ) from None

    def _use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self._pieces = tokenizer, SubwordCache(tokenizer)
        self.eos_id = special_id(tokenizer, "<|endoftext|>")
        self.bos_id = tokenizer.get_vocab_size()
        self.pad_id = self.bos_id + 1

    def __len__(self) -> int:
        return self.pad_id + 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ids."""
        first, *rest = text.split() or [""]
        # No piece reaches over a space, so words can be looked up one by one.
        ids = list(self._pieces[first])
        for word in rest:
            ids += self._pieces[f" {word}"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos; invalid bytes become U+FFFD."""
        kept = []
        for index in ids:
            if index == self.eos_id:
                break
            if index < self.bos_id:
                kept.append(index)
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
