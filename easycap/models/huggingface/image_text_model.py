"""A captioner of transformers behind the interface of our own: images and words in, logits out.

Shape legend: N images, B rows (captions), P tokens of the prompt, T words, V vocabulary of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import nn

from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.types import Features, Inputs, Output
from easycap.utils.image_text_adapter import tower_of, tower_output
from easycap.utils.processed_images import FEATURES, OF_TOKENS, ProcessedImages
from easycap.utils.transformers_adapter import checkpoint_gradients

# Types of models whose tower can be called beforehand, once for all captions of an image.
_SHARING = ("vision-encoder-decoder", "pix2struct", "blip", "git", "llava", "fast_vlm")
# Of these, those that read nothing of it but the last hidden state, (N,R,C) of one R, so that it can be cached.
CACHING = ("vision-encoder-decoder", "blip", "git")


@dataclass(frozen=True)
class Asked:
    """What the model is asked about N images; `seen` is the output of its vision tower, where images share it."""

    images: ProcessedImages
    seen: Any = None

    @property
    def tokens(self) -> ProcessedImages:
        """Return the images: `len(memory.tokens)` is their number, for generators as for any memory."""
        return self.images


@dataclass(frozen=True)
class Written:
    """State of a caption being written for B rows: which image, and the words so far (B,t)."""

    asked: Asked
    rows: torch.Tensor
    words: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> Written:
        """Return the state of these rows (B',)."""
        words = None if self.words is None else self.words[rows]
        return replace(self, rows=self.rows[rows], words=words)


class ImageTextModel(nn.Module):
    """A model of transformers as a captioner and as its own decoder.

    Teacher forcing, the losses and our generation read it through `forward`, `start` and `step`; `step` computes the
    whole caption anew for each word, as not all kinds can continue from keys and values alike.
    """

    no_attention = (
        "captioner=huggingface has no attention maps: draw those of a captioner of easycap's own parts"
    )
    prefix = False
    memory_dim = 0

    def __init__(
        self, model: Any, tokens: ModelTokens, *, max_length: int, tune_tower: bool, keep_prompt: bool = False
    ) -> None:
        super().__init__()
        self.model, self.vocabulary, self.max_length = model, tokens, max_length
        self._tower_path, tower = tower_of(model)
        self._tune_tower, self.encoder_frozen = tune_tower, False
        self.kept = (
            tokens.start_ids().shape[1] - 1 if keep_prompt else 0
        )  # tokens of the prompt that are printed
        cast(Any, tower).preprocessing = None  # the processor's work, done before

    # ------------------------------------------------------------------------- what training asks of a captioner

    @property
    def encoder(self) -> nn.Module:
        """Return the vision tower."""
        return self.model.get_submodule(self._tower_path)

    @property
    def decoder(self) -> Self:
        """Return the model itself."""
        return self

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or release the vision tower; with LoRA it is always frozen."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(self._tower_is_trained)
        self.train(self.training)

    def fold_encoder(self, num_images: int) -> None:
        """Do nothing: vision towers have no BatchNorm to fold."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self._tower_is_trained:
            self.encoder.eval()
        return self

    @property
    def _tower_is_trained(self) -> bool:
        return self._tune_tower and not self.encoder_frozen

    def checkpoint_gradients(self) -> None:
        """Turn on transformers' own gradient checkpointing."""
        checkpoint_gradients(self.model)

    # ---------------------------------------------------------------------------------------------- images

    def features_of(self, inputs: Inputs) -> Any:
        """Return what the vision tower makes of N images; None where one pass over them gives no output for each."""
        if self.model.config.model_type not in _SHARING:
            return None
        images = cast(ProcessedImages, inputs.images)
        found = images.batch(0)
        if FEATURES in found:
            return tower_output(self.as_weights({FEATURES: found[FEATURES]})[FEATURES])
        pixels = found.get("pixel_values", found.get("flattened_patches"))
        if pixels is None or len(pixels) != len(images) or pixels.ndim == 5:  # packed, or tiles of each image
            return None
        names = (
            "pixel_values",
            "flattened_patches",
            *(["attention_mask"] if "flattened_patches" in found else ()),
        )
        given: dict[str, Any] = {name: found[name] for name in names if name in found}
        if self.model.config.model_type == "llava":  # reads an inner layer
            given["output_hidden_states"] = True
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_is_trained):
            return self.encoder(**self.as_weights(given))

    @property
    def features_can_be_cached(self) -> bool:
        """Whether `encode` is what the model sees of images."""
        return self.model.config.model_type in CACHING

    def encode(self, images: ProcessedImages) -> Features:
        """Return what the vision tower makes of N images, for models whose features can be cached."""
        patches = self.features_of(Inputs(cast(Any, images))).last_hidden_state
        return Features(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool), None)

    def build_memory(self, inputs: Inputs, features: Any = None) -> Asked:
        """Return what the model is asked about N images."""
        seen = self.features_of(inputs) if features is None else features
        return Asked(cast(ProcessedImages, inputs.images), seen)

    def as_weights(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the same with floating-point tensors in the number format of the weights."""
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        return {
            name: value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in given.items()
        }

    @contextmanager
    def seeing(self, asked: Asked, rows: torch.Tensor) -> Iterator[None]:
        """Within this context the vision tower answers with what it has seen of the images of `rows` (B,)."""
        if asked.seen is None:
            yield
            return

        def answer(*given: Any, **named: Any) -> Any:
            pixels = next(value for value in (*given, *named.values()) if torch.is_tensor(value))
            index = rows.repeat_interleave(
                len(pixels) // len(rows)
            )  # generation repeats images for its beams
            return selected(asked.seen, index)

        tower = cast(Any, self.encoder)
        tower.forward = answer
        try:
            yield
        finally:
            del tower.forward

    # ----------------------------------------------------------------------------------------------- words

    def forward(
        self,
        inputs: Any,
        input_ids: Any = None,
        rows: torch.Tensor | None = None,
        own_words: torch.Tensor | None = None,
        real: torch.Tensor | None = None,
    ) -> Output:
        """As a captioner (inputs of N images, input_ids (B,T), rows (B,)), or as a decoder (words (B,T), state), return
        logits (B,T,V) for the word after each.

        The first of the words, bos, stands for the model's own start or prompt. Padding comes after the words, where
        `real` is False; it is computed, and its logits mean nothing.
        """
        if isinstance(inputs, torch.Tensor):
            return Output(self._logits(inputs, input_ids))
        assert rows is not None
        assert own_words is None, "scheduled sampling is refused before"
        return Output(self._logits(input_ids, self.start(self.build_memory(inputs)).select(rows)))

    def start(self, memory: Asked) -> Written:
        """Return the state before the first word."""
        return Written(memory, torch.arange(len(memory.images), device=memory.images.device))

    def step(self, words: torch.Tensor, state: Written) -> tuple[torch.Tensor, Written]:
        """words (B,) -> logits (B,V) of the next word and the next state."""
        so_far = (
            words.unsqueeze(1) if state.words is None else torch.cat([state.words, words.unsqueeze(1)], 1)
        )
        return self._logits(so_far, state)[:, -1], replace(state, words=so_far)

    def _logits(self, words: torch.Tensor, state: Written) -> torch.Tensor:
        """words (B,T) -> logits (B,T,V); ids that the model's table lacks are padding, which nothing real reads."""
        asked, rows = state.asked, state.rows
        given = self.as_weights(self.prompts(asked.images.select(rows.tolist())))
        tail = words[:, 1:].masked_fill(words[:, 1:] >= self.vocabulary.num_own, 0)
        length = words.shape[1]
        if self.vocabulary.is_encoder_decoder:
            first = given.pop("decoder_input_ids")
            given["decoder_input_ids"] = torch.cat([first, tail], 1)
        else:
            first = given["input_ids"]
            given |= {name: _continued(name, given[name], tail) for name in OF_TOKENS if name in given}
        with self.seeing(asked, rows):
            logits = self.model(**given, use_cache=False).logits
        # Before the words there may be image tokens and the prompt, whose last token predicts the first word.
        logits = logits[:, -(first.shape[1] + length - 1) :][:, first.shape[1] - 1 :]
        spare = logits.new_full((*logits.shape[:2], len(self.vocabulary) - logits.shape[2]), -torch.inf)
        return torch.cat([logits, spare], 2)

    def prompts(self, images: ProcessedImages) -> dict[str, torch.Tensor]:
        """Return the model's arguments for images; captions continue `input_ids` or `decoder_input_ids` (B,P)."""
        tokenizer_pad = self.vocabulary.tokenizer.pad_token_id
        given = images.batch(0 if tokenizer_pad is None else tokenizer_pad)
        if FEATURES in given:  # the tower, whose answer they are, is still called with pixels
            given["pixel_values"] = given.pop(FEATURES).new_zeros(len(images), 1, 1, 1)
        if self.vocabulary.is_encoder_decoder:
            if self.vocabulary.kind.continues:
                given["decoder_input_ids"] = given.pop("input_ids")
            else:
                start = self.vocabulary.start_ids().to(images.device)
                given["decoder_input_ids"] = start.expand(len(images), -1)
        elif "attention_mask" not in given:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        return given


def _continued(name: str, prompt: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
    """What stands at the prompt's tokens, (B,P), followed by what stands at the words (B,T).

    Of PaliGemma's types 1 marks what is written, and Qwen's 0 marks text.
    """
    if name == "input_ids":
        return torch.cat([prompt, tail], 1)
    value = 0 if name == "mm_token_type_ids" else 1
    return torch.cat([prompt, torch.full_like(tail, value).to(prompt)], 1)


def selected(output: Any, index: torch.Tensor) -> Any:
    """Return the rows `index` of all tensors of a model's output."""
    if torch.is_tensor(output):
        return output[index]
    if isinstance(output, (tuple, list)):
        return type(output)(selected(one, index) for one in output)
    if output is None or not hasattr(output, "items"):
        return output
    return type(output)(**{name: selected(value, index) for name, value in output.items()})
