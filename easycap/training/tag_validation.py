"""Looking at a tag model while it trains: its loss, its tags, their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from easycap.data.loader import Batches
from easycap.training.validation import Validator
from easycap.types import Batch


class TagValidator(Validator):
    """A `Validator` whose "captions" are tags; `score` gets probabilities {id: (tags,)} in their place."""

    usual_metric = "mAP"

    def _scored_captions(
        self,
        captioner: nn.Module,
        batches: Sequence[Batch] | Batches,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
    ) -> tuple[dict[str, str], dict[str, float], dict[str, float]]:
        found = self.ranks.merge(
            probabilities_of_batches(captioner, batches, device=device, autocast=autocast)
        )
        examples = [example for example in self.examples if example.id in found]
        likely = {example.id: found[example.id] for example in examples}
        scores = self.ranks.share(self.score(examples, likely)[0] if self.ranks.first else None)
        return {i: likely_text(row, self.vocabulary.tags) for i, row in likely.items()}, scores, {}


@torch.no_grad()
def probabilities_of_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, np.ndarray]:
    """Return {image id: the probability of each tag (tags,)}, in eval mode; the model's mode is as before after it."""
    was_training = model.training
    model.eval()
    found: dict[str, np.ndarray] = {}
    for batch in batches:
        with autocast():
            rows = model.probabilities(batch.inputs.to(device))
        found.update(zip(batch.ids, rows.cpu().numpy(), strict=True))
    model.train(was_training)
    return found


def likely_text(probabilities: np.ndarray, tags: Sequence[str], *, least: float = 0.5) -> str:
    """Return the tags of probability `least` and more, the likeliest first and one at least: "dog 0.98, bark 0.71"."""
    order = np.argsort(-probabilities, kind="stable")
    count = max(1, int((probabilities >= least).sum()))
    return ", ".join(f"{tags[place]} {probabilities[place]:.2f}" for place in order[:count])
