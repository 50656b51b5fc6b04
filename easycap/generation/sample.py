"""Words drawn from the model's distribution, sharpened or truncated."""

from __future__ import annotations

import math

import torch

from easycap.errors import UserError
from easycap.generation.logits_processors import DecodingSettings, top_k_filter, top_p_filter
from easycap.generation.rollout import draw, roll_out
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory, Vocabulary


@register("decoding", "sample")
class Sample:
    """Draws each word at random: memory of N images -> Generated of N x num_samples captions, image by image.

    Words that `DecodingSettings` rules out get no probability. Then logits are divided by `temperature`, the
    `top_k` most likely words are kept (0: all), and of these the fewest whose probabilities sum to `top_p`
    (1: all). Random numbers start from `seed` when this object is made and continue from call to call.
    Raises `UserError` for settings out of range.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        shared: DecodingSettings,
        temperature: float,
        top_k: int,
        top_p: float,
        num_samples: int,
        seed: int,
    ) -> None:
        if not 0 < temperature < math.inf:
            raise UserError(
                f"decoding.temperature={temperature} must be above 0; decoding=greedy is its limit 0"
            )
        if top_k < 0:
            raise UserError(f"decoding.top_k={top_k} must be at least 0 (0: every word)")
        if not 0 < top_p <= 1:
            raise UserError(f"decoding.top_p={top_p} must be above 0 and at most 1 (1: every word)")
        if num_samples < 1:
            raise UserError(f"decoding.num_samples={num_samples} must be at least 1")
        self.settings, self.logits_processor = shared, shared.logits_processor(vocabulary)
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.num_samples, self.seed = num_samples, seed
        self.pad_id, self.bos_id, self.eos_id = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id
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
            max_length=self.settings.length_limit(decoder),
            logits_processor=self.logits_processor,
            choose=self._choose,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
        )

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        scores = scores / self.temperature
        if self.top_k:
            scores = top_k_filter(scores, self.top_k)
        if self.top_p < 1:
            scores = top_p_filter(scores, self.top_p)
        return draw(scores, self._generator)
