"""Show, Attend and Tell: an LSTM that looks at the image again before each word."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from easycap.models.checks import check_dropout, check_not_negative, check_positive
from easycap.models.decoders.additive_attention import (
    AdditiveAttention,
    AttendedMemory,
    image_mean,
    width_of_memory,
)
from easycap.models.decoders.recurrence import LSTMCell
from easycap.models.decoders.reinforce import AttentionReinforce, Cost
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.registry import register
from easycap.types import Memory, Output

_INIT_STD = 0.01


class Attention(Enum):
    """soft: the expected position. hard: one position, drawn at random while training."""

    soft = "soft"
    hard = "hard"


class Variant(Enum):
    """release: the authors' network. sgrvinod: that tutorial's. See `AttentionLSTM`."""

    release = "release"
    sgrvinod = "sgrvinod"


class Reduction(Enum):
    """How the doubly stochastic penalty is added to a mean negative log-likelihood per word.

    paper: a caption's sum over patches, next to its summed log-likelihood (equation 14); both per word here.
    patches: a caption's mean over patches, next to its summed log-likelihood; both per word here. The authors' code
    adds that mean up over the captions of a batch whose log-likelihoods it averages: its alpha_c = 1 with batches of
    64 is alpha_weight = 64 here, whatever the parts in which a batch is computed.
    mean: the mean over captions and patches, as in sgrvinod's tutorial.
    """

    paper = "paper"
    patches = "patches"
    mean = "mean"


@dataclass(frozen=True)
class AttentionLSTMState:
    """hidden and cell (B,H), and the memory of B rows."""

    memory: AttendedMemory
    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, rows: torch.Tensor) -> AttentionLSTMState:
        hidden, cell = self.hidden.index_select(0, rows), self.cell.index_select(0, rows)
        return AttentionLSTMState(self.memory.select(rows), hidden, cell)


@register("decoder", "attention_lstm")
class AttentionLSTM(nn.Module):
    """An LSTM with soft or hard attention over memory positions a_i (Xu et al., 1502.03044, sections 3 and 4).

        h_0, c_0 = tanh of two layers on the mean of the image's real patches
        alpha_t  = softmax over positions i of w^T tanh(W_a a_i + b + W_h h_t-1)           equations 4, 5
        z_t      = beta_t * sum_i alpha_ti a_i,   beta_t = sigmoid(w_beta^T h_t-1 + b)     section 4.2.1: a scalar
        h_t      = LSTM([E y_t-1 ; z_t], h_t-1)                                            equations 1-3
        p_t      = softmax(L_o tanh(E y_t-1 + L_h h_t + L_z z_t))                          equation 7

    `attention=hard` puts a single position, drawn from alpha_t, in the place of the sum while training, half of the
    time (section 4.1; see `AttentionReinforce`), and the expected position otherwise, and always when generating.
    While training, the doubly stochastic penalty `alpha_weight * sum over patches i of (1 - sum_t alpha_ti)^2` is a
    loss of its own ("doubly_stochastic"): over the real words of a caption and the real patches of its image;
    `alpha_reduction` says how it is summed. `segments` names those distinguished by a learned vector. From the authors'
    release, not the paper: the tanh before L_o, the gate in hard attention too, dropout (on the initial layer, on h_t
    before the output, before L_o), weights Gaussian with deviation 0.01, square and recurrent ones orthogonal, biases
    0. `variant` sgrvinod is the network of that tutorial (models.py:53-212 at cc9c7e2):

        h_0, c_0 = W_h mean, W_c mean      ReLU for tanh in the attention      beta_t a vector, one number a channel
        p_t      = softmax(L h_t)          dropout on that h_t alone

    with words and the output layer uniform in +-0.1, its bias 0, the rest as torch draws it; there, the LSTM has two
    biases, here their sum. Deviations from the release: a learned bos where it has zeros, and patches projected by
    one layer of any width where it has two of their own width.
    """

    prefix = False

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        pad_id: int,
        eos_id: int,
        *,
        embed_dim: int,
        hidden_dim: int,
        attention_dim: int,
        memory_width: int | None,
        segments: tuple[str, ...],
        attention: Attention,
        alpha_weight: float,
        alpha_reduction: Reduction,
        reinforce_weight: float,
        entropy_weight: float,
        reinforce_cost: Cost,
        max_length: int,
        dropout: float,
        variant: Variant,
    ) -> None:
        super().__init__()
        check_positive("decoder", embed_dim=embed_dim, hidden_dim=hidden_dim)
        check_positive("decoder", attention_dim=attention_dim, max_length=max_length)
        check_not_negative("decoder", alpha_weight=alpha_weight, reinforce_weight=reinforce_weight)
        check_not_negative("decoder", entropy_weight=entropy_weight)
        self.memory_dim = memory_dim = width_of_memory(memory_width, channels)
        self.max_length, self.pad_id, self.tutorial = max_length, pad_id, variant is Variant.sgrvinod
        self.alpha_weight, self.alpha_reduction = alpha_weight, alpha_reduction
        self.segments = SegmentEmbedding(segments, self.memory_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.initial = None if self.tutorial else nn.Linear(memory_dim, memory_dim)
        self.initial_hidden, self.initial_cell = (nn.Linear(memory_dim, hidden_dim) for _ in range(2))
        sizes = {"memory_dim": memory_dim, "query_dim": hidden_dim, "attention_dim": attention_dim}
        self.attention = AdditiveAttention(**sizes, bias=True, relu=self.tutorial)
        self.gate = nn.Linear(hidden_dim, memory_dim if self.tutorial else 1)
        self.word_gates = nn.Linear(embed_dim, 4 * hidden_dim, bias=False)
        self.lstm = LSTMCell(input_dim=memory_dim, hidden_dim=hidden_dim)
        if not self.tutorial:
            self.from_hidden = nn.Linear(hidden_dim, embed_dim)
            self.from_context = nn.Linear(memory_dim, embed_dim, bias=False)
        self.output = nn.Linear(hidden_dim if self.tutorial else embed_dim, vocab_size)
        self.dropout = nn.Dropout(check_dropout(dropout))
        (self._initialise_tutorial if self.tutorial else self._initialise)()
        self.reinforce: AttentionReinforce | None = None
        self.skips_padding = attention is Attention.soft  # hard attention is rewarded for whole captions
        if attention is Attention.hard:
            self.reinforce = AttentionReinforce(
                reward_weight=reinforce_weight,
                entropy_weight=entropy_weight,
                cost=reinforce_cost,
                max_length=max_length,
                pad_id=pad_id,
                eos_id=eos_id,
            )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                square = module.weight.shape[0] == module.weight.shape[1]
                if square and module is not self.attention.key:
                    nn.init.orthogonal_(module.weight)
                else:
                    nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.lstm.recurrent_blocks:
            nn.init.orthogonal_(block)

    def _initialise_tutorial(self) -> None:
        for weight in (self.embedding.weight, self.output.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)
        limit = (self.lstm.gates.out_features // 4) ** -0.5
        for parameter in (
            *self.lstm.parameters(),
            *self.word_gates.parameters(),
        ):  # as nn.LSTMCell draws them
            nn.init.uniform_(parameter, -limit, limit)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embedding

    def start(self, memory: Memory) -> AttentionLSTMState:
        memory = memory._replace(tokens=self.segments(memory.tokens, memory.segments))
        mean = image_mean(memory)
        if self.initial is not None:
            mean = self.dropout(torch.relu(self.initial(mean)))
        hidden, cell = self.initial_hidden(mean), self.initial_cell(mean)
        if not self.tutorial:
            hidden, cell = torch.tanh(hidden), torch.tanh(cell)
        cell = cell.to(torch.promote_types(cell.dtype, torch.float32))
        return AttentionLSTMState(self.attention.project_memory(memory), hidden, cell)

    def forward(
        self, words: torch.Tensor, state: AttentionLSTMState, real: torch.Tensor | None = None
    ) -> Output:
        embedded = self.embedding(words)
        drawing = self.reinforce.draw_rows(words) if self.training and self.reinforce else None
        memory, hidden, contexts, attention, drawn = state.memory, [], [], [], []
        for word_gates in self.word_gates(embedded).unbind(1):
            weights = self.attention(state.hidden, memory)
            locations = weights
            if self.reinforce is not None and drawing is not None:
                locations = self.reinforce.draw(weights, drawing)
                drawn.append(locations)
            context, state = self._advance(word_gates, locations, state)
            hidden.append(state.hidden)
            contexts.append(context)
            attention.append(weights)
        alpha = torch.stack(attention, 1)
        read = embedded, torch.stack(hidden, 1), torch.stack(contexts, 1)
        logits = self._logits(*(read if real is None else (part[real] for part in read)))
        losses = self._losses(words, alpha, memory) if self.training else {}
        if self.reinforce is not None and drawing is not None:
            losses |= self.reinforce(words, logits, alpha, torch.stack(drawn, 1), drawing)
        return Output(logits, alpha, losses)

    def step(self, words: torch.Tensor, state: AttentionLSTMState) -> tuple[torch.Tensor, AttentionLSTMState]:
        embedded = self.embedding(words)
        weights = self.attention(state.hidden, state.memory)
        context, state = self._advance(self.word_gates(embedded), weights, state)
        return self._logits(embedded, state.hidden, context), state

    def _advance(
        self, word_gates: torch.Tensor, locations: torch.Tensor, state: AttentionLSTMState
    ) -> tuple[torch.Tensor, AttentionLSTMState]:
        """word_gates (B,4H), locations (B,M), weights that sum to 1 -> the gated context z (B,D) and the next state."""
        context = self.gate(state.hidden).sigmoid() * state.memory.weighted_sum(locations)
        hidden, cell = self.lstm(context, state.hidden, state.cell, word_gates)
        return context, AttentionLSTMState(state.memory, hidden, cell)

    def _logits(self, embedded: torch.Tensor, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Equation 7 for one word (B,...) or all of them (B,T,...)."""
        if self.tutorial:
            return self.output(self.dropout(hidden))
        summed = embedded + self.from_hidden(self.dropout(hidden)) + self.from_context(context)
        return self.output(self.dropout(torch.tanh(summed)))

    def _losses(
        self, words: torch.Tensor, alpha: torch.Tensor, memory: AttendedMemory
    ) -> dict[str, torch.Tensor]:
        if not self.alpha_weight:
            return {}
        real = words != self.pad_id
        penalty = doubly_stochastic(alpha, real, memory.is_image, self.alpha_reduction)
        return {"doubly_stochastic": self.alpha_weight * penalty}


def doubly_stochastic(
    alpha: torch.Tensor, real: torch.Tensor, is_image: torch.Tensor, reduction: Reduction
) -> torch.Tensor:
    """(1 - sum_t alpha_ti)^2, reduced to a scalar (equation 14).

    alpha (B,T,M), real (B,T) True for words that count, is_image (B,M) True for patches that count.
    """
    looked = (alpha * real.unsqueeze(2)).sum(1)
    missed = (1 - looked).square() * is_image
    if reduction is Reduction.mean:
        return missed.sum() / is_image.sum()
    per_caption = missed.sum(1)
    if reduction is Reduction.patches:
        per_caption = per_caption / is_image.sum(1)
    return per_caption.sum() / real.sum()
