"""Show and Tell: one LSTM that reads the image as its first word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from easycap.models.decoders.checks import check_dropout, check_positive
from easycap.models.decoders.recurrence import lstm_update
from easycap.registry import register
from easycap.types import Memory, Output

_INIT_RANGE = 0.08  # the authors' initializer_scale


@dataclass(frozen=True)
class LSTMState:
    """hidden (B,H) and cell (B,H) after everything read so far."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, rows: torch.Tensor) -> LSTMState:
        return LSTMState(self.hidden.index_select(0, rows), self.cell.index_select(0, rows))


@register("decoder", "lstm")
class LSTM(nn.Module):
    """An LSTM over memory slots, then words (Vinyals et al., 1411.4555, equations 4-12); memory has width E.

        x_-1 = image      x_t = E w_t      p_t+1 = softmax(W h_t)

    The paper feeds the image once, before bos: `image_tokens=split image_tokens.count=1` is its linear map of the
    pooled vector. More slots are read one after another; a masked one changes nothing. What the LSTM would say after
    a slot is never asked. The state starts at zero. Dropout as the authors' release has it, on the LSTM's inputs and
    outputs, none within the recurrence; weights start uniform in +-0.08, the forget gate's bias at 1, all others at 0.
    Deviations: bos follows the image as a word of its own, and the gates have torch's two bias vectors, of which one
    starts at zero and does nothing the other could not.
    """

    prefix = True

    def __init__(
        self,
        *,
        embed_dim: int,
        hidden_dim: int,
        max_words: int,
        dropout: float,
        vocab_size: int,
    ) -> None:
        super().__init__()
        check_positive("decoder", embed_dim=embed_dim, hidden_dim=hidden_dim, max_words=max_words)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        self.output = nn.Linear(hidden_dim, vocab_size)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.memory_dim, self.max_words = embed_dim, max_words
        self._initialise()

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, -_INIT_RANGE, _INIT_RANGE)
            else:
                nn.init.zeros_(parameter)
        forget = slice(self.lstm.hidden_size, 2 * self.lstm.hidden_size)
        nn.init.ones_(self.lstm.bias_ih_l0[forget])

    @property
    def word_table(self) -> nn.Embedding:
        return self.embedding

    def start(self, memory: Memory) -> LSTMState:
        zeros = torch.zeros(len(memory.tokens), self.lstm.hidden_size, device=memory.tokens.device)
        hidden, cell = zeros, zeros
        for slot, valid in zip(memory.tokens.unbind(1), memory.mask.unsqueeze(2).unbind(1), strict=True):
            read, kept = self._read(slot, hidden, cell)
            hidden, cell = torch.where(valid, read, hidden), torch.where(valid, kept, cell)
        return LSTMState(hidden, cell)

    def forward(self, words: torch.Tensor, state: LSTMState) -> Output:
        embedded = self.dropout(self.embedding(words))
        hidden, _ = self.lstm(embedded, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        return Output(self.output(self.dropout(hidden)))

    def step(self, words: torch.Tensor, state: LSTMState) -> tuple[torch.Tensor, LSTMState]:
        hidden, cell = self._read(self.embedding(words), state.hidden, state.cell)
        return self.output(self.dropout(hidden)), LSTMState(hidden, cell)

    def _read(
        self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of `self.lstm`: inputs (B,E) -> hidden and cell (B,H)."""
        gates = nn.functional.linear(self.dropout(inputs), self.lstm.weight_ih_l0, self.lstm.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, self.lstm.weight_hh_l0, self.lstm.bias_hh_l0)
        return lstm_update(gates, cell)
