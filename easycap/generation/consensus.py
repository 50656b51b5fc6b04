"""Consensus decoding: of many captions the one that is most like all of them, or like those of similar images.

Shape legend: N images, k candidates of each, T words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from easycap.errors import UserError
from easycap.generation.beam import Beam, OnEnd
from easycap.generation.logits_processors import DecodingSettings
from easycap.generation.sample import Sample
from easycap.metrics.cider import CiderReward
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory, Vocabulary

_LEAST = 1e-6  # what a caption counts at least, for images that nothing is similar to


@register("decoding", "consensus")
class Consensus:
    """Of the `num_beams` best captions of beam search and `num_draws` drawn at `temperature`, the one with the highest
    mean CIDEr-D against other captions, `likelihood` times its own log-probability added: memory of N images ->
    Generated of N captions.

    With `neighbours` those are the references of so many training images whose features are nearest (consensus
    reranking, 1412.6632 and 1505.04467), compared by `whiten` whitened principal components or, null, as they are, each
    counting in proportion to the cosine of its image if `by_similarity`; with 0 they are the candidates themselves,
    which is minimum Bayes risk decoding (Kumar and Byrne 2004). Document frequencies are those of the training
    references. Words are restricted by `DecodingSettings`; random numbers start from `seed`, as those of `Sample`.
    Raises `UserError` for settings out of range.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        document_frequencies: Callable[[], DocumentFrequencies],
        nearest_captions: Callable[[Any, int, int | None], list[list[tuple[str, float]]]],
        *,
        shared: DecodingSettings,
        neighbours: int,
        whiten: int | None,
        by_similarity: bool,
        likelihood: float,
        num_beams: int,
        num_draws: int,
        temperature: float,
        length_penalty: float,
        seed: int,
    ) -> None:
        if num_draws < 0 or num_beams < 0 or num_draws + num_beams < 2:
            raise UserError(
                f"decoding.num_draws={num_draws} and decoding.num_beams={num_beams} must be at least 0, and "
                "together at least 2 captions to choose from"
            )
        if neighbours < 0:
            raise UserError(f"decoding.neighbours={neighbours} must be at least 0 (0: none)")
        if whiten is not None and whiten < 1:
            raise UserError(
                f"decoding.whiten={whiten} must be a number of principal components, at least 1, or null for the "
                "features as they are"
            )
        if not 0 <= likelihood < math.inf:
            raise UserError(f"decoding.likelihood={likelihood} must be a weight of 0 (none) or more")
        self.vocabulary, self.pad_id, self.bos_id = vocabulary, vocabulary.pad_id, vocabulary.bos_id
        self._frequencies, self._nearest = document_frequencies, nearest_captions
        self.neighbours, self.whiten, self.reads_features = neighbours, whiten, neighbours > 0
        self.by_similarity, self.likelihood = by_similarity, likelihood
        # also with none of them, so that its settings are checked
        self._sample = Sample(
            vocabulary,
            shared=shared,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_samples=max(1, num_draws),
            seed=seed,
        )
        self._beam = Beam(
            vocabulary,
            shared=shared,
            num_beams=max(1, num_beams),
            length_penalty=length_penalty,
            early_stopping=False,
            on_end=OnEnd.refill,
        )
        self.num_draws, self.num_beams = num_draws, num_beams

    @torch.no_grad()
    def __call__(self, decoder: Decoder, memory: Memory, features: Any = None) -> Generated:
        words, scores = self._candidates(decoder, memory)
        gains = self._gains(words, features) + self.likelihood * scores.float().cpu()
        chosen = gains.argmax(1).to(words.device)
        images = torch.arange(len(words), device=words.device)
        return Generated(words[images, chosen], scores[images, chosen])

    def _candidates(self, decoder: Decoder, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the candidates (N,k,T), those of beam search first, and their log-probabilities (N,k)."""
        num_images, found = len(memory.tokens), []
        if self.num_beams:
            first = torch.full((num_images,), self.bos_id, device=memory.tokens.device)
            found.append(self._beam.search(decoder, decoder.start(memory), first))
        if self.num_draws:
            drawn = self._sample(decoder, memory)
            shape = (num_images, self.num_draws)
            drawn_words = drawn.words.view(*shape, drawn.words.shape[1])
            found.append(Generated(drawn_words, drawn.scores.view(shape)))
        longest = max(part.words.shape[2] for part in found)
        words = [
            torch.nn.functional.pad(part.words, (0, longest - part.words.shape[2]), value=self.pad_id)
            for part in found
        ]
        return torch.cat(words, 1), torch.cat([part.scores for part in found], 1)

    def _gains(self, words: torch.Tensor, features: Any) -> torch.Tensor:
        """Return the mean CIDEr-D (N,k) of candidates (N,k,T)."""
        num_images, size, _ = words.shape
        if not num_images:
            return torch.zeros(0, size)
        texts = [self.vocabulary.decode(row) for row in words.flatten(0, 1).tolist()]
        images = [str(number) for number in range(num_images) for _ in range(size)]
        weights = None
        if self.neighbours:
            found = self._nearest(features, self.neighbours, self.whiten)
            others = [[text for text, _ in of] for of in found]
            if self.by_similarity:
                weights = {str(n): [max(cosine, _LEAST) for _, cosine in of] for n, of in enumerate(found)}
        else:
            others = [texts[first : first + size] for first in range(0, len(texts), size)]
        references = {str(number): of for number, of in enumerate(others)}
        reward = CiderReward(references=references, df=self._frequencies(), eos=False, weights=weights)
        return torch.from_numpy(reward(images, texts)).reshape(num_images, size)
