"""A causal language model that reads image tokens as if they were words: the project's own captioner.

image tokens  [i1 ... iK]  [bos  w1  w2 ... ]
               |      |      |    |   |
               GPT-2's hidden layer, width D
                             |    |   |
logits                       w1   w2  w3 ...      the loss is on the words only
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_dropout, check_positive
from easycap.models.decoders.language_models import (
    Tune,
    check_architecture,
    check_sizes,
    gpt2,
    own_gpt2,
    set_tuning,
    untrained_lm,
)
from easycap.models.decoders.merged_lora import merged_where_it_pays
from easycap.models.decoders.token_embedding import check_embedding, start_words
from easycap.registry import register
from easycap.types import Memory, Output
from easycap.utils import transformers_adapter as adapter
from easycap.utils.attention_adapter import can_pack, pick_attention, read_packed

logger = logging.getLogger(__name__)

# exp(-10000) is 0 in every precision, and unlike -inf times 0 is a number.
_NO_WORD = -1e4


@dataclass(frozen=True)
class CausalLMState:
    """Keys and values of everything read so far, one (keys, values) pair of (B,heads,L,d) per layer.

    mask (B,L) is False for padded memory positions. The tensors are never written to: the language model appends to
    copies, so a state can be selected from and used any number of times. Where gradients are checkpointed there are
    no keys and values: `inputs` (B,L,D) is what was read, to be read again. `last` (B,D) is the last valid memory
    position where that is still to be read, in the place of bos; its place among the others is then masked.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    mask: torch.Tensor
    inputs: torch.Tensor | None = None
    last: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> CausalLMState:
        layers = tuple(
            (keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers
        )
        inputs, last = (None if x is None else x.index_select(0, rows) for x in (self.inputs, self.last))
        return CausalLMState(layers, self.mask.index_select(0, rows), inputs, last)


@register("decoder", "causal_lm")
class CausalLM(nn.Module):
    """A language model with memory positions in front of the words; memory (N,M,D) has the model's own width D.

    Any causal language model of transformers that keeps keys and values (GPT-2, Llama, SmolLM, Qwen, ...): `pretrained`
    (a name on the hub or a local folder), or untrained, by `architecture` (its config, `model_type` among it) or, with
    that None, a GPT-2 of the given sizes. Sizes of None are the model's own, GPT-2 small's if it is a GPT-2 by sizes;
    others must be the weights' own. `dropout` is set wherever the family has one.

    The word embedding is sized to the vocabulary and starts at the weights' own, or with `embedding` random untrained:
    `subword_ids` has, for each word, the ids of it in the weights' vocabulary. `tune` says what is trained: all; lora,
    matrices of rank `lora_rank` scaled by `lora_alpha` / `lora_rank`; none, which also keeps its dropout off. A random
    table is trained in any case. Without `predict_special`, pad and bos get probability 0: a language model whose
    vocabulary lacks them gives all other words the probabilities it always gave them. Without `bos` nothing stands
    between the memory and the words: the last valid position is read in the place of bos, and the first word is what
    the model predicts after it (ClipCap, rmokady/CLIP_prefix_caption at 1ad805a, train.py:232-241 and 321-324). Only
    valid positions are counted, so a masked one changes nothing. Raises `UserError` for sizes that do not fit or
    weights that cannot be had.
    """

    prefix = True
    lm: adapter.LanguageModel

    def __init__(
        self,
        vocab_size: int,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        subword_ids: list[list[int]] | None,
        *,
        width: int | None,
        num_layers: int | None,
        num_heads: int | None,
        max_positions: int | None,
        max_length: int,
        bos: bool,
        dropout: float,
        pretrained: str | None,
        architecture: dict[str, Any] | None,
        embedding: str,
        tune: Tune,
        lora_rank: int,
        lora_alpha: float,
        predict_special: bool,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
        given = {name: value for name, value in sizes.items() if value is not None}
        check_positive("decoder", **given, max_length=max_length)
        check_dropout(dropout)
        check_embedding(embedding, pretrained)
        special = {"pad_token_id": pad_id, "bos_token_id": bos_id, "eos_token_id": eos_id}
        if pretrained is not None:
            self.lm = adapter.load(pretrained, dropout=dropout)
            ends = {
                special[name]: getattr(self.lm.config, name, None)
                for name in ("bos_token_id", "eos_token_id")
            }
            start_words(self.lm, vocab_size, subword_ids, ends, pad_id=pad_id)
            self.lm.config.update(special)
            if architecture is not None:
                check_architecture(self.lm, architecture, pretrained)
            self.lm = own_gpt2(self.lm, tune, dropout=dropout)
        else:
            if width and num_heads and width % num_heads:
                raise UserError(f"decoder.num_heads={num_heads} must divide decoder.width={width}")
            if tune is not Tune.all and architecture is None:
                raise UserError(
                    f"decoder.tune={tune.name} would freeze random weights: set decoder.pretrained, or decoder.tune=all"
                )
            architecture = architecture or gpt2(sizes, max_positions)
            self.lm = untrained_lm(
                architecture, tune, vocab_size=vocab_size, special=special, dropout=dropout
            )
        check_sizes(self.lm, sizes)
        set_tuning(self.lm, tune, new_words=subword_ids is None, rank=lora_rank, alpha=lora_alpha)
        self._frozen, self._attention_for, self._reads_again = tune is Tune.none, "", False
        self._cache_argument = adapter.cache_argument(type(self.lm))
        self.memory_dim = self.lm.config.hidden_size
        self.max_length, self.bos = max_length, bos
        self._impossible = [] if predict_special else [pad_id, bos_id]
        self.max_positions = self._room(max_positions)

    def _room(self, max_positions: int | None) -> int:
        """Return how many positions there are for image tokens and words."""
        own = adapter.max_positions(self.lm.config) or max_positions
        if max_positions is not None and own is not None and max_positions > own:
            raise UserError(
                f"decoder.max_positions={max_positions} is more than the language model's own {own}"
            )
        room = max_positions or own
        if room is None:
            raise UserError(
                "decoder.max_positions has no value, and the language model's config gives none: set it"
            )
        if self.max_length >= room:
            raise UserError(
                f"decoder.max_length={self.max_length} leaves no room for image tokens in max_positions={room}"
            )
        return room

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass.

        In training, transformers then keeps no keys and values: the memory is read again with each of its captions.
        """
        adapter.checkpoint_gradients(self.lm)
        self._reads_again = True
        logger.info("gradient checkpointing: image tokens are read once per caption, not once per image")

    def generating(self, num_images: int) -> AbstractContextManager[None]:
        """Return the context to generate captions of at least `num_images` images in, without gradients."""
        return merged_where_it_pays(self.lm, num_images)

    def train(self, mode: bool = True) -> CausalLM:
        super().train(mode)
        if self._frozen:
            self.lm.eval()
        return self

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def start(self, memory: Memory) -> CausalLMState:
        before = self._before_words(memory)
        if self._reads_again and self.training:
            return replace(before, inputs=memory.tokens)
        _, layers = adapter.read(
            self.lm.base_model,
            (),
            argument=self._cache_argument,
            mask=before.mask,
            positions=(before.mask.cumsum(1) - 1).clamp(min=0),
            inputs_embeds=memory.tokens,
        )
        return replace(before, layers=layers)

    def _before_words(self, memory: Memory) -> CausalLMState:
        """Return the state without what is computed of the memory; `UserError` if it does not fit."""
        self._pick_attention(memory.tokens.device.type)
        positions = self.max_positions - self.max_length
        if memory.tokens.shape[1] > positions:
            raise UserError(
                f"{memory.tokens.shape[1]} memory positions do not fit: the decoder has room for {positions} "
                f"(decoder.max_positions={self.max_positions} less decoder.max_length={self.max_length}); "
                "lower image_tokens.count, tags.max_length or draft.max_length, or raise decoder.max_positions"
            )
        mask, last = (memory.mask, None) if self.bos else _without_last(memory)
        return CausalLMState((), mask, last=last)

    def _pick_attention(self, device: str) -> None:
        if device != self._attention_for:
            pick_attention(self.lm, device)
            self._attention_for = device

    def forward(self, words: torch.Tensor, state: CausalLMState) -> Output:
        logits, _ = self._read(words, state, keep_cache=False)
        return Output(logits)

    def read_real(
        self, words: torch.Tensor, real: torch.Tensor, memory: Memory, rows: torch.Tensor
    ) -> Output:
        """As `forward` after memory (N,M,D), of which rows (B,) names each caption's, but with logits (P,V) of the P
        words where `real` (B,T) is True, if padding can be skipped.
        """
        before = self._before_words(memory)
        if (self._reads_again and self.training) or not can_pack(self.lm):
            return self(words, self.start(memory).select(rows))
        embedded = self._embed(words, before.select(rows))[real]
        logits = read_packed(self.lm, memory.tokens, before.mask, embedded=embedded, real=real, rows=rows)
        return Output(self._possible(logits))

    def step(self, words: torch.Tensor, state: CausalLMState) -> tuple[torch.Tensor, CausalLMState]:
        logits, state = self._read(words.unsqueeze(1), state, keep_cache=True)
        return logits[:, -1], state

    def _read(
        self, words: torch.Tensor, state: CausalLMState, *, keep_cache: bool
    ) -> tuple[torch.Tensor, CausalLMState]:
        mask = torch.cat([state.mask, state.mask.new_ones(words.shape)], dim=1)
        if state.inputs is not None:
            return self._read_again(self._embed(words, state), state.inputs, mask)
        read = {"input_ids": words} if state.last is None else {"inputs_embeds": self._embed(words, state)}
        outputs, layers = adapter.read(
            self.lm,
            state.layers,
            argument=self._cache_argument,
            mask=mask,
            positions=mask.cumsum(1)[:, -words.shape[1] :] - 1,
            **read,
        )
        return self._possible(outputs.logits), CausalLMState(layers, mask) if keep_cache else state

    def _possible(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (...,V) -> the same, those of words that never follow another lowered to a probability of 0."""
        if not self._impossible:
            return logits
        index = torch.tensor(self._impossible).to(logits.device, non_blocking=True)
        return logits.index_fill(-1, index, _NO_WORD)

    def _embed(self, words: torch.Tensor, state: CausalLMState) -> torch.Tensor:
        """words (B,T) -> (B,T,D), with the memory's last position in place of bos if the decoder has no bos."""
        embedded = self.lm.get_input_embeddings()(words)
        if state.last is None:
            return embedded
        return torch.cat([state.last.unsqueeze(1).to(embedded.dtype), embedded[:, 1:]], dim=1)

    def _read_again(
        self, embedded: torch.Tensor, before: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, CausalLMState]:
        inputs = torch.cat([before, embedded.to(before.dtype)], dim=1)
        outputs = self.lm(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=embedded.shape[1],
        )
        return self._possible(outputs.logits), CausalLMState((), mask, inputs)


def _without_last(memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the memory's mask (N,M) without the last valid position of each row, and the token there (N,D)."""
    positions = torch.arange(memory.mask.shape[1], device=memory.mask.device)
    last = torch.where(memory.mask, positions, -1).argmax(1)
    return memory.mask & (positions != last.unsqueeze(1)), memory.tokens[torch.arange(last.shape[0]), last]
