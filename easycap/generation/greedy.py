"""The most likely word, again and again."""

from __future__ import annotations

from collections.abc import Callable

import torch

from easycap.generation.rollout import most_likely, roll_out
from easycap.generation.rules import make_rules, word_limit
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory


@register("decoding", "greedy")
class Greedy:
    """Takes the most likely word at each step: memory of N images -> Generated of N captions.

    At most `max_words` words, eos counted (None: the decoder's own limit), no eos before `min_words` words,
    no n-gram of `no_repeat_ngram` words twice (0: off) unless its last word is in `may_repeat`. pad and bos
    never appear, unk only if `allow_unk`. `encode` maps text to ids: it finds those of `may_repeat`.
    Raises `ValueError` for settings out of range.
    """

    def __init__(
        self,
        *,
        max_words: int | None,
        min_words: int,
        no_repeat_ngram: int,
        may_repeat: tuple[str, ...],
        allow_unk: bool,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        unk_id: int | None,
        encode: Callable[[str], list[int]],
    ) -> None:
        self.rules = make_rules(
            max_words=max_words,
            min_words=min_words,
            no_repeat_ngram=no_repeat_ngram,
            may_repeat=may_repeat,
            allow_unk=allow_unk,
            pad_id=pad_id,
            bos_id=bos_id,
            eos_id=eos_id,
            unk_id=unk_id,
            encode=encode,
        )
        self.max_words = max_words
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id

    @torch.no_grad()
    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        num_images, device = len(memory.tokens), memory.tokens.device
        return roll_out(
            decoder,
            decoder.start(memory),
            first=torch.full((num_images,), self.bos_id, device=device),
            max_words=word_limit(self.max_words, self.rules.min_words, decoder),
            rules=self.rules,
            choose=most_likely,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
        )
