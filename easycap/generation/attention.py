"""Where a decoder looked before each word of a caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from easycap.types import Inputs, Vocabulary


@torch.no_grad()
def attention_over_image(
    captioner: nn.Module,
    inputs: Inputs,
    captions: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
) -> list[np.ndarray] | None:
    """N images and the ids of a caption of each -> N arrays (T,K), None if the decoder has no attention.

    Row t says how much of the attention each image token had before word t was said, from one teacher-forced pass in
    eval mode. Rows add up to less than 1 where the memory has other segments too.
    """
    memory = captioner.remember(inputs)
    words = _shifted(captions, vocabulary).to(inputs.images.device)
    with autocast():
        attention = captioner.decoder(words, captioner.decoder.start(memory)).attention
    if attention is None:
        return None
    over_image = attention[:, :, memory.segments["image"]].float().cpu().numpy()
    return [weights[: len(ids)] for weights, ids in zip(over_image, captions, strict=True)]


def _shifted(captions: Sequence[Sequence[int]], vocabulary: Vocabulary) -> torch.Tensor:
    """What a decoder reads while it says the captions: bos and all words but the last, padded (N,T)."""
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
