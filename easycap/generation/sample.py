"""Words drawn from the model's distribution, sharpened or truncated."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from easycap.generation.rollout import draw, roll_out
from easycap.generation.rules import keep_top_k, keep_top_p, make_rules, word_limit
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory


@register("decoding", "sample")
class Sample:
    """Draws each word at random: memory of N images -> Generated of N x num_samples captions, image by image.

    Words that `Greedy` would not produce get no probability. Then logits are divided by `temperature`, the
    `top_k` most likely words are kept (0: all), and of these the fewest whose probabilities sum to `top_p`
    (1: all). Random numbers start from `seed` when this object is made and go on from call to call.
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
        temperature: float,
        top_k: int,
        top_p: float,
        num_samples: int,
        seed: int,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        unk_id: int | None,
        encode: Callable[[str], list[int]],
    ) -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(
                f"decoding.temperature={temperature} must be above 0; decoding=greedy is its limit 0"
            )
        if top_k < 0:
            raise ValueError(f"decoding.top_k={top_k} must be at least 0 (0: every word)")
        if not 0 < top_p <= 1:
            raise ValueError(f"decoding.top_p={top_p} must be above 0 and at most 1 (1: every word)")
        if num_samples < 1:
            raise ValueError(f"decoding.num_samples={num_samples} must be at least 1")
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
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.num_samples, self.seed = num_samples, seed
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id
        self._generator: torch.Generator | None = None  # made on the memory's device at the first call

    @torch.no_grad()
    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        num_images, device = len(memory.tokens), memory.tokens.device
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self.seed)
        rows = torch.arange(num_images, device=device).repeat_interleave(self.num_samples)
        return roll_out(
            decoder,
            decoder.start(memory).select(rows),
            first=torch.full_like(rows, self.bos_id),
            max_words=word_limit(self.max_words, self.rules.min_words, decoder),
            rules=self.rules,
            choose=self._choose,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
        )

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        scores = scores / self.temperature
        if self.top_k:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        return draw(scores, self._generator)
