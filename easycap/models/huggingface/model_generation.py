"""The model's own generation in transformers, with the settings of conf/decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.huggingface.image_text_model import Asked, ImageTextModel, selected
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.types import Generated
from easycap.utils.transformers_adapter import quiet

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
            words = generate(decoder, memory, **self.settings)
        return Generated(words, torch.full((len(words),), torch.nan, device=device))

    def endless(self) -> ModelGeneration:
        """Return the same with captions of the greatest length, to count what they cost."""
        return ModelGeneration(
            self.settings | {"min_new_tokens": self.settings["max_new_tokens"]}, seed=self._seed
        )


@torch.no_grad()
def generate(captioner: ImageTextModel, asked: Asked, **settings: Any) -> torch.Tensor:
    """Return what a model's own generation writes about N images: words (N x samples,T), padded after the end.

    `settings` are those of transformers' `generate`. Images that do not fit into a GPU's memory at once are halved.
    """
    count = len(asked.images)
    try:
        return _generate(captioner, asked, settings)
    except torch.OutOfMemoryError:
        if count == 1:
            raise
    half = (count + 1) // 2
    parts = [generate(captioner, _part(asked, first, first + half), **settings) for first in (0, half)]
    return nn.utils.rnn.pad_sequence(
        [row for part in parts for row in part], batch_first=True, padding_value=captioner.vocabulary.pad_id
    )


def _generate(captioner: ImageTextModel, asked: Asked, settings: Mapping[str, Any]) -> torch.Tensor:
    tokens = captioner.vocabulary
    given = captioner.as_weights(captioner.prompts(asked.images))
    first = given["decoder_input_ids" if tokens.is_encoder_decoder else "input_ids"]
    ends: dict[str, Any] = {}
    if tokens.config.model_type == "blip":  # its generation drops the last token and knows its ends
        end = first.new_full((len(first), 1), tokens.eos_id)
        given["input_ids"] = torch.cat([first, end], 1)
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    else:
        pad = tokens.pad_id if tokens.pad_id < tokens.num_own else tokens.eos_id
        ends = {"eos_token_id": tokens.end_ids, "pad_token_id": pad}
    with quiet(), captioner.seeing(asked, torch.arange(len(asked.images), device=first.device)):
        found = captioner.model.generate(**given, **settings, **ends)
    start = first.repeat_interleave(len(found) // len(first), 0)
    if found.shape[1] >= start.shape[1] and torch.equal(found[:, : start.shape[1]], start):
        found = found[:, start.shape[1] - captioner.kept :]
    return _ended(found, tokens)


def _ended(words: torch.Tensor, tokens: ModelTokens) -> torch.Tensor:
    """words (B,T) as generated -> the same with one kind of end and padding after it."""
    is_end = torch.isin(words, torch.tensor(tokens.end_ids, device=words.device))
    words = words.masked_fill(is_end, tokens.eos_id)
    after = is_end.cumsum(1) - is_end.long() > 0
    return words.masked_fill(after, tokens.pad_id)


def _part(asked: Asked, first: int, last: int) -> Asked:
    images = asked.images[first:last]
    index = torch.arange(first, first + len(images), device=images.device)
    return Asked(images, None if asked.seen is None else selected(asked.seen, index))
