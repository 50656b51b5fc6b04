"""How hard attention learns where to look: by reward, as drawing a location has no gradient."""

from __future__ import annotations

import torch
from torch import nn

_DRAWN_SHARE = 0.5  # the paper sets the location to its expected value with probability 0.5
_BASELINE_RATE = 0.1


class AttentionReinforce(nn.Module):
    """The learning rule of hard attention (Xu et al., 1502.03044, section 4.1), as losses per word.

        reward_weight * (cost - baseline) * log alpha of the drawn slots   -   entropy_weight * H(alpha)

    Both are summed over the real words of the captions and divided by how many there are, as the likelihood is. cost
    is the negative log-likelihood of a whole caption; baseline, a buffer, is 0.9 of itself and 0.1 of the mean
    cost, from 0, after each batch: with trainer.accumulate each of those that make a step, with several ranks the mean
    of theirs. The paper leaves a location undrawn for half of the images, the authors' release for half of the batches;
    here it is half of the captions, at all their words. Undrawn captions attend softly, with gradient, and have no
    share in the reward. The weights are cross-validated in the paper and not given; the release divides the cost by 10.
    A caption cut at `max_words` is rewarded without its last word, which the decoder never sees.
    """

    averaged_buffers = ("baseline",)  # over ranks, after a step

    baseline: torch.Tensor

    def __init__(
        self, *, reward_weight: float, entropy_weight: float, max_words: int, pad_id: int, eos_id: int
    ) -> None:
        super().__init__()
        self.reward_weight, self.entropy_weight = reward_weight, entropy_weight
        self.max_words, self.pad_id, self.eos_id = max_words, pad_id, eos_id
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
        slots: torch.Tensor,
        rows: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """words (B,T), logits (B,T,V), alpha and slots (B,T,M), rows (B,) -> the two losses by name."""
        real = (words != self.pad_id).to(alpha.dtype)
        log_alpha = alpha.clamp(min=torch.finfo(alpha.dtype).tiny).log()
        entropy = -((alpha * log_alpha).sum(2) * real).sum()
        log_drawn = ((slots.detach() * log_alpha).sum(2) * real).sum(1)
        cost = self.costs(words, logits)
        reward = ((cost - self.baseline) * log_drawn * rows).sum()
        self._move_baseline(cost, rows)
        num_words = real.sum()
        return {
            "reinforce": self.reward_weight * reward / num_words,
            "attention_entropy": -self.entropy_weight * entropy / num_words,
        }

    @torch.no_grad()
    def costs(self, words: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood (B,) of each caption's words after bos, eos included."""
        following = nn.functional.pad(words[:, 1:], (0, 1), value=self.pad_id)
        ends = (words != self.pad_id) & (following == self.pad_id)
        ends[:, self.max_words - 1 :] = False  # a caption of full length may have been cut
        targets = following.masked_fill(ends, self.eos_id)
        return nn.functional.cross_entropy(
            logits.transpose(1, 2).float(), targets, ignore_index=self.pad_id, reduction="none"
        ).sum(1)

    @torch.no_grad()
    def _move_baseline(self, cost: torch.Tensor, rows: torch.Tensor) -> None:
        count = rows.sum()
        mean = (cost * rows).sum() / count.clamp(min=1)
        self.baseline.lerp_(mean.to(self.baseline.dtype), _BASELINE_RATE * (count > 0))
