"""The most likely word, again and again."""

from __future__ import annotations

import torch

from easycap.generation.logits_processors import DecodingSettings
from easycap.generation.rollout import most_likely, roll_out
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory, Vocabulary


@register("decoding", "greedy")
class Greedy:
    """Takes the most likely word at each step: memory of N images -> Generated of N captions.

    Words are restricted by `DecodingSettings`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        shared: DecodingSettings,
    ) -> None:
        self.settings, self.logits_processor = shared, shared.logits_processor(vocabulary)
        self.pad_id, self.bos_id, self.eos_id = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id

    @torch.no_grad()
    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        num_images, device = len(memory.tokens), memory.tokens.device
        return roll_out(
            decoder,
            decoder.start(memory),
            first=torch.full((num_images,), self.bos_id, device=device),
            max_length=self.settings.length_limit(decoder),
            logits_processor=self.logits_processor,
            choose=most_likely,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
        )
