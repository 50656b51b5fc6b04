"""GPT-2 (Radford et al. 2019) as `CausalLM` reads it; importing transformers for its own would take seconds.

    h = wte(words) + wpe(positions)                  (B,T,D)
    h = h + attention(layer_norm(h))                 in every block; d = D / heads
    h = h + W gelu(V layer_norm(h))
    logits = wte^T layer_norm(h)                     (B,T,V)

Weights have the names, the shapes and, of one seed, the initial values of transformers' GPT-2: checkpoints of either
load into the other. What the adapter calls is called as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from easycap.utils.native_parts import KeyValueCache, Native, TransposedLinear
from easycap.utils.packed_attention import PACKED, packed_attention

_SIZES = {
    "n_embd": ("hidden_size", 768),
    "n_layer": ("num_hidden_layers", 12),
    "n_head": ("num_attention_heads", 12),
    "n_positions": ("max_position_embeddings", 1024),
}
# Settings for which transformers' GPT-2 allows other values than these.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # one formula
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


@dataclass
class GPT2Config(Native):
    """Sizes, by the names that configs of transformers have."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    inner_size: int
    layer_norm_epsilon: float
    initializer_range: float
    dropout: float
    model_type: str = "gpt2"
    _attn_implementation: str = "eager"

    @classmethod
    def of(cls, architecture: Mapping[str, Any], *, vocab_size: int, dropout: float) -> GPT2Config | None:
        """Return the config of an architecture as transformers writes it, None if it is not a plain GPT-2."""
        if architecture.get("model_type") != "gpt2" or any(
            name in architecture and architecture[name] not in values for name, values in _PLAIN.items()
        ):
            return None
        sizes = {
            name: architecture.get(name, architecture.get(short, default))
            for short, (name, default) in _SIZES.items()
        }
        inner = architecture.get("n_inner") or 4 * sizes["hidden_size"]
        if not all(type(size) is int and size > 0 for size in (*sizes.values(), inner)):
            return None
        if sizes["hidden_size"] % sizes["num_attention_heads"]:
            return None
        return cls(
            **sizes,
            vocab_size=vocab_size,
            inner_size=inner,
            layer_norm_epsilon=float(architecture.get("layer_norm_epsilon", 1e-5)),
            initializer_range=float(architecture.get("initializer_range", 0.02)),
            dropout=dropout,
        )


@dataclass(frozen=True)
class GPT2Output:
    """logits (B,T,V)."""

    logits: torch.Tensor


class _Attention(nn.Module):
    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        width = config.hidden_size
        self.c_attn = TransposedLinear(width, 3 * width)
        self.c_proj = TransposedLinear(width, width)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: torch.Tensor, seen: torch.Tensor | None, cache: KeyValueCache | None
    ) -> torch.Tensor:
        """hidden (B,T,D), seen (B,1,T,L+T) -> (B,T,D)."""
        heads = self.config.num_attention_heads
        query, key, value = (
            part.unflatten(2, (heads, -1)).transpose(1, 2) for part in self.c_attn(hidden).chunk(3, dim=2)
        )
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        dropout = self.attn_dropout.p if self.training else 0.0
        if self.config._attn_implementation == PACKED:
            found, _ = packed_attention(self, query, key, value, None, dropout=dropout)
        elif self.config._attn_implementation == "sdpa":
            found = nn.functional.scaled_dot_product_attention(query, key, value, seen, dropout).transpose(
                1, 2
            )
        else:
            assert seen is not None
            weights = query @ key.mT * query.shape[-1] ** -0.5 + seen
            weights = nn.functional.dropout(weights.softmax(-1).to(value.dtype), dropout, self.training)
            found = (weights @ value).transpose(1, 2)
        return self.resid_dropout(self.c_proj(found.flatten(2)))


