"""The LSTM's step, in parts: what does not wait for the previous word can be computed for all words at once."""

from __future__ import annotations

import torch
from torch import nn


def lstm_update(gates: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates (B,4H) before their non-linearities, in torch's order i, f, g, o; cell (B,H) -> hidden, cell (B,H).

    The cell keeps the width of its numbers: a sum over many words, it is float32 under autocast too.
    """
    write, forget, value, show = gates.chunk(4, dim=1)
    cell = forget.sigmoid() * cell + write.sigmoid() * value.tanh()
    return show.sigmoid() * cell.tanh(), cell


class LSTMCell(nn.Module):
    """inputs (B,I), hidden and cell (B,H) -> the next hidden and cell.

    `ahead` (B,4H) is the part of the gates that the caller has computed for all words before the loop.
    """

    def __init__(self, *, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.gates = nn.Linear(input_dim + hidden_dim, 4 * hidden_dim)

    def forward(
        self,
        inputs: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
        ahead: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gates = self.gates(torch.cat([inputs, hidden], dim=1))
        return lstm_update(gates if ahead is None else gates + ahead, cell)

    @property
    def recurrent_blocks(self) -> tuple[torch.Tensor, ...]:
        """The four (H,H) matrices from hidden to a gate, as views of the weights."""
        return self.gates.weight[:, self.input_dim :].chunk(4)

    @property
    def forget_bias(self) -> torch.Tensor:
        """The bias of the forget gate (H,), as a view."""
        return self.gates.bias.chunk(4)[1]


class MaxoutLSTM(nn.Module):
    """An LSTM whose cell input is the maximum of two linear maps, without tanh, as in ruotianluo's repository
    (captioning/models/FCModel.py:14-41 of ImageCaptioning.pytorch).

        i, f, o, a, b = W_x x + b_x + W_h h + b_h
        c = sigmoid(f) * c + sigmoid(i) * max(a, b)      h = sigmoid(o) * tanh(c)
    """

    def __init__(self, *, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_size = hidden_dim
        self.from_input = nn.Linear(input_dim, 5 * hidden_dim)
        self.from_hidden = nn.Linear(hidden_dim, 5 * hidden_dim)

    def forward(self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """inputs (B,T,I), hidden and cell (B,H) -> all hidden states (B,T,H)."""
        found = []
        for ahead in self.from_input(inputs).unbind(1):
            hidden, cell = self.update(ahead, hidden, cell)
            found.append(hidden)
        return torch.stack(found, 1)

    def step(
        self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """inputs (B,I), hidden and cell (B,H) -> the next hidden and cell."""
        return self.update(self.from_input(inputs), hidden, cell)

    def update(
        self, ahead: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `step`, with W_x x + b_x and whatever else adds to the sums in `ahead` (B,5H)."""
        write, forget, show, first, second = (ahead + self.from_hidden(hidden)).chunk(5, dim=1)
        cell = forget.sigmoid() * cell + write.sigmoid() * torch.maximum(first, second)
        return show.sigmoid() * cell.tanh(), cell
