"""How hard attention learns where to look: by reward, as drawing a location has no gradient."""

from __future__ import annotations

from enum import Enum

import torch
from torch import nn

_DRAWN_SHARE = 0.5  # the paper sets the location to its expected value with probability 0.5
_BASELINE_RATE = 0.1


class Cost(Enum):
    """The cost for a caption's sampled locations: the caption's negative log-likelihood (the paper), or its mean per
    word (the authors' release).
    """

    caption = "caption"
    word = "word"


class AttentionReinforce(nn.Module):
    """The learning rule of hard attention (Xu et al., 1502.03044, section 4.1), as losses per word.

        reward_weight * (cost - baseline) * log alpha of the drawn locations   -   entropy_weight * H(alpha)

    Both are summed over the real words of the captions and divided by how many there are, as the likelihood is.
    baseline, a buffer, is 0.9 of itself and 0.1 of the captions' mean cost, from 0, after each batch: with
    trainer.accumulate each of those that make a step, with several ranks the mean of theirs. The paper leaves a
    location undrawn for half of the images, the authors' release for half of the batches; here it is half of the
    captions, at all their words. Undrawn captions attend softly, with gradient, and have no share in the reward. The
    weights are cross-validated in the paper and not given. The release (capgen.py:1189-1202) divides the reward by 10,
    weighs the entropy by 0.002, and sums both over a batch of N captions whose log-likelihoods it averages: the weights
    are N/10 and 0.002 N here, with `cost` word. A caption cut at `max_length` is rewarded without its last word, which
    the decoder never sees.
    """

    averaged_buffers = ("baseline",)  # over ranks, after a step

    baseline: torch.Tensor

    def __init__(
        self,
        *,
        reward_weight: float,
        entropy_weight: float,
        cost: Cost,
        max_length: int,
        pad_id: int,
        eos_id: int,
    ) -> None:
        super().__init__()
        self.cost = cost
        self.reward_weight, self.entropy_weight = reward_weight, entropy_weight
        self.max_length, self.pad_id, self.eos_id = max_length, pad_id, eos_id
        self.register_buffer("baseline", torch.zeros(()))

    def draw_rows(self, words: torch.Tensor) -> torch.Tensor:
        """Return which captions of words (B,T) attend to drawn locations: (B,) bool."""
        return torch.rand(len(words), device=words.device) < _DRAWN_SHARE

    def draw(self, weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """weights (B,M), rows (B,) -> one-hot where a location is drawn, the weights themselves elsewhere."""
        location = torch.multinomial(weights.detach(), 1)
        one_hot = torch.zeros_like(weights).scatter(1, location, 1.0)
        return torch.where(rows.unsqueeze(1), one_hot, weights)

    def forward(
        self,
        words: torch.Tensor,
        logits: torch.Tensor,
        alpha: torch.Tensor,
        locations: torch.Tensor,
        rows: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """words (B,T), logits (B,T,V), alpha and locations (B,T,M), rows (B,) -> the two losses by name."""
        real = (words != self.pad_id).to(alpha.dtype)
        log_alpha = alpha.clamp(min=torch.finfo(alpha.dtype).tiny).log()
        entropy = -((alpha * log_alpha).sum(2) * real).sum()
        log_drawn = ((locations.detach() * log_alpha).sum(2) * real).sum(1)
        cost = self.costs(words, logits)
        reward = ((cost - self.baseline) * log_drawn * rows).sum()
        self._move_baseline(cost)
        num_words = real.sum()
        return {
            "reinforce": self.reward_weight * reward / num_words,
            "attention_entropy": -self.entropy_weight * entropy / num_words,
        }

    @torch.no_grad()
    def costs(self, words: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the cost (B,) of each caption's words after bos, eos included: see `Cost`."""
        following = nn.functional.pad(words[:, 1:], (0, 1), value=self.pad_id)
        ends = (words != self.pad_id) & (following == self.pad_id)
        ends[:, self.max_length - 1 :] = False  # a caption of full length may have been cut
        targets = following.masked_fill(ends, self.eos_id)
        cost = nn.functional.cross_entropy(
            logits.transpose(1, 2).float(), targets, ignore_index=self.pad_id, reduction="none"
        ).sum(1)
        if self.cost is Cost.caption:
            return cost
        return cost / (targets != self.pad_id).sum(1).clamp(min=1)

    @torch.no_grad()
    def _move_baseline(self, cost: torch.Tensor) -> None:
        self.baseline.lerp_(cost.mean().to(self.baseline.dtype), _BASELINE_RATE)
