"""Where a decoder looked before each word of a caption, and how likely it found it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch

from easycap.types import CaptionModel, Inputs, Vocabulary

NUM_LIKELIEST = 5  # ids


class CaptionDetails(NamedTuple):
    """Of T ids: their log-probabilities (T,) given the image and the ids before, and the attention (T,K) over the
    image tokens before each, None if the decoder has no attention.

    A row of attention adds up to less than 1 where the memory has other segments too. `likeliest` are the n ids that
    the model finds most likely at each place (T,n), the likeliest first, with their log-probabilities (T,n).
    """

    ids: Sequence[int]
    log_probabilities: np.ndarray
    attention: np.ndarray | None
    likeliest: tuple[np.ndarray, np.ndarray]


@torch.no_grad()
def caption_details(
    captioner: CaptionModel,
    inputs: Inputs,
    captions: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
) -> list[CaptionDetails]:
    """N images and the ids of a caption of each, from one teacher-forced pass in eval mode."""
    memory = captioner.build_memory(inputs)
    words = _shifted(captions, vocabulary).to(memory.tokens.device)
    with autocast():
        output = captioner.decoder(words, captioner.decoder.start(memory))
    attention = None
    if output.attention is not None:
        attention = output.attention[:, :, memory.segments["image"]].float().cpu().numpy()
    found = []
    for row, ids in enumerate(captions):
        logits = output.logits[row, : len(ids)].float().log_softmax(-1)
        chosen = logits[torch.arange(len(ids)), torch.tensor(ids, dtype=torch.long)].cpu().numpy()
        best = logits.topk(min(NUM_LIKELIEST, logits.shape[1]))
        weights = None if attention is None else attention[row, : len(ids)]
        likeliest = best.indices.cpu().numpy(), best.values.cpu().numpy()
        found.append(CaptionDetails(ids, chosen, weights, likeliest))
    return found


def _shifted(captions: Sequence[Sequence[int]], vocabulary: Vocabulary) -> torch.Tensor:
    """What a decoder reads while it generates the captions: bos and all words but the last, padded (N,T)."""
    words = torch.full((len(captions), max(1, *map(len, captions))), vocabulary.pad_id)
    words[:, 0] = vocabulary.bos_id
    for row, ids in enumerate(captions):
        words[row, 1 : len(ids)] = torch.tensor(ids[:-1], dtype=torch.long)
    return words


def by_words(ids: Sequence[int], weights: np.ndarray, vocabulary: Vocabulary) -> tuple[list[str], np.ndarray]:
    """ids (T) and their attention (T,K) -> the W words they make and the mean attention of each one's pieces (W,K)."""
    words = vocabulary.decode(ids).split()
    # How many words there are after each piece; a later piece can join two that stood apart.
    counts = np.array([len(vocabulary.decode(ids[:end]).split()) for end in range(1, len(ids) + 1)])
    counts = np.minimum.accumulate(counts[::-1])[::-1]
    means = [weights[counts == number].mean(0) for number in range(1, len(words) + 1)]
    return words, np.array(means, dtype=np.float32).reshape(len(words), weights.shape[1])
