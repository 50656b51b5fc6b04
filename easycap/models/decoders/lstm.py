"""Show and Tell: one LSTM that reads the image as its first word."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from easycap.models.checks import check_dropout, check_positive
from easycap.models.decoders.recurrence import MaxoutLSTM, lstm_update
from easycap.registry import register
from easycap.types import Memory, Output

_INIT_RANGE = 0.08  # the authors' initializer_scale


class Cell(Enum):
    """lstm: the paper's. maxout: see `MaxoutLSTM`."""

    lstm = "lstm"
    maxout = "maxout"


class Init(Enum):
    """Weight initialisation. im2txt: uniform in +-0.08, the forget gate's bias 1, other biases 0. torch: its defaults,
    embeddings N(0,1), the rest uniform in +-1/sqrt(width), biases included.
    """

    im2txt = "im2txt"
    torch = "torch"


@dataclass(frozen=True)
class LSTMState:
    """hidden (B,H) and cell (B,H) after everything read so far."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, rows: torch.Tensor) -> LSTMState:
        return LSTMState(self.hidden.index_select(0, rows), self.cell.index_select(0, rows))


@register("decoder", "lstm")
class LSTM(nn.Module):
    """An LSTM over memory positions, then words (Vinyals et al., 1411.4555, equations 4-12); memory has width E.

        x_-1 = image      x_t = E w_t      p_t+1 = softmax(W h_t)

    The paper feeds the image once, before bos: `image_tokens=split image_tokens.count=1` is its linear map of the
    pooled vector. Further positions are read one after another; masked ones change nothing, and what the
    LSTM predicts after a position of the memory is not used. The state starts at zero. Dropout acts on the LSTM's
    output, with `dropout_inputs` on its inputs too, never within the recurrence. The defaults of the YAML are those of
    the authors' release (im2txt); `cell` maxout, `init` torch and no dropout on inputs are those of ruotianluo's
    "newfc". Deviations from im2txt: bos follows the image as a word of its own, and the gates have torch's two bias
    vectors, of which one starts at zero and does nothing the other could not.
    """

    prefix, skips_padding = True, True

    def __init__(
        self,
        vocab_size: int,
        *,
        embed_dim: int,
        hidden_dim: int,
        max_length: int,
        dropout: float,
        dropout_inputs: bool,
        cell: Cell,
        init: Init,
    ) -> None:
        super().__init__()
        check_positive("decoder", embed_dim=embed_dim, hidden_dim=hidden_dim, max_length=max_length)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.lstm: MaxoutLSTM | nn.LSTM = (
            MaxoutLSTM(input_dim=embed_dim, hidden_dim=hidden_dim)
            if cell is Cell.maxout
            else nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        )
        self.output = nn.Linear(hidden_dim, vocab_size)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.dropout_inputs = nn.Dropout(dropout if dropout_inputs else 0.0)
        self.memory_dim, self.max_length = embed_dim, max_length
        if init is Init.im2txt:
            self._initialise()

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, -_INIT_RANGE, _INIT_RANGE)
            else:
                nn.init.zeros_(parameter)
        bias = self.lstm.from_input.bias if isinstance(self.lstm, MaxoutLSTM) else self.lstm.all_weights[0][2]
        nn.init.ones_(bias[self.lstm.hidden_size : 2 * self.lstm.hidden_size])

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embedding

    def start(self, memory: Memory) -> LSTMState:
        zeros = torch.zeros(memory.tokens.shape[0], self.lstm.hidden_size, device=memory.tokens.device)
        hidden, cell = zeros, zeros
        for token, valid in zip(memory.tokens.unbind(1), memory.mask.unsqueeze(2).unbind(1), strict=True):
            read_hidden, read_cell = self._read(token, hidden, cell)
            hidden, cell = torch.where(valid, read_hidden, hidden), torch.where(valid, read_cell, cell)
        return LSTMState(hidden, cell)

    def forward(self, words: torch.Tensor, state: LSTMState, real: torch.Tensor | None = None) -> Output:
        embedded = self.dropout_inputs(self.embedding(words))
        if isinstance(self.lstm, MaxoutLSTM):
            hidden = self.lstm(embedded, state.hidden, state.cell)
        else:
            with _lstm_without_onednn(embedded.device):
                hidden, _ = self.lstm(embedded, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        hidden = self.dropout(hidden)
        return Output(self.output(hidden if real is None else hidden[real]))

    def step(self, words: torch.Tensor, state: LSTMState) -> tuple[torch.Tensor, LSTMState]:
        hidden, cell = self._read(self.embedding(words), state.hidden, state.cell)
        return self.output(self.dropout(hidden)), LSTMState(hidden, cell)

    def _read(
        self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of `self.lstm`: inputs (B,E) -> hidden and cell (B,H)."""
        inputs = self.dropout_inputs(inputs)
        if isinstance(self.lstm, MaxoutLSTM):
            return self.lstm.step(inputs, hidden, cell)
        of_input, of_hidden, input_bias, hidden_bias = self.lstm.all_weights[0]
        gates = nn.functional.linear(inputs, of_input, input_bias)
        gates = gates + nn.functional.linear(hidden, of_hidden, hidden_bias)
        return lstm_update(gates, cell)


def _lstm_without_onednn(device: torch.device) -> AbstractContextManager[None]:
    """In half precision on a CPU, leave the LSTM to torch: oneDNN, called on CPUs with AVX512-FP16, cannot train it."""
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.float16
    return torch.backends.mkldnn.flags(enabled=False) if device.type == "cpu" and half else nullcontext()
