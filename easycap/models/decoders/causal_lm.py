"""A causal language model that reads image tokens as if they were words: the project's own captioner.

image tokens  [i1 ... iK]  [bos  w1  w2 ... ]
               |      |      |    |   |
               GPT-2's hidden layer, width D
                             |    |   |
logits                       w1   w2  w3 ...      the loss is on the words only
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from easycap.models.decoders.checks import check_dropout, check_positive
from easycap.models.decoders.language_models import (
    Tune,
    check_architecture,
    check_sizes,
    gpt2,
    load,
    set_tuning,
    untrained,
)
from easycap.models.decoders.word_embedding import check_embedding, start_words
from easycap.registry import register
from easycap.types import Memory, Output

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CausalLMState:
    """Keys and values of everything read so far, one (keys, values) pair of (B,heads,L,d) per layer.

    mask (B,L) is False for padded memory slots. The tensors are never written to: the language model appends to
    copies, so a state can be selected from and used any number of times. Where gradients are checkpointed there are
    no keys and values: `inputs` (B,L,D) is what was read, to be read again.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    mask: torch.Tensor
    inputs: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> CausalLMState:
        layers = tuple(
            (keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers
        )
        inputs = None if self.inputs is None else self.inputs.index_select(0, rows)
        return CausalLMState(layers, self.mask.index_select(0, rows), inputs)


@register("decoder", "causal_lm")
class CausalLM(nn.Module):
    """A language model with memory slots in front of the words; memory (N,M,D) has the model's own width D.

    Any causal language model of transformers that keeps keys and values (GPT-2, Llama, SmolLM, Qwen, ...): `pretrained`
    (a name on the hub or a local folder), or untrained, by `architecture` (its config, `model_type` among it) or, with
    that None, a GPT-2 of the given sizes. Sizes of None are the model's own, GPT-2 small's if it is a GPT-2 by sizes;
    others must be the weights' own. `dropout` is set wherever the family has one.

    The word embedding is sized to the vocabulary and starts random, or, with `embedding` pretrained, at the weights'
    own: `pieces` says for each word which of their ids it consists of. `tune` says what is trained: all; lora, matrices
    of rank `lora_rank` scaled by `lora_alpha` / `lora_rank`; none, which also keeps its dropout off. A random table is
    trained in any case. Positions count valid slots only, so a masked memory slot changes nothing. Raises `ValueError`
    for sizes that do not fit or weights that cannot be had.
    """

    prefix = True

    def __init__(
        self,
        *,
        width: int | None,
        num_layers: int | None,
        num_heads: int | None,
        max_positions: int | None,
        max_words: int,
        dropout: float,
        pretrained: str | None,
        architecture: dict[str, Any] | None,
        embedding: str,
        tune: Tune,
        lora_rank: int,
        lora_alpha: float,
        vocab_size: int,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        pieces: list[list[int]] | None,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
        given = {name: value for name, value in sizes.items() if value is not None}
        check_positive("decoder", **given, max_words=max_words)
        check_dropout(dropout)
        check_embedding(embedding, pretrained)
        special = {"pad_token_id": pad_id, "bos_token_id": bos_id, "eos_token_id": eos_id}
        if pretrained is not None:
            self.lm = load(pretrained, dropout=dropout)
            ends = {
                special[name]: getattr(self.lm.config, name, None)
                for name in ("bos_token_id", "eos_token_id")
            }
            start_words(self.lm, vocab_size, pieces, ends)
            self.lm.config.update(special)
            if architecture is not None:
                check_architecture(self.lm, architecture, pretrained)
        else:
            if width and num_heads and width % num_heads:
                raise ValueError(f"decoder.num_heads={num_heads} must divide decoder.width={width}")
            if tune is not Tune.all and architecture is None:
                raise ValueError(
                    f"decoder.tune={tune.name} would freeze random weights: set decoder.pretrained, or decoder.tune=all"
                )
            architecture = architecture or gpt2(sizes, max_positions)
            self.lm = untrained(architecture, vocab_size=vocab_size, special=special, dropout=dropout)
        check_sizes(self.lm, sizes)
        set_tuning(self.lm, tune, new_words=pieces is None, rank=lora_rank, alpha=lora_alpha)
        self._frozen, self._attention_for, self._reads_again = tune is Tune.none, "", False
        self.memory_dim = self.lm.config.hidden_size
        self.max_words = max_words
        self.max_positions = self._room(max_positions)

    def _room(self, max_positions: int | None) -> int:
        """Return how many positions there are for image tokens and words."""
        own = getattr(self.lm.config, "max_position_embeddings", None) or max_positions
        if max_positions is not None and own is not None and max_positions > own:
            raise ValueError(
                f"decoder.max_positions={max_positions} is more than the language model's own {own}"
            )
        room = max_positions or own
        if room is None:
            raise ValueError("decoder.max_positions has no value, and the language model names none; set it")
        if self.max_words >= room:
            raise ValueError(
                f"decoder.max_words={self.max_words} leaves no room for image tokens in max_positions={room}"
            )
        return room

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass.

        In training, transformers then keeps no keys and values: the memory is read again with each of its captions.
        """
        # newer versions of transformers warn of the old name
        enable = getattr(self.lm, "activation_checkpointing_enable", self.lm.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        self._reads_again = True
        logger.info("gradient checkpointing: image tokens are read once per caption, not once per image")

    def train(self, mode: bool = True) -> CausalLM:
        super().train(mode)
        if self._frozen:
            self.lm.eval()
        return self

    @property
    def word_table(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def start(self, memory: Memory) -> CausalLMState:
        self._pick_attention(memory.tokens.device.type)
        positions = self.max_positions - self.max_words
        if memory.tokens.shape[1] > positions:
            raise ValueError(
                f"{memory.tokens.shape[1]} memory slots do not fit: the decoder has room for {positions} "
                f"(decoder.max_positions={self.max_positions} less decoder.max_words={self.max_words}); "
                "lower image_tokens.count, tags.max_words or draft.max_words, or raise decoder.max_positions"
            )
        if self._reads_again and self.training:
            return CausalLMState((), memory.mask, memory.tokens)
        cache = DynamicCache()
        self.lm.base_model(
            inputs_embeds=memory.tokens,
            attention_mask=memory.mask.long(),
            position_ids=(memory.mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        return CausalLMState(_layers(cache), memory.mask)

    def _pick_attention(self, device: str) -> None:
        # On a CPU, torch's fused attention has a backward pass that costs twice the plain matrix products' at
        # the lengths of captions (experiments/speed).
        if device != self._attention_for:
            self.lm.set_attn_implementation("eager" if device == "cpu" else "sdpa")
            self._attention_for = device

    def forward(self, words: torch.Tensor, state: CausalLMState) -> Output:
        logits, _ = self._read(words, state, keep_cache=False)
        return Output(logits)

    def step(self, words: torch.Tensor, state: CausalLMState) -> tuple[torch.Tensor, CausalLMState]:
        logits, state = self._read(words.unsqueeze(1), state, keep_cache=True)
        return logits[:, -1], state

    def _read(
        self, words: torch.Tensor, state: CausalLMState, *, keep_cache: bool
    ) -> tuple[torch.Tensor, CausalLMState]:
        mask = torch.cat([state.mask, state.mask.new_ones(words.shape)], dim=1)
        if state.inputs is not None:
            return self._read_again(words, state.inputs, mask)
        cache = DynamicCache(ddp_cache_data=state.layers)
        positions = mask.cumsum(1)[:, -words.shape[1] :] - 1
        outputs = self.lm(
            input_ids=words,
            past_key_values=cache,
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=True,
        )
        return outputs.logits, CausalLMState(_layers(cache), mask) if keep_cache else state

    def _read_again(
        self, words: torch.Tensor, before: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, CausalLMState]:
        inputs = torch.cat([before, self.lm.get_input_embeddings()(words).to(before.dtype)], dim=1)
        outputs = self.lm(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=words.shape[1],
        )
        return outputs.logits, CausalLMState((), mask, inputs)


def _layers(cache: DynamicCache) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return tuple((layer.keys, layer.values) for layer in cache.layers)
