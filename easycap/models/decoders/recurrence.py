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
