"""The model's own generation in transformers, with the settings of conf/decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from easycap.errors import UserError
from easycap.models.huggingface.image_text_model import Asked, ImageTextModel
from easycap.types import Generated

_OF_BEAM = ("num_beams", "length_penalty", "early_stopping")
_OF_SAMPLE = ("temperature", "top_k", "top_p")


def settings_of_generation(decoding: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Return the arguments of transformers' `generate` for a checked group of decoding.

    `max_length` is the captioner's, in tokens, end included. Raises `UserError` for what it has not.
    """
    name, longest = decoding["name"], decoding.get("max_length")
    if name not in ("greedy", "beam", "sample"):
        raise UserError(
            f"decoding={name} is not among what models of transformers generate with: use greedy, beam or sample, or "
            "captioner.generation=easycap"
        )
    if decoding.get("may_repeat"):
        raise UserError("decoding.may_repeat is for captioner.generation=easycap: leave it out")
    if longest is not None and longest > max_length:
        raise UserError(
            f"decoding.max_length={longest} is more than captioner.max_length={max_length}: lower it, or raise that"
        )
    settings: dict[str, Any] = {
        "max_new_tokens": longest or max_length,
        "min_new_tokens": decoding["min_length"] or None,
        "no_repeat_ngram_size": decoding["no_repeat_ngram"],
        "do_sample": name == "sample",
        "num_beams": 1,
    }
    if name == "beam":
        settings |= {key: decoding[key] for key in _OF_BEAM}
    if name == "sample":
        settings |= {key: decoding[key] for key in _OF_SAMPLE} | {
            "num_return_sequences": decoding["num_samples"]
        }
    return settings


class ModelGeneration:
    """A `Generator`: what the model is asked about N images -> words (N x samples,T); its scores are not known.

    Random numbers start from `seed`, and from the next number in the next call.
    """

    def __init__(self, settings: Mapping[str, Any], *, seed: int | None = None) -> None:
        self.settings, self._seed = dict(settings), seed

    def __call__(self, decoder: Any, memory: Any) -> Generated:
        assert isinstance(decoder, ImageTextModel)
        assert isinstance(memory, Asked)
        device = memory.images.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if self._seed is not None:
                torch.manual_seed(self._seed)
                self._seed += 1
            words = decoder.generate(memory, **self.settings)
        return Generated(words, torch.full((len(words),), torch.nan, device=device))

    def endless(self) -> ModelGeneration:
        """Return the same with captions of the greatest length, to count what they cost."""
        return ModelGeneration(
            self.settings | {"min_new_tokens": self.settings["max_new_tokens"]}, seed=self._seed
        )
