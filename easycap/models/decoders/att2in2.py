"""Att2in2: a maxout LSTM whose cell input, not its gates, sees what the attention found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from easycap.models.checks import check_dropout, check_positive
from easycap.models.decoders.additive_attention import AdditiveAttention, AttendedMemory
from easycap.models.decoders.recurrence import MaxoutLSTM
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.registry import register
from easycap.types import Memory, Output


@dataclass(frozen=True)
class Att2in2State:
    """hidden and cell (B,H), and the memory of B rows."""

    memory: AttendedMemory
    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, rows: torch.Tensor) -> Att2in2State:
        hidden, cell = self.hidden.index_select(0, rows), self.cell.index_select(0, rows)
        return Att2in2State(self.memory.select(rows), hidden, cell)


@register("decoder", "att2in2")
class Att2in2(nn.Module):
    """The attention model of self-critical training (Rennie et al., 1612.00563) as ruotianluo's repository has it
    (captioning/models/AttModel.py of ImageCaptioning.pytorch at 4c48a33).

        v_i = relu(W a_i)      weights = softmax over positions i of w^T tanh(W_v v_i + b + W_h h_t-1)
        h_t = maxout LSTM(E y_t-1, h_t-1), both maps of its cell input with a layer of sum_i weights_i v_i added
        p_t = softmax(W_p h_t)

    States start at zero, weights as torch draws them. Dropout acts on words, v_i and h_t before the output layer. The
    words' ReLU and the second biases of that code are left out: all the same to the net. `segments` names those
    distinguished by a learned vector.
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
        segments: tuple[str, ...],
        max_length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        check_positive("decoder", embed_dim=embed_dim, hidden_dim=hidden_dim)
        check_positive("decoder", attention_dim=attention_dim, max_length=max_length)
        self.memory_dim, self.hidden_dim, self.max_length = channels, hidden_dim, max_length
        self.segments = SegmentEmbedding(segments, channels)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.embed_patches = nn.Linear(channels, hidden_dim)
        self.attention = AdditiveAttention(
            memory_dim=hidden_dim, query_dim=hidden_dim, attention_dim=attention_dim, bias=True, relu=False
        )
        self.lstm = MaxoutLSTM(input_dim=embed_dim, hidden_dim=hidden_dim)
        self.from_context = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.output = nn.Linear(hidden_dim, vocab_size)
        self.dropout = nn.Dropout(check_dropout(dropout))

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embedding

    def start(self, memory: Memory) -> Att2in2State:
        zeros = torch.zeros(memory.tokens.shape[0], self.hidden_dim, device=memory.tokens.device)
        tokens = self.embed_patches(self.segments(memory.tokens, memory.segments)).relu()
        memory = memory._replace(tokens=self.dropout(tokens))
        return Att2in2State(self.attention.project_memory(memory), zeros, zeros)

    def forward(self, words: torch.Tensor, state: Att2in2State, real: torch.Tensor | None = None) -> Output:
        hidden, attention = [], []
        for word_gates in self._word_gates(words).unbind(1):
            weights, state = self._advance(word_gates, state)
            hidden.append(state.hidden)
            attention.append(weights)
        read = self.dropout(torch.stack(hidden, 1))
        return Output(self.output(read if real is None else read[real]), torch.stack(attention, 1))

    def step(self, words: torch.Tensor, state: Att2in2State) -> tuple[torch.Tensor, Att2in2State]:
        _, state = self._advance(self._word_gates(words), state)
        return self.output(self.dropout(state.hidden)), state

    def _word_gates(self, words: torch.Tensor) -> torch.Tensor:
        """words (B,T) or (B,) -> their share of the LSTM's sums (B,T,5H) or (B,5H), for all words in one product."""
        return self.lstm.from_input(self.dropout(self.embedding(words)))

    def _advance(self, word_gates: torch.Tensor, state: Att2in2State) -> tuple[torch.Tensor, Att2in2State]:
        """word_gates (B,5H) -> attention (B,M) and the next state."""
        weights = self.attention(state.hidden, state.memory)
        seen = self.from_context(state.memory.weighted_sum(weights))
        ahead = word_gates + nn.functional.pad(seen, (3 * self.hidden_dim, 0))
        hidden, cell = self.lstm.update(ahead, state.hidden, state.cell)
        return weights, Att2in2State(state.memory, hidden, cell)
