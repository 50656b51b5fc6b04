"""`captioner=parts` and `captioner=huggingface`: a captioner of our own parts, or a whole one of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch

from easycap.errors import UserError
from easycap.models.decoders.language_models import Tune
from easycap.registry import register
from easycap.utils.segmenters import segmenter as find_segmenter


class Dtype(Enum):
    """The number format of the weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"

    @property
    def of_torch(self) -> torch.dtype:
        """Return torch's name for it."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]


class Generation(Enum):
    """Whose code generates captions: that of the model in transformers, or easycap's, which computes a caption anew
    for every word.
    """

    own = "own"
    easycap = "easycap"


@register("captioner", "parts")
def of_parts(*, word_vectors: str | None) -> None:
    """A captioner is built of encoder, image tokens and decoder, each chosen in its own group.

    Its word embeddings start from the table of the model `word_vectors`, a name on the hub or a folder; None: at random
    (`models/word_vectors.py`).
    """


@register("captioner", "huggingface")
@dataclass(frozen=True, kw_only=True)
class HuggingFaceSettings:
    """A captioner of transformers, with its own processor and tokenizer.

    `model` is a name on the hub or a folder, and `prompt` what it is asked (None: what its kind is usually asked). A
    prompt that it continues is taken off its captions if `remove_prompt`. Images are cut into tiles as the model's own
    processor does, or not at all unless `tiles`. Captions have at most `max_length` tokens, end included. Raises
    `UserError` for settings out of range.
    """

    model: str
    prompt: str | None
    remove_prompt: bool
    tiles: bool
    max_length: int
    tune: Tune
    lora_rank: int
    lora_alpha: float
    dtype: Dtype
    generation: Generation
    segmenter: str

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise UserError(f"captioner.max_length={self.max_length} must be at least 2: a word and the end")
        if self.lora_rank < 1:
            raise UserError(f"captioner.lora_rank={self.lora_rank} must be at least 1")
        if self.generation is Generation.easycap and not self.remove_prompt:
            raise UserError("captioner.remove_prompt=false is for captioner.generation=own: leave it out")
        if self.tune is Tune.all and self.dtype is not Dtype.fp32:
            raise UserError(
                f"captioner.dtype={self.dtype.name} is too coarse for weights in training: set captioner.dtype=fp32 "
                "(trainer.precision sets what is computed in), or captioner.tune=lora"
            )
        find_segmenter(self.segmenter)
