"""Tags one after another: an LSTM that reads the pooled features and writes tags."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.models.taggers.cnn import mean_and_largest
from easycap.registry import register
from easycap.types import Features, Memory


@register("tagger", "lstm")
class RecurrentTagger(nn.Module):
    """The LSTM decoder on one position of pooled features, with tags for words, the more frequent first and none twice.

    In the manner of CNN-RNN (Wang et al., CVPR 2016): a tag depends on those before it. Written greedily; the
    probability of a tag is that of being drawn in one of the steps up to the end.
    """

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        num_tags: int,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        *,
        embed_dim: int,
        hidden_dim: int,
        max_tags: int,
        dropout: float,
    ) -> None:
        super().__init__()
        for name, value in (("embed_dim", embed_dim), ("hidden_dim", hidden_dim), ("max_tags", max_tags)):
            if value < 1:
                raise UserError(f"tagger.{name}={value} must be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"tagger.dropout={dropout} must be in [0, 1)")
        self.max_length = max_tags + 1
        self.special, self.pad_id, self.bos_id, self.eos_id = vocab_size - num_tags, pad_id, bos_id, eos_id
        self.slot = nn.Sequential(nn.LayerNorm(2 * channels), nn.Linear(2 * channels, embed_dim))
        self.decoder = LSTM(
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            max_length=self.max_length,
            dropout=dropout,
            dropout_inputs=True,
            cell=Cell.lstm,
            init=Init.im2txt,
            vocab_size=vocab_size,
        )

    def _start(self, features: Features):
        token = self.slot(mean_and_largest(features)).unsqueeze(1)
        mask = token.new_ones(token.shape[:2], dtype=torch.bool)
        return self.decoder.start(Memory(token, mask, {"image": slice(0, 1)}))

    def loss(self, features: Features, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.decoder(words, self._start(features)).logits
        return nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=self.pad_id
        )

    def probabilities(self, features: Features) -> torch.Tensor:
        state = self._start(features)
        last = torch.full((len(features.patches),), self.bos_id, device=features.patches.device)
        written = torch.zeros(
            len(last), self.decoder.output.out_features, dtype=torch.bool, device=last.device
        )
        written[:, [self.pad_id, self.bos_id]] = True
        never = torch.ones(written.shape, device=last.device)  # probability of not being drawn so far
        goes_on = torch.ones_like(last, dtype=torch.bool)
        for _ in range(self.max_length):
            logits, state = self.decoder.step(last, state)
            drawn = logits.float().masked_fill(written, -torch.inf).softmax(1)
            never = torch.where(goes_on.unsqueeze(1), never * (1 - drawn), never)
            last = drawn.argmax(1)
            written = written.scatter(1, last.unsqueeze(1), True)
            written[:, self.eos_id] = False
            goes_on = goes_on & (last != self.eos_id)
            if not goes_on.any():
                break
        return 1 - never[:, self.special :]