class _FeedForward(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = TransposedLinear(config.hidden_size, config.inner_size)
        self.c_proj = TransposedLinear(config.inner_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = nn.functional.gelu(self.c_fc(hidden), approximate="tanh")
        return self.dropout(self.c_proj(inner))


class _Block(nn.Module):
    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = _Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = _FeedForward(config)

    def forward(
        self, hidden: torch.Tensor, seen: torch.Tensor | None, cache: KeyValueCache | None
    ) -> torch.Tensor:
        hidden = self.attn(self.ln_1(hidden), seen, cache) + hidden
        return hidden + self.mlp(self.ln_2(hidden))


class _Layers(nn.Module, Native):
    """Everything but the output layer."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config, self.checkpointing = config, False
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(_Block(config, number) for number in range(config.num_hidden_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Normal weights, those of layers that add to the residual 1/sqrt(2 layers) as large (section 2.3).

        In the order of transformers, which draws these layers twice, so that a seed gives the same model.
        """
        std = self.config.initializer_range

        def draw(module: nn.Module) -> None:
            if isinstance(module, (nn.Embedding, TransposedLinear)):
                module.weight.normal_(std=std)
            elif isinstance(module, (_Attention, _FeedForward)):
                module.c_proj.weight.normal_(std=std / math.sqrt(2 * self.config.num_hidden_layers))

        self.apply(draw)  # to each module after those inside it

    def forward(
        self,
        *,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        use_cache: bool = False,
    ) -> torch.Tensor:
        """Return the last hidden states (B,T,D); see `GPT2.forward`."""
        embedded = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        length = embedded.shape[1]
        if position_ids is None:
            position_ids = torch.arange(length, device=embedded.device)[None]
        hidden = self.drop(embedded + self.wpe(position_ids))
        if attention_mask is None:
            attention_mask = torch.ones(1, length, dtype=torch.bool, device=embedded.device)
        seen = self._seen(attention_mask.bool(), length, hidden.dtype)
        for block in self.h:
            if self.checkpointing and self.training:
                from torch.utils.checkpoint import checkpoint

                hidden = checkpoint(block, hidden, seen, None, use_reentrant=False)
            else:
                hidden = block(hidden, seen, cache if use_cache else None)
        return self.ln_f(hidden)

    def _seen(self, mask: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor | None:
        """Whether each of the last `length` positions T sees each of all L+T, of which mask (B,L+T) is True.

        (B,1,T,L+T): booleans, or for eager attention what is added to its logits; None for packed attention, which
        has its own. Every position sees itself, masked ones too: attention to nothing would be NaN.
        """
        if self.config._attn_implementation == PACKED:
            return None
        places = torch.arange(mask.shape[1], device=mask.device)
        rows = places[-length:, None]
        seen = (mask[:, None, None, :] & (places <= rows)) | (places == rows)
        if self.config._attn_implementation == "sdpa":
            return seen
        added = torch.zeros(seen.shape, dtype=dtype, device=mask.device)
        return added.masked_fill_(~seen, torch.finfo(dtype).min)


class GPT2(nn.Module, Native):
    """A GPT-2 whose output layer is tied to its token embedding."""

    _supports_sdpa = True

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = _Layers(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.initializer_range)
        self.lm_head.weight = self.transformer.wte.weight

    @property
    def base_model(self) -> nn.Module:
        """Return everything but the output layer."""
        return self.transformer

    def forward(
        self, *, cache: KeyValueCache | None = None, logits_to_keep: int = 0, **inputs: Any
    ) -> GPT2Output:
        """Return the logits (B,T,V) of input_ids (B,T) or inputs_embeds (B,T,D), at position_ids (B,T), by default
        from 0.

        They follow the L positions of `cache`, if `use_cache`, which they are added to. attention_mask (B,L+T) is
        False or 0 where a position is not seen; packed attention does not read it. With `logits_to_keep` only so many
        of the last positions have logits.
        """
        hidden = self.transformer(cache=cache, **inputs)
        return GPT2Output(self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden))

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word table."""
        return self.transformer.wte

    def get_output_embeddings(self) -> nn.Linear:
        """Return the output layer."""
        return self.lm_head

    def set_attn_implementation(self, name: str) -> None:
        """Choose "eager" or "sdpa", torch's fused attention."""
        self.config._attn_implementation = name

    def gradient_checkpointing_enable(self, settings: dict[str, Any]) -> None:
        """Compute activations again in the backward pass, and keep no keys and values in training."""
        assert settings == {"use_reentrant": False}
        self.transformer.checkpointing = True


def from_transformers(lm: Any, *, dropout: float) -> Any:
    """Return a language model of transformers as a `GPT2` with its weights; unchanged if it is not a plain GPT-2."""
    config = GPT2Config.of(lm.config.to_dict(), vocab_size=lm.config.vocab_size, dropout=dropout)
    if config is None:
        return lm
    with torch.device("meta"):
        own = GPT2(config)
    own.load_state_dict(lm.state_dict(), assign=True)
    own.lm_head.weight = own.transformer.wte.weight
    return own
