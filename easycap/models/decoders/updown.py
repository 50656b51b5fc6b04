"""Up-Down: one LSTM looks where to attend, a second one writes the words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from easycap.models.checks import check_dropout, check_positive
from easycap.models.decoders.additive_attention import (
    AdditiveAttention,
    AttendedMemory,
    image_mean,
    width_of_memory,
)
from easycap.models.decoders.recurrence import LSTMCell
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.registry import register
from easycap.types import Memory, Output

_INIT_STD = 0.01


class Variant(Enum):
    """paper: the authors' network. ruotianluo: that repository's. See `UpDown`."""

    paper = "paper"
    ruotianluo = "ruotianluo"


@dataclass(frozen=True)
class UpDownState:
    """hidden and cell (B,H) of the attention LSTM (1) and the language LSTM (2).

    image_gates (B,4H) is the share of the mean image in the gates of LSTM 1: the same at each word.
    """

    memory: AttendedMemory
    image_gates: torch.Tensor
    hidden1: torch.Tensor
    cell1: torch.Tensor
    hidden2: torch.Tensor
    cell2: torch.Tensor

    def select(self, rows: torch.Tensor) -> UpDownState:
        tensors = (self.image_gates, self.hidden1, self.cell1, self.hidden2, self.cell2)
        return UpDownState(self.memory.select(rows), *(tensor.index_select(0, rows) for tensor in tensors))


@register("decoder", "updown")
class UpDown(nn.Module):
    """Two LSTMs with attention between them (Anderson et al., 1707.07998, section 3.2, equations 1-7).

        h1_t = LSTM1([h2_t-1 ; mean v ; W_e w_t])            mean over the image's real patches only
        a_t  = softmax over positions i of w^T tanh(W_v v_i + W_h h1_t)
        h2_t = LSTM2([sum_i a_ti v_i ; h1_t])
        p_t+1 = softmax(W_p h2_t + b_p)

    The positions v are regions or patches, and tags or drafts if there are any. `memory_width` null takes the
    encoder's features as they are, as the authors do (`image_tokens=all`); a number asks for a linear map to that
    width first. `segments` names those distinguished by a learned vector.
    As in the authors' release, all states start at zero, weights Gaussian with deviation 0.01, the forget gates'
    biases at 1 and all others at 0; the attention has no biases. That has no dropout; `dropout` applies to word
    embeddings and to h2 before the output layer, as later repositories do.

    `variant` ruotianluo is the network of ImageCaptioning.pytorch (captioning/models/AttModel.py at 4c48a33): the
    positions and the image's mean go through a layer and a ReLU each, of width H, and the attention's keys have a
    bias. There, words go through a ReLU too, and LSTMs and attention have second biases: all the same to the net.
    """

    prefix, skips_padding = False, True

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        *,
        embed_dim: int,
        hidden_dim: int,
        attention_dim: int,
        memory_width: int | None,
        segments: tuple[str, ...],
        max_length: int,
        dropout: float,
        variant: Variant,
    ) -> None:
        super().__init__()
        check_positive(
            "decoder",
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            attention_dim=attention_dim,
            max_length=max_length,
        )
        self.memory_dim, self.max_length = width_of_memory(memory_width, channels), max_length
        self.hidden_dim = hidden_dim
        self.segments = SegmentEmbedding(segments, self.memory_dim)
        embeds = variant is Variant.ruotianluo
        self.embed_patches, self.embed_mean = (
            nn.Linear(self.memory_dim, hidden_dim) if embeds else None for _ in range(2)
        )
        attended = hidden_dim if embeds else self.memory_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.word_gates = nn.Linear(embed_dim, 4 * hidden_dim, bias=False)
        self.image_gates = nn.Linear(attended, 4 * hidden_dim, bias=False)
        self.lstm1 = LSTMCell(input_dim=hidden_dim, hidden_dim=hidden_dim)
        self.attention = AdditiveAttention(
            memory_dim=attended,
            query_dim=hidden_dim,
            attention_dim=attention_dim,
            bias=embeds,
            relu=False,
        )
        self.lstm2 = LSTMCell(input_dim=attended + hidden_dim, hidden_dim=hidden_dim)
        self.output = nn.Linear(hidden_dim, vocab_size)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=_INIT_STD)
        for lstm in (self.lstm1, self.lstm2):
            nn.init.ones_(lstm.forget_bias)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embedding

    def start(self, memory: Memory) -> UpDownState:
        zeros = torch.zeros(memory.tokens.shape[0], self.hidden_dim, device=memory.tokens.device)
        memory = memory._replace(tokens=self.segments(memory.tokens, memory.segments))
        mean = image_mean(memory)
        if self.embed_patches is not None and self.embed_mean is not None:
            mean = self.dropout(self.embed_mean(mean).relu())
            memory = memory._replace(tokens=self.dropout(self.embed_patches(memory.tokens).relu()))
        image_gates = self.image_gates(mean)
        return UpDownState(self.attention.project_memory(memory), image_gates, zeros, zeros, zeros, zeros)

    def forward(self, words: torch.Tensor, state: UpDownState, real: torch.Tensor | None = None) -> Output:
        hidden, attention = [], []
        for word_gates in self._word_gates(words).unbind(1):
            weights, state = self._advance(word_gates, state)
            hidden.append(state.hidden2)
            attention.append(weights)
        read = self.dropout(torch.stack(hidden, 1))
        return Output(self.output(read if real is None else read[real]), torch.stack(attention, 1))

    def step(self, words: torch.Tensor, state: UpDownState) -> tuple[torch.Tensor, UpDownState]:
        _, state = self._advance(self._word_gates(words), state)
        return self.output(self.dropout(state.hidden2)), state

    def _word_gates(self, words: torch.Tensor) -> torch.Tensor:
        """words (B,T) or (B,) -> their share of LSTM 1's gates (B,T,4H) or (B,4H), for all words in one product."""
        return self.word_gates(self.dropout(self.embedding(words)))

    def _advance(self, word_gates: torch.Tensor, state: UpDownState) -> tuple[torch.Tensor, UpDownState]:
        """word_gates (B,4H) -> attention (B,M) and the next state."""
        ahead = word_gates + state.image_gates
        hidden1, cell1 = self.lstm1(state.hidden2, state.hidden1, state.cell1, ahead)
        weights = self.attention(hidden1, state.memory)
        inputs = torch.cat([state.memory.weighted_sum(weights), hidden1], dim=1)
        hidden2, cell2 = self.lstm2(inputs, state.hidden2, state.cell2)
        return weights, UpDownState(state.memory, state.image_gates, hidden1, cell1, hidden2, cell2)
