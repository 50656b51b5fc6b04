"""Word after word, one word per row: the loop under greedy decoding and sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch

from easycap.types import Decoder, Generated, State

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Choice = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def roll_out(
    decoder: Decoder,
    state: State,
    *,
    first: torch.Tensor,
    max_length: int,
    logits_processor: Processor,
    choose: Choice,
    pad_id: int,
    eos_id: int,
) -> Generated:
    """Continue B rows from their `first` words (B,), usually bos, until each has ended -> Generated.

    `logits_processor` maps the model's log-probabilities (B,V) and the words so far (B,t) to scores (B,V), `choose`
    maps those to words (B,). The reported scores are the model's own log-probabilities, whatever the processor did.
    There is no gradient. Consumes `state`.
    """
    assert not getattr(decoder, "training", False), "dropout is on: call .eval() before generating"
    words = first.new_full((len(first), max_length), pad_id)
    scores = torch.zeros(len(first), device=first.device)
    running = torch.arange(len(first), device=first.device)
    last, length = first, 0
    while True:
        logits, state = decoder.step(last, state)
        log_probs = logits.float().log_softmax(1)
        last = choose(logits_processor(log_probs, words[running, :length]))
        words[running, length] = last
        scores[running] += log_probs.gather(1, last.unsqueeze(1)).squeeze(1)
        length += 1
        keep = (last != eos_id).nonzero().squeeze(1)
        if length == max_length or not len(keep):
            return Generated(words[:, :length], scores)
        if len(keep) < len(running):  # rows that have ended cost nothing more
            running, last, state = running[keep], last[keep], state.select(keep)


def most_likely(scores: torch.Tensor) -> torch.Tensor:
    """scores (B,V) -> the best word of each row (B,)."""
    return scores.argmax(1)


def draw(scores: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Unnormalised log-probabilities (B,V) -> one word per row (B,), drawn from them (None: by torch's generator)."""
    return torch.multinomial(scores.softmax(1), 1, generator=generator).squeeze(1)
