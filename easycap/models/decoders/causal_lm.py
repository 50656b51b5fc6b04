"""A causal language model that reads image tokens as if they were words: the project's own captioner.

image tokens  [i1 ... iK]  [bos  w1  w2 ... ]
               |      |      |    |   |
               GPT-2's hidden layer, width D
                             |    |   |
logits                       w1   w2  w3 ...      the loss is on the words only
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GPT2Config, PretrainedConfig

from easycap.hub import hub
from easycap.models.decoders.checks import check_positive
from easycap.models.decoders.word_embedding import check_embedding, start_words
from easycap.registry import register
from easycap.types import Memory, Output


@dataclass(frozen=True)
class CausalLMState:
    """Keys and values of everything read so far, one (keys, values) pair of (B,heads,L,d) per layer.

    mask (B,L) is False for padded memory slots. The tensors are never written to: the language model appends to
    copies, so a state can be selected from and used any number of times.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    mask: torch.Tensor

    def select(self, rows: torch.Tensor) -> CausalLMState:
        layers = tuple(
            (keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers
        )
        return CausalLMState(layers, self.mask.index_select(0, rows))


@register("decoder", "causal_lm")
class CausalLM(nn.Module):
    """GPT-2 with memory slots in front of the words; memory (N,M,D) has the model's own width D.

    Built untrained at the given size, or, with `pretrained` (a name on the hub or a local folder), from those
    weights; the size must then be the weights' own. The word embedding is sized to the vocabulary, tied to the
    output layer, and starts random, or, with `embedding` pretrained, at the weights' own: `pieces` says for each word
    which of their ids it consists of. Positions count valid slots only, so a masked memory slot changes nothing.
    Raises `ValueError` for sizes that do not fit or weights that cannot be had.
    """

    def __init__(
        self,
        *,
        width: int,
        num_layers: int,
        num_heads: int,
        max_positions: int,
        max_words: int,
        dropout: float,
        pretrained: str | None,
        embedding: str,
        vocab_size: int,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        pieces: list[list[int]] | None,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
        check_positive("decoder", **sizes, max_positions=max_positions, max_words=max_words)
        if width % num_heads:
            raise ValueError(f"decoder.num_heads={num_heads} must divide decoder.width={width}")
        if max_words >= max_positions:
            raise ValueError(
                f"decoder.max_words={max_words} leaves no room for image tokens in max_positions={max_positions}"
            )
        check_embedding(embedding, pretrained)
        special = {"pad_token_id": pad_id, "bos_token_id": bos_id, "eos_token_id": eos_id}
        if pretrained is None:
            config = GPT2Config(
                vocab_size=vocab_size,
                n_embd=width,
                n_layer=num_layers,
                n_head=num_heads,
                n_positions=max_positions,
                activation_function="gelu_pytorch_tanh",  # GPT-2's own formula in one kernel
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                resid_pdrop=dropout,
                **special,
            )
            self.lm = AutoModelForCausalLM.from_config(config)
        else:
            self.lm = _load(pretrained, vocab_size, special, sizes, pieces)
        self._attention_for = ""
        self.memory_dim = width
        self.max_words = max_words
        self.max_positions = max_positions

    def start(self, memory: Memory) -> CausalLMState:
        self._pick_attention(memory.tokens.device.type)
        positions = self.max_positions - self.max_words
        if memory.tokens.shape[1] > positions:
            raise ValueError(
                f"{memory.tokens.shape[1]} memory slots do not fit: the decoder has room for {positions} "
                f"(decoder.max_positions={self.max_positions} less decoder.max_words={self.max_words}); "
                "lower image_tokens.count or raise decoder.max_positions"
            )
        outputs = self.lm.base_model(
            inputs_embeds=memory.tokens,
            attention_mask=memory.mask.long(),
            position_ids=(memory.mask.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
        )
        return CausalLMState(_layers(outputs.past_key_values), memory.mask)

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
        cache = DynamicCache(ddp_cache_data=state.layers)
        mask = torch.cat([state.mask, state.mask.new_ones(words.shape)], dim=1)
        positions = mask.cumsum(1)[:, -words.shape[1] :] - 1
        outputs = self.lm(
            input_ids=words,
            past_key_values=cache,
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=True,
        )
        return outputs.logits, CausalLMState(_layers(cache), mask) if keep_cache else state


def _layers(cache: DynamicCache) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def _load(
    source: str,
    vocab_size: int,
    special: dict[str, int],
    sizes: dict[str, int],
    pieces: list[list[int]] | None,
) -> nn.Module:
    try:
        with hub():
            config = AutoConfig.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ValueError(
            f"decoder.pretrained={source!r} cannot be loaded ({reason}): pass a folder with config.json and "
            "model.safetensors (e.g. a download of huggingface.co/openai-community/gpt2), or train from scratch "
            "with decoder.pretrained=null"
        ) from error
    _check_sizes(source, config, sizes)
    ends = {special[name]: getattr(config, name, None) for name in ("bos_token_id", "eos_token_id")}
    start_words(model, vocab_size, pieces, ends)
    model.config.update(special)
    return model


def _check_sizes(source: str, config: PretrainedConfig, sizes: dict[str, int]) -> None:
    actual = {
        "width": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
    }
    wrong = [f"decoder.{name}={value}" for name, value in actual.items() if sizes[name] != value]
    if wrong:
        raise ValueError(
            f"decoder.pretrained={source!r} has other sizes than the config; set {' '.join(wrong)}"
        )
